"""Fingerprints: 32 bits that change when a bit of an array changes."""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import PyTree, UInt32


def fingerprint(tree: PyTree) -> UInt32[Array, ""]:
    """Return the fingerprint of all arrays of a tree.

    Every element is mixed with its position, and the results are added up modulo 2^32. Integers add
    up to the same sum in any order, so the fingerprint does not depend on the device.

    Example: ``[1.0, 2.0]``, ``[2.0, 1.0]`` and ``[1.0, 2.0000002]`` have three fingerprints.
    """
    total = jnp.zeros((), jnp.uint32)
    for leaf in jax.tree.leaves(tree):
        total = _mix(total + _leaf_fingerprint(leaf))
    return total


def _leaf_fingerprint(leaf: Array) -> UInt32[Array, ""]:
    size = leaf.dtype.itemsize
    if leaf.dtype == jnp.bool_:
        bits = leaf.astype(jnp.uint32)
    elif size > 4:
        bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32)  # a further axis, of the two halves
    else:
        unsigned = jax.lax.bitcast_convert_type(leaf, f"uint{8 * size}")
        bits = unsigned.astype(jnp.uint32)
    position = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        stride = math.prod(bits.shape[axis + 1 :]) % 2**32
        position += jnp.uint32(stride) * jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    return _mix(bits ^ _mix(position)).sum(dtype=jnp.uint32)


def _mix(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Map integers one-to-one to random-looking ones: the finalizer of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
