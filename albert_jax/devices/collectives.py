"""Collectives of a compiled program, parsed from its HLO text."""

import math
import re
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from albert_jax.devices.program_text import (
    arrays_of,
    computations_in_loops,
    count_runs,
    parse_computations,
)

_KINDS = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"),
    *("ragged-all-to-all", "collective-broadcast", "send"),
)
_BETWEEN_SLICES = "xla_megascale_runtime"  # carries what TPU slices send each other


class Collective(NamedTuple):
    """One communication instruction."""

    kind: str  # all-reduce, all-gather, reduce-scatter, all-to-all, collective-permute, send
    axes: tuple[str, ...]  # of the mesh, over which the devices of a group differ
    in_loop: bool  # True inside a loop, such as that over the layers
    elements: int  # array elements of the output
    bytes: int
    times: int = 1  # how often it runs in a step
    devices: int = 1  # of a group
    parts: int = 1  # slices, or hosts of GPUs, that a group spans

    @property
    def bytes_per_step(self) -> int:
        """Bytes of the whole arrays over all runs in a step (reduce-scatter outputs only parts)."""
        return self.bytes * self.times * (self.devices if self.kind == "reduce-scatter" else 1)


def parse_collectives(text: str, mesh: Mesh) -> list[Collective]:
    """Return all collectives of a compiled program.

    A program for several TPU slices is that of one slice. What a device sends to the other slices,
    which are along the first axis, is a ``send``.

    Args:
        text: the HLO text, from `jax.stages.Compiled.as_text`.
        mesh: the mesh that the program was compiled for.

    Example: a data-parallel step on 8 devices has one all-reduce over ``data`` with as many
    elements as there are parameters, outside every loop.
    """
    computations = parse_computations(text)
    loops, runs = computations_in_loops(computations), count_runs(computations)
    parts = [part_of(device) for device in mesh.devices.flat]
    found = []
    for name, instructions in computations.items():
        for instruction in instructions:
            kind = instruction.operation.removesuffix("-start")
            line = instruction.line
            if kind not in _KINDS or (kind == "send" and _BETWEEN_SLICES not in line):
                continue
            arrays = arrays_of(instruction.type)
            if instruction.operation in ("all-gather-start", "collective-permute-start"):
                arrays = arrays[len(arrays) // 2 :] if "gather" in kind else arrays[1:2]
            if kind == "send":
                arrays, axes, devices = arrays[:1], mesh.axis_names[:1], 1  # the rest: bookkeeping
                spanned = 2
            else:
                groups = _replica_groups(line)
                axes, devices = _axes(groups, mesh), max(map(len, groups), default=1)
                spanned = max((len({parts[d] for d in group}) for group in groups), default=1)
            elements, size = sum(a.elements for a in arrays), sum(a.bytes for a in arrays)
            collective = Collective(kind, axes, name in loops, elements, size)
            found.append(
                collective._replace(times=runs.get(name, 1), devices=devices, parts=spanned)
            )
    return found


def part_of(device: Any) -> int:
    """Return the number of a device's slice, or of its host if its platform has no slices."""
    if device.platform == "tpu":
        return int(getattr(device, "slice_index", None) or 0)
    return int(device.process_index)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _iota(text: str) -> np.ndarray:
    """Return the device ids in the order of ``[2,4]T(1,0)`` or ``[8]``: iota, then transpose."""
    shape, _, order = text.partition("T")
    ids = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return ids.transpose(_numbers(order)) if order else ids


def _replica_groups(line: str) -> list[list[int]]:
    """Return the groups of devices of a collective, written in any of HLO's notations.

    Raises:
        ValueError: the notation is unknown.
    """
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", line):
        return [_numbers(pair) for pair in re.findall(r"\{(.*?)\}", pairs.group(1))]
    if explicit := re.search(r"replica_groups=\{(\{.*?\})\}", line):
        return [_numbers(group) for group in re.findall(r"\{(.*?)\}", explicit.group(1))]
    if counted := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", line):
        return _rows(_iota(counted[2]).reshape(_numbers(counted[1])))
    mesh = re.search(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?\))\))? \{(.*?)\}", line)
    if mesh is None:
        raise ValueError(f"replica groups in an unknown notation: {line.strip()}")
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh.group(1)))
    joined = re.findall(r"'(\w+)'", mesh.group(3))
    if mesh.group(3) != ",".join(f"'{axis}'" for axis in joined):
        raise ValueError(f"replica groups over part of an axis: {line.strip()}")
    shape = [int(size) for size in sizes.values()]
    ids = (_iota(mesh.group(2)) if mesh.group(2) else np.arange(math.prod(shape))).reshape(shape)
    axes = [list(sizes).index(axis) for axis in joined]
    moved = np.moveaxis(ids, axes, range(-len(axes), 0))
    return _rows(moved.reshape(-1, math.prod(shape[axis] for axis in axes)))


def _rows(groups: np.ndarray) -> list[list[int]]:
    return [[int(device) for device in group] for group in groups]


def _axes(groups: list[list[int]], mesh: Mesh) -> tuple[str, ...]:
    """Return the axes of the mesh over which the devices of any group differ."""
    coordinates = np.stack(np.unravel_index(np.arange(mesh.size), mesh.devices.shape), axis=-1)
    varying = np.zeros(len(mesh.axis_names), bool)
    for group in groups:
        varying |= (coordinates[group] != coordinates[group[0]]).any(axis=0)
    return tuple(axis for axis, varies in zip(mesh.axis_names, varying, strict=True) if varies)
