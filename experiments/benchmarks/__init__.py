"""Benchmarks: speed of data, steps, encoding and fine-tuning."""
