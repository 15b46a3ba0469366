"""Memory of devices: the need of a compiled step, and the limit of a device."""

import os

import jax

_USABLE = 0.92  # the rest is for prefetched batches, fragmentation and uncounted buffers


def memory_of(compiled: jax.stages.Compiled) -> int | None:
    """Return the bytes of a compiled step on a device, arguments included, if they are known."""
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


def memory_limit(device: jax.Device) -> int | None:
    """Return the bytes that a step may use on a device, if they are known.

    The simulated devices of a host share its memory.
    """
    if device.platform == "cpu":
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(_USABLE * physical / jax.local_device_count())
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit")
    return None if limit is None else int(_USABLE * limit)


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
