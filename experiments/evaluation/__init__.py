"""Evaluation of pre-training: held-out text, layers and linear probes."""
