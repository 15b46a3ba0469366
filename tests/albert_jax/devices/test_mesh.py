"""The mesh over slices and processes, of made-up devices."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from albert_jax.devices.mesh import make_mesh


@dataclasses.dataclass(frozen=True)
class SlicedDevice:
    """A device of a GPU host, as JAX describes it."""

    id: int
    process_index: int
    slice_index: int
    device_kind: str = "NVIDIA H100"
    platform: str = "gpu"


def devices(slices: int, each: int = 8, processes: int = 2) -> Any:
    """Devices in an order that has nothing to do with their slices."""
    count = slices * each
    ids = np.random.default_rng(0).permutation(count).tolist()
    return [SlicedDevice(i, i * processes * slices // count, i // each) for i in ids]


@pytest.mark.parametrize(("fsdp", "tensor"), [(1, 1), (4, 2)])
def test_slices_stand_along_the_data_axis_alone(fsdp, tensor):
    mesh = make_mesh(fsdp=fsdp, tensor=tensor, devices=devices(4))
    assert mesh.devices.shape == (32 // (fsdp * tensor), fsdp, tensor)
    for part, grid in enumerate(np.split(mesh.devices, 4)):
        assert {device.slice_index for device in grid.flat} == {part}


def test_processes_are_the_parts_of_one_slice_if_asked_for():
    one_slice = devices(1, each=16, processes=4)
    mesh = make_mesh(fsdp=2, dcn_data=4, devices=one_slice)
    for process, grid in enumerate(np.split(mesh.devices, 4)):
        assert {device.process_index for device in grid.flat} == {process}
    assert make_mesh(fsdp=16, devices=one_slice).devices.shape == (1, 16, 1)


@pytest.mark.parametrize(
    ("sizes", "slices", "message"),
    [
        ({"dcn_data": 4}, 2, "run.dcn_data must be 2, the number of slices, got 4"),
        ({"dcn_data": 1}, 2, "run.dcn_data must be 2, the number of slices, got 1"),
        ({"dcn_data": 3}, 1, "run.dcn_data must be 2, the number of processes, got 3"),
        ({"fsdp": 16}, 2, "must divide the 8 devices of each of the 2 slices"),
    ],
)
def test_parts_that_do_not_fit_are_named(sizes, slices, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_mesh(**sizes, devices=devices(slices))
    with pytest.raises(ValueError, match=r"as many devices each, got \["):
        make_mesh(devices=devices(2)[:-1])
