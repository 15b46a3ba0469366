"""Sweeps, one a file: data, no code. `get_sweep(size)` gives the paper's size or a small one."""
