"""The text: from documents to batches. Knows TensorFlow and NumPy, never JAX."""
