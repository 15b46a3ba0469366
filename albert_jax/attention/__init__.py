"""Attention: the reference, faster ones for CPUs, GPUs and TPUs, and the choice among them."""
