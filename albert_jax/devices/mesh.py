"""The mesh: all devices of a run in three axes, with slow links only along the first one.

Rows are sharded over ``data`` and ``fsdp``, parameters and optimizer state over ``fsdp`` and
``tensor``. TPU slices and GPU hosts are linked by a data-center network (DCN), which is slower than
the links inside them. They are placed along ``data``, the axis that a step crosses once.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

DATA_AXIS = "data"
ROW_AXES = (DATA_AXIS, "fsdp")
MESH_AXES = (*ROW_AXES, "tensor")


def make_mesh(
    *,
    fsdp: int = 1,
    tensor: int = 1,
    dcn_data: int | None = None,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Make a mesh over all devices; the data axis is their number divided by `fsdp * tensor`.

    Example: two TPU slices of 16 devices with ``fsdp=4`` have the mesh 8 x 4 x 1, whose first four
    rows are the first slice.

    Args:
        fsdp: devices that share one copy of parameters and optimizer state.
        tensor: devices that share each matmul.
        dcn_data: number of parts of the data axis that are joined by a slow network: the slices,
            or the processes if all devices are in one slice. None: as many as there are slices.
        devices: JAX's devices, or described ones of a topology; None: all of this run.

    Raises:
        ValueError: the number of devices of a part is not divisible, or `dcn_data` is not the
            number of parts.
    """
    devices = jax.devices() if devices is None else devices
    unit, sizes = _parts(devices, dcn_data)
    allowed = f"{len(sizes)}, the number of {unit}" if len(sizes) > 1 else "1 or none"
    if dcn_data not in (None, len(sizes)):
        raise ValueError(f"run.dcn_data must be {allowed}, got {dcn_data}")
    if len(set(sizes)) > 1:
        raise ValueError(f"the {unit} of a run must have as many devices each, got {sizes}")
    data, rest = divmod(sizes[0], fsdp * tensor)
    if rest or not data:
        each = f" of each of the {len(sizes)} {unit}" if len(sizes) > 1 else ""
        raise ValueError(
            f"run.fsdp ({fsdp}) times run.tensor ({tensor}) must divide the {sizes[0]} "
            f"devices{each}"
        )
    shape = (data, fsdp, tensor)
    if len(sizes) == 1:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        grid = mesh_utils.create_hybrid_device_mesh(
            shape,
            (len(sizes), 1, 1),
            devices,
            process_is_granule=unit == "processes",
            allow_split_physical_axes=True,
        )
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _parts(devices: Sequence[Any], dcn_data: int | None) -> tuple[str, list[int]]:
    """Return what a slow network joins, as a word, and the number of devices of each."""
    slices = Counter(getattr(device, "slice_index", 0) for device in devices)
    if len(slices) > 1:
        return "slices", list(slices.values())
    if dcn_data is not None and dcn_data > 1:
        return "processes", list(Counter(device.process_index for device in devices).values())
    return "devices", [len(devices)]
