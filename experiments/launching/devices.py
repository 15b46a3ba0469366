"""GPUs, divided among jobs that run at once."""

import os
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.errors import InputError


def device_slots(max_parallel: int, devices: Sequence[str] | None) -> list[list[str]]:
    """Divide the GPUs evenly among the jobs that run at once.

    Example: 2 jobs and the GPUs 0, 1, 2, 3 give ``[["0", "1"], ["2", "3"]]``; no GPUs give
    ``[[], []]``: both use what there is.

    Args:
        max_parallel: jobs that run at once.
        devices: ids of the GPUs; None: those visible to this process.

    Raises:
        InputError: the GPUs do not divide.
    """
    found = _visible_gpus() if devices is None else list(devices)
    if max_parallel == 1 and devices is None:
        return [[]]
    if found and len(found) % max_parallel:
        raise InputError(
            f"--max_parallel={max_parallel} must divide the {len(found)} GPUs "
            f"({', '.join(found)}); choose some with --devices"
        )
    each = len(found) // max_parallel
    return [found[slot * each : (slot + 1) * each] for slot in range(max_parallel)]


def _visible_gpus() -> list[str]:
    """List the GPUs without JAX, which would allocate their memory."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    paths = sorted(Path("/dev").glob("nvidia[0-9]*"), key=lambda path: int(path.name[6:]))
    return [str(number) for number in range(len(paths))]
