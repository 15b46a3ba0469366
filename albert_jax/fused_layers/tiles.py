"""Pallas's Triton backend, and the tiles that its kernels work on.

The backend is deprecated in JAX 0.11 and will be removed; without it `pallas` and `triton` are
None, and fused layers are unsupported. The kernels must then be ported to Mosaic or to Triton.
"""

from typing import Any

from albert_jax.attention.traced_platform import traced_platform

pallas: Any
triton: Any
try:
    from jax.experimental import pallas
    from jax.experimental.pallas import triton
except ImportError:
    pallas = triton = None


def is_interpreted() -> bool:
    """Return True on devices without Triton, where tests run kernels as plain operations."""
    return traced_platform() != "gpu"


def power_of_two_divisor(size: int, most: int) -> int:
    """Return the largest power of two up to `most`, itself a power of two, that divides a size."""
    return min(size & -size, most)


def next_power_of_two(size: int) -> int:
    """Return the smallest power of two that is not below a size."""
    return 1 << (size - 1).bit_length()
