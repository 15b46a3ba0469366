"""ALBERT in JAX and Flax."""
