"""Collectives of a compiled program, parsed from its HLO text."""

import math
import re
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

_COLLECTIVE = re.compile(
    r" = (?P<type>.*?) "
    r"(?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|send)"
    r"(-start)?\("
)
_BETWEEN_SLICES = "xla_megascale_runtime"  # carries what TPU slices send each other
_BITS = re.compile(r"^[a-z]+(\d+)")


class Collective(NamedTuple):
    """One communicating instruction."""

    kind: str  # all-reduce, all-gather, reduce-scatter, all-to-all, collective-permute, send
    axes: tuple[str, ...]  # of the mesh, over which the devices of a group differ
    in_loop: bool  # True inside a loop, such as that over the layers
    elements: int  # array elements of the output
    bytes: int


def parse_collectives(text: str, mesh: Mesh) -> list[Collective]:
    """Return all collectives of a compiled program.

    A program for several TPU slices is that of one slice; what a device sends to the other slices,
    which stand along the first axis, is a ``send``.

    Args:
        text: the HLO text, from `jax.stages.Compiled.as_text`.
        mesh: the mesh that the program was compiled for.

    Example: a data-parallel step on 8 devices has one all-reduce over ``data`` with as many
    elements as there are parameters, outside every loop.
    """
    loop_bodies = _computations_in_loops(text)
    found = []
    for name, lines in _computations(text).items():
        for line in lines:
            match = _COLLECTIVE.search(line)
            if match and (match.group("kind") != "send" or _BETWEEN_SLICES in line):
                arrays = [
                    (int(bits.group(1)) if (bits := _BITS.match(dtype)) else 8, _size(shape))
                    for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", match.group("type"))
                ]
                if match.group("kind") == "send":
                    arrays, axes = arrays[:1], mesh.axis_names[:1]  # the rest is its bookkeeping
                else:
                    axes = _axes(_replica_groups(line), mesh)
                found.append(
                    Collective(
                        match.group("kind"),
                        axes,
                        name in loop_bodies,
                        sum(size for _, size in arrays),
                        sum(bits * size // 8 for bits, size in arrays),
                    )
                )
    return found


def _size(shape: str) -> int:
    return math.prod(_numbers(shape)) if shape else 1


def _computations(text: str) -> dict[str, list[str]]:
    """Return the lines of each computation of an HLO module, by its name."""
    found: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = header.group(1)
            found[name] = []
        elif name and line.startswith("  "):
            found[name].append(line)
    return found


def _computations_in_loops(text: str) -> set[str]:
    """Return the names of the computations that a while loop runs, directly or through calls."""
    by_name = _computations(text)
    called = re.compile(r"(?:body|condition|calls|to_apply|branch_computations)=\{?%?([\w.\-]+)")
    pending = [
        name
        for lines in by_name.values()
        for line in lines
        if " while(" in line
        for name in re.findall(r"(?:body|condition)=%?([\w.\-]+)", line)
    ]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += [inner for line in by_name[name] for inner in called.findall(line)]
    return seen


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
