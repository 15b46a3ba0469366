"""Tensors of 8-bit floating-point numbers with one scale, given by their current maximum.

The formats are those of Micikevicius et al. 2022, "FP8 Formats for Deep Learning": E4M3 has 3 bits
of mantissa and numbers up to 448, E5M2 has 2 and numbers up to 57,344.

The scale depends only on the tensor, which is read once more to compute it. Scales of earlier steps
("delayed") save that pass, but overflow when a tensor grows, and are state that must be stored,
restored, and agreed on by devices.

The scale is a power of two, so scaling does not round. Whatever the scale, numbers keep their 4 or
3 significant bits from the largest of the tensor down to 2^-13 (E4M3) or 2^-28 (E5M2) of it, and
smaller ones lose bits one by one. So it hardly matters if each device scales its own rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

E4M3, E5M2 = jnp.float8_e4m3fn, jnp.float8_e5m2

_LARGEST_FACTOR = 2.0**126  # its inverse is the smallest normal number
_EXPONENT_BITS = 0x7F800000  # of a float32


class Float8(NamedTuple):
    """A tensor: values of an 8-bit type times a power of two."""

    values: Float[Array, "*shape"]
    scale: Float32[Array, ""]


def quantize(x: Float[Array, "*shape"], dtype: DTypeLike) -> Float8:
    """Round a tensor to a scaled tensor of an 8-bit type; none of its numbers overflows.

    Example: for 1000, 3.3 and 0 in E4M3, the scale is 4 and the values are 256 (250 rounded),
    0.8125 and 0. An infinity or a NaN makes the tensor's other numbers NaN too; all zeros stay
    zeros.

    Args:
        x: the tensor.
        dtype: `E4M3` or `E5M2`.
    """
    largest = jnp.abs(x).max().astype(jnp.float32)
    # The largest power of two not above the ratio, which is infinite for zeros, zero for infinity.
    bits = jax.lax.bitcast_convert_type(jnp.finfo(dtype).max.astype(jnp.float32) / largest, "int32")
    power = jax.lax.bitcast_convert_type(bits & _EXPONENT_BITS, jnp.float32)
    factor = jnp.minimum(power, _LARGEST_FACTOR)
    return Float8((x * factor.astype(x.dtype)).astype(dtype), 1 / factor)


def dequantize(x: Float8, dtype: DTypeLike) -> Float[Array, "*shape"]:
    """Return the numbers of a scaled tensor, which are exact in bfloat16 and in wider types.

    XLA compiles a matmul of such numbers to a matmul in float8 if the device has one.
    """
    return x.values.astype(dtype) * x.scale.astype(dtype)
