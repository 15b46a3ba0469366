"""What the compiler makes of the step: where the collectives stand, and what they move."""

import math
import re
from itertools import pairwise

import jax
import jax.numpy as jnp
import pytest

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.batch import PretrainingBatch
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.collectives import parse_collectives
from albert_jax.training.config import OptimizerConfig
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.parallel import (
    Parallelism,
    compile_train_step,
    make_mesh,
    partition_spec,
    rows_of_process,
)
from albert_jax.training.train_step import create_train_state

CONFIG = AlbertConfig(
    vocab_size=32,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
)
B, S, P = 16, 8, 2


def lowered_step(
    *,
    fsdp=1,
    tensor=1,
    accumulation_steps=1,
    reduction_dtype="float32",
    parallelism=Parallelism.PJIT,
):
    """The step before the compiler has it, the number of parameters, and the mesh."""
    mesh = make_mesh(fsdp=fsdp, tensor=tensor)
    model = AlbertForPreTraining(CONFIG)
    optimizer = make_optimizer(
        OptimizerConfig(num_train_steps=10, num_warmup_steps=1), global_batch_size=B
    )

    def create(key):
        params = model.init(key, jnp.zeros((1, S), jnp.int32))["params"]
        return create_train_state(params, optimizer)

    state = jax.eval_shape(create, jax.random.key(0))
    objective = pretraining_objective(model)
    step = compile_train_step(
        objective.loss_fn,
        optimizer,
        state,
        mesh,
        weight_fn=objective.weight_fn,
        accumulation_steps=accumulation_steps,
        parallelism=parallelism,
        reduction_dtype=reduction_dtype,
    )
    row = jax.ShapeDtypeStruct((B, S), jnp.int32)
    slot = jax.ShapeDtypeStruct((B, P), jnp.int32)
    pair = jax.ShapeDtypeStruct((B, 1), jnp.int32)
    weight = {"masked_lm": slot.update(dtype=jnp.float32), "order": pair.update(dtype=jnp.float32)}
    batch = PretrainingBatch(
        row, row, row, row, slot, slot, weight["masked_lm"], pair, pair, weight["order"]
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return step.lower(state, batch, key), parameters, mesh


def compiled_step(**spread):
    """The collectives of the step, and the number of parameters."""
    lowered, parameters, mesh = lowered_step(**spread)
    text = lowered.compile().as_text()
    assert " while(" in text, "the layers are expected to be a loop"
    return parse_collectives(text, mesh), parameters


@pytest.mark.parametrize(("dtype", "name"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_gradients_are_added_up_in_the_type_that_is_asked_for(dtype, name):
    # Not compiled: XLA's compiler for CPUs aborts on a sum in bfloat16.
    lowered, parameters, _ = lowered_step(reduction_dtype=dtype)
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
        {"accumulation_steps": 2},
        {"fsdp": 2},
        {"fsdp": 2, "tensor": 2},
        {"fsdp": 2, "tensor": 2, "accumulation_steps": 2},
    ],
    ids=str,
)
def test_gradients_cross_the_row_axes_once_and_outside_every_loop(spread):
    found, parameters = compiled_step(**spread)
    inside = {axis for c in found if c.in_loop for axis in c.axes}
    cut = "tensor" in spread
    assert inside == ({"tensor"} if cut else set()), "halves of products are added up in the layers"
    gathered = sum(c.elements for c in found if c.kind == "all-gather" and "fsdp" in c.axes)
    assert gathered <= parameters
    # Each parameter once, each device its own part of those that are cut, and a few scalars.
    crossing = [c for c in found if "data" in c.axes]
    elements = sum(c.elements for c in crossing)
    assert elements <= parameters + 32
    if not cut:
        assert elements >= parameters
        assert 4 * parameters <= sum(c.bytes for c in crossing) <= 4 * (parameters + 32)


def test_the_reader_of_hlo_sees_a_reduction_in_a_loop():
    """Plain jit reduces the gradient of a shared block in every layer: the fault must be found."""
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


def test_rules_cut_what_divides():
    mesh = make_mesh(fsdp=2, tensor=2)
    kernel = "albert/encoder/layers/attention/query/kernel"
    assert partition_spec(kernel, (1, 1, 8, 8), mesh) == jax.P(None, None, "fsdp", "tensor")
    assert partition_spec(kernel, (1, 1, 7, 8), mesh) == jax.P(None, None, None, "tensor")
    assert partition_spec("0/mu/" + kernel, (1, 1, 8, 8), mesh) == partition_spec(
        kernel, (1, 1, 8, 8), mesh
    )
    assert partition_spec("3/ratios/" + kernel, (1, 1), mesh) == jax.P(), "a ratio is no kernel"
    assert partition_spec("albert/pooler/kernel", (8, 8), mesh) == jax.P("fsdp", None)
    assert partition_spec("predictions/bias", (8,), mesh) == jax.P()


def test_one_process_loads_every_row():
    rows = rows_of_process(16, make_mesh(fsdp=2))
    assert rows.tolist() == list(range(16))
    assert all(a < b for a, b in pairwise(rows))
