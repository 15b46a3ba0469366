"""Meshes and steps for TPU slices that are only described, not present."""

import importlib.util

import jax
import numpy as np
import pytest
import spread_steps
from spread_steps import CONFIG, LAMB, initial_state, make_batch

from albert_jax import AlbertForPreTraining
from albert_jax.devices.collectives import parse_collectives
from albert_jax.devices.described import described_tpus
from albert_jax.devices.mesh import ROW_AXES, make_mesh
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.parallel import compile_train_step

pytestmark = [
    pytest.mark.tpu,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu"),
]


@pytest.mark.parametrize("slices", [1, 2, 4])
@pytest.mark.parametrize("sizes", [{}, {"fsdp": 4}, {"fsdp": 2, "tensor": 2}], ids=str)
@pytest.mark.parametrize("topology", ["v5e:4x4", "v6e:4x4", "v5p:2x2x4"])
def test_a_mesh_has_its_slices_along_the_data_axis(
    topology: str, slices: int, sizes: dict[str, int]
) -> None:
    devices = described_tpus(topology, slices=slices)
    mesh = make_mesh(**sizes, devices=devices)
    assert set(mesh.devices.flat) == set(devices)
    for number, part in enumerate(np.split(mesh.devices, slices)):
        assert {getattr(device, "slice_index", 0) for device in part.flat} == {number}


@pytest.mark.parametrize("sizes", [{}, {"fsdp": 4}], ids=str)
def test_gradients_cross_the_slices_once_and_outside_every_loop(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int]
) -> None:
    monkeypatch.setattr(spread_steps, "ROWS", 64)
    mesh = make_mesh(**sizes, devices=described_tpus("v5e:4x4", slices=2))
    state = initial_state()
    objective = pretraining_objective(AlbertForPreTraining(CONFIG))
    step = compile_train_step(objective.loss_fn, LAMB, state, mesh, weight_fn=objective.weight_fn)
    shapes = jax.eval_shape(lambda *x: x, state, make_batch(0), jax.random.key(0))
    text = step.lower(*shapes).compile().as_text()
    assert " while(" in text, "the layers are expected to be a loop"
    found = parse_collectives(text, mesh)
    assert not [c for c in found if c.in_loop]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    rows = tuple(axis for axis in ROW_AXES if mesh.shape[axis] > 1)
    large = [c for c in found if c.kind == "all-reduce" and c.elements >= parameters]
    assert [c.axes for c in large] == [rows], "inside a slice, before what is sent to the other"
    assert [c.axes for c in found if c.kind == "send"].count(("data",)) > 0
