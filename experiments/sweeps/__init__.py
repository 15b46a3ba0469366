"""Sweeps, one a file: data, no code. Its `get_sweep(size)` gives the paper's size or a small one."""
