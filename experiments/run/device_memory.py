"""What a compiled step needs of a device's memory, and what a device has."""

import os

import jax

_USABLE = 0.92  # the rest is for batches ahead, fragments, and what the compiler does not count


def memory_of(compiled: jax.stages.Compiled) -> int | None:
    """Bytes that a compiled step needs on a device, arguments included, if the compiler tells."""
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    reused = memory.alias_size_in_bytes  # donated arguments that hold the results
    arguments, results = memory.argument_size_in_bytes, memory.output_size_in_bytes
    return int(arguments + results - reused + memory.temp_size_in_bytes)


def activations_of(compiled: jax.stages.Compiled) -> int | None:
    """Bytes of those that live only during the step: activations, gradients, workspace."""
    memory = compiled.memory_analysis()
    return None if memory is None else int(memory.temp_size_in_bytes)


def memory_limit(device: jax.Device) -> int | None:
    """Bytes that a step may use on a device, or None where the device does not tell.

    The simulated devices of a host share what it has.
    """
    if device.platform == "cpu":
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(_USABLE * physical / jax.local_device_count())
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit")
    return None if limit is None else int(_USABLE * limit)


def format_memory(compiled: jax.stages.Compiled) -> str:
    """A compiled step's memory in words. Example: ``0.12 GiB a device (0.05 of it for
    activations) of 21.7``."""
    needed, limit = memory_of(compiled), memory_limit(jax.local_devices()[0])
    text = "memory not known"
    if needed is not None:
        activations = (activations_of(compiled) or 0) / 2**30
        text = f"{needed / 2**30:.2f} GiB a device ({activations:.2f} of it for activations)"
    return f"{text} of {limit / 2**30:.1f}" if limit else text
