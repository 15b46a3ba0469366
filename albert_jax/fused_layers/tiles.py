"""Pallas's Triton backend, and the tiles that its kernels work on.

The backend is deprecated in JAX 0.11 and will be removed; without it `pallas` and `triton` are
None, and fused layers are unsupported. The kernels are then to be ported to Mosaic or to Triton.
"""

from typing import Any

import jax

pallas: Any
triton: Any
try:
    from jax.experimental import pallas
    from jax.experimental.pallas import triton
except ImportError:
    pallas = triton = None


def is_interpreted() -> bool:
    """Return True on devices without Triton, where tests run kernels as plain operations.

    The device is that of `jax.default_device`, which may be one that is described and not there.
    """
    config: Any = jax.config
    device = config.jax_default_device
    return getattr(device, "platform", device or jax.default_backend()) != "gpu"


def power_of_two_divisor(size: int, most: int) -> int:
    """Return the largest power of two up to `most`, itself one, that divides a size."""
    return min(size & -size, most)


def next_power_of_two(size: int) -> int:
    """Return the smallest power of two that is not below a size."""
    return 1 << (size - 1).bit_length()
