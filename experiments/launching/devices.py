"""Division of GPUs, or of the cores of a machine without GPUs, among jobs that run at once."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data_pipeline.errors import InputError


class DeviceShare(NamedTuple):
    """The devices that a job computes on; if none are named, all that there are."""

    gpus: tuple[str, ...] = ()  # their ids
    cores: tuple[int, ...] = ()


def divide_devices(max_parallel: int, devices: Sequence[str] | None) -> list[DeviceShare]:
    """Divide the GPUs evenly among the jobs that run at once, or, without GPUs, the cores.

    Jobs that all computed on all cores would wait for each other's threads.

    Example: 2 jobs and the GPUs 0, 1, 2, 3 give ``0, 1`` to one and ``2, 3`` to the other; without
    GPUs, with 5 cores, the cores 0, 1 and 2, 3. More jobs than cores share all of them.

    Args:
        max_parallel: jobs that run at once.
        devices: ids of the GPUs; None: those visible to this process.

    Raises:
        InputError: the GPUs do not divide.
    """
    found = _visible_gpus() if devices is None else list(devices)
    if max_parallel == 1 and devices is None:
        return [DeviceShare()]
    if found and len(found) % max_parallel:
        raise InputError(
            f"--max_parallel={max_parallel} must divide the {len(found)} GPUs "
            f"({', '.join(found)}); choose some with --devices"
        )
    cores = [] if found else _usable_cores()
    gpus_each, cores_each = len(found) // max_parallel, len(cores) // max_parallel
    return [
        DeviceShare(
            tuple(found[number * gpus_each : (number + 1) * gpus_each]),
            tuple(cores[number * cores_each : (number + 1) * cores_each]),
        )
        for number in range(max_parallel)
    ]


def _usable_cores() -> list[int]:
    """List the cores that this process may use; none on a system that cannot assign them."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _visible_gpus() -> list[str]:
    """List the GPUs without using JAX, which would allocate their memory."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    paths = sorted(Path("/dev").glob("nvidia[0-9]*"), key=lambda path: int(path.name[6:]))
    return [str(number) for number in range(len(paths))]
