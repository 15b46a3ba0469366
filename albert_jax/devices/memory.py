"""Memory of devices: what a compiled step needs, and the limit of a device."""

import math
import os
import re

import jax
from jaxtyping import PyTree

from albert_jax.devices.described import is_described
from albert_jax.devices.specifications import specification

_USABLE = 0.92  # the rest is for prefetched batches, fragmentation and uncounted buffers
_RESERVED = {"gpu": 0.75}  # the part of a GPU's memory that JAX takes by default
# What XLA's compiler for TPUs says about a program that is too large for the memory.
_EXHAUSTED = re.compile(
    r"RESOURCE_EXHAUSTED.*?(?:Used |HLO temporaries \()(?P<size>[\d.]+)(?P<unit>[KMGT]?)", re.DOTALL
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def memory_of(compiled: jax.stages.Compiled) -> int | None:
    """Return the bytes that a compiled step needs on a device, including arguments, if known."""
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    reused = memory.alias_size_in_bytes  # donated arguments that hold the results
    arguments, results = memory.argument_size_in_bytes, memory.output_size_in_bytes
    return int(arguments + results - reused + memory.temp_size_in_bytes)


def activations_of(compiled: jax.stages.Compiled) -> int | None:
    """Return the bytes that are live only during the step: activations, gradients, workspace."""
    memory = compiled.memory_analysis()
    return None if memory is None else int(memory.temp_size_in_bytes)


def bytes_on_device(arrays: PyTree) -> int:
    """Return the bytes that each device holds of sharded arrays, or of their shapes."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(arrays)
    )


def memory_limit(device: jax.Device) -> int | None:
    """Return the bytes that a step may use on a device, if they are known.

    The simulated devices of a host share its memory. For a described device, the limit is a part of
    the memory that the maker states, as it would be for a real one.
    """
    if device.platform == "cpu":
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(_USABLE * physical / jax.local_device_count())
    if is_described(device):
        known = specification(device)
        whole = None if known is None else known.memory
        limit = None if whole is None else int(_RESERVED.get(device.platform, 1.0) * whole)
    else:
        limit = (device.memory_stats() or {}).get("bytes_limit")
    return None if limit is None else int(_USABLE * limit)


def exhausted_memory(error: Exception) -> int | None:
    """Return the bytes that a compiler needed and did not have; None for any other error.

    They may be those of temporary arrays only, which the compiler plans first.

    Example: XLA for TPUs, ``RESOURCE_EXHAUSTED: ... Used 30.25G of 15.75G hbm``.
    """
    found = _EXHAUSTED.search(str(error))
    return None if found is None else int(float(found["size"]) * _UNITS[found["unit"]])


def format_memory(compiled: jax.stages.Compiled) -> str:
    """Return a compiled step's memory in words.

    Example: ``0.12 GiB a device (0.05 of it for activations) of 21.7``
    """
    needed, limit = memory_of(compiled), memory_limit(jax.local_devices()[0])
    text = "memory not known"
    if needed is not None:
        activations = (activations_of(compiled) or 0) / 2**30
        text = f"{needed / 2**30:.2f} GiB a device ({activations:.2f} of it for activations)"
    return f"{text} of {limit / 2**30:.1f}" if limit else text
