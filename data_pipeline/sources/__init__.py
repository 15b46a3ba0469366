"""Sources: documents and records out of files, TensorFlow data sets and installed packages."""
