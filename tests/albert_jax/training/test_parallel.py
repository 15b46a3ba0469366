"""Collectives of the compiled step: where they are, and how much they communicate."""

import math
import re
from itertools import pairwise

import jax
import jax.numpy as jnp
import pytest
from spread_steps import compiled_step, initial_state, lowered_step

from albert_jax.devices import flops
from albert_jax.devices.collectives import parse_collectives
from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.sharding import partition_spec, rows_of_process
from albert_jax.training.parallel import Parallelism


def num_parameters():
    return sum(leaf.size for leaf in jax.tree.leaves(initial_state().params))


@pytest.mark.parametrize(("dtype", "name"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_gradients_are_reduced_in_the_given_dtype(dtype, name):
    # Not compiled: XLA's compiler for CPUs aborts on a sum in bfloat16.
    parameters = num_parameters()
    lowered, _ = lowered_step(**({} if dtype == "float32" else {"reduction_dtype": dtype}))
    reduced = dict.fromkeys(("f32", "bf16"), 0)
    for types in re.findall(r"stablehlo\.all_reduce.*?\}\) : \((.*?)\)", lowered.as_text(), re.S):
        for shape, element in re.findall(r"tensor<((?:\d+x)*)(\w+)>", types):
            reduced[element] += math.prod(map(int, shape.split("x")[:-1]))
    assert parameters <= reduced.pop(name) <= parameters + 32
    assert sum(reduced.values()) <= 32


@pytest.mark.parametrize(
    "spread",
    [
        {},
        {"fsdp": 2, "tensor": 2, "accumulation_steps": 2},
        pytest.param({"accumulation_steps": 2}, marks=pytest.mark.slow),
        pytest.param({"fsdp": 2}, marks=pytest.mark.slow),
        pytest.param({"fsdp": 2, "tensor": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_gradients_cross_the_row_axes_once_and_outside_every_loop(spread):
    step, mesh = compiled_step(**spread)
    text, parameters = step.as_text(), num_parameters()
    assert " while(" in text, "the layers are expected to be a loop"
    found = parse_collectives(text, mesh)
    inside = {axis for c in found if c.in_loop for axis in c.axes}
    tensor_parallel = "tensor" in spread
    allowed = {"tensor"} if tensor_parallel else set()
    assert inside == allowed, "partial matmuls are reduced in the layers"
    gathered = sum(c.elements for c in found if c.kind == "all-gather" and "fsdp" in c.axes)
    assert gathered <= parameters
    # Each parameter once, of sharded ones each device its shard, and a few scalars.
    crossing = [c for c in found if "data" in c.axes]
    elements = sum(c.elements for c in crossing)
    assert elements <= parameters + 32
    if not tensor_parallel:
        assert elements >= parameters
        assert 4 * parameters <= sum(c.bytes for c in crossing) <= 4 * (parameters + 32)


def test_a_reduction_in_a_loop_is_found_in_the_hlo():
    """Plain jit reduces the gradient of a shared layer in every iteration."""
    mesh = make_mesh()
    rows = jax.sharding.NamedSharding(mesh, jax.P("data"))

    def loss(kernel, x):
        def layer(x, _):
            return jnp.tanh(x @ kernel), None

        return jax.lax.scan(layer, x, length=3)[0].sum()

    step = jax.jit(jax.grad(loss), in_shardings=(None, rows))
    text = step.lower(jnp.eye(8), jnp.ones((16, 8))).compile().as_text()
    found = parse_collectives(text, mesh)
    assert [c for c in found if c.in_loop and c.axes == ("data",) and c.bytes >= 4 * 64]


def test_axes_that_divide_are_sharded():
    mesh = make_mesh(fsdp=2, tensor=2)
    kernel = "albert/encoder/layers/attention/query/kernel"
    assert partition_spec(kernel, (1, 1, 8, 8), mesh) == jax.P(None, None, "fsdp", "tensor")
    assert partition_spec(kernel, (1, 1, 7, 8), mesh) == jax.P(None, None, None, "tensor")
    assert partition_spec("0/mu/" + kernel, (1, 1, 8, 8), mesh) == partition_spec(
        kernel, (1, 1, 8, 8), mesh
    )
    assert partition_spec("3/ratios/" + kernel, (1, 1), mesh) == jax.P(), "a ratio is not a kernel"
    assert partition_spec("albert/pooler/kernel", (8, 8), mesh) == jax.P("fsdp", None)
    assert partition_spec("predictions/bias", (8,), mesh) == jax.P()


def test_one_process_loads_every_row():
    rows = rows_of_process(16, make_mesh(fsdp=2))
    assert rows.tolist() == list(range(16))
    assert all(a < b for a, b in pairwise(rows))


def test_the_peak_of_a_mesh_is_known_if_that_of_every_device_is(monkeypatch):
    mesh = make_mesh()
    monkeypatch.setattr(flops, "peak_flops", lambda device: 3e12)
    assert flops.mesh_peak_flops(mesh) == 8 * 3e12
    monkeypatch.setattr(flops, "peak_flops", lambda device: 3e12 if device.id else None)
    assert flops.mesh_peak_flops(mesh) is None


@pytest.mark.parametrize("parallelism", list(Parallelism))
def test_the_step_is_compiled_with_the_options_given(parallelism):
    """The compiler rejects an option that it does not know, so it was given it."""
    options = {"no_such_option": 1}
    lowered, _ = lowered_step.__wrapped__(parallelism=parallelism, compiler_options=options)
    with pytest.raises(RuntimeError, match="no_such_option"):
        lowered.compile()
