"""What the compiler makes of the step: where the collectives stand, and what they move."""

import math
import re
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.batch import PretrainingBatch
from albert_jax.losses import make_pretraining_loss, pretraining_weights
from albert_jax.optimizer import OptimizerConfig, make_optimizer
from albert_jax.parallel import (
    Parallelism,
    compile_train_step,
    make_mesh,
    partition_spec,
    rows_of_process,
)
from albert_jax.train_step import create_train_state

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
COLLECTIVE = re.compile(
    r" = (?P<type>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(-start)?\("
)


def compiled_step(*, fsdp=1, tensor=1, accumulation_steps=1, parallelism=Parallelism.PJIT):
    mesh = make_mesh(fsdp=fsdp, tensor=tensor)
    model = AlbertForPreTraining(CONFIG)
    optimizer = make_optimizer(
        OptimizerConfig(num_train_steps=10, num_warmup_steps=1), global_batch_size=B
    )

    def create(key):
        params = model.init(key, jnp.zeros((1, S), jnp.int32))["params"]
        return create_train_state(params, optimizer)

    state = jax.eval_shape(create, jax.random.key(0))
    step = compile_train_step(
        make_pretraining_loss(model),
        optimizer,
        state,
        mesh,
        weight_fn=pretraining_weights,
        accumulation_steps=accumulation_steps,
        parallelism=parallelism,
    )
    row = jax.ShapeDtypeStruct((B, S), jnp.int32)
    slot = jax.ShapeDtypeStruct((B, P), jnp.int32)
    pair = jax.ShapeDtypeStruct((B, 1), jnp.int32)
    weight = {"masked_lm": slot.update(dtype=jnp.float32), "order": pair.update(dtype=jnp.float32)}
    batch = PretrainingBatch(
        row, row, row, row, slot, slot, weight["masked_lm"], pair, pair, weight["order"]
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    text = step.lower(state, batch, key).compile().as_text()
    return text, sum(leaf.size for leaf in jax.tree.leaves(state.params))


def computations(text):
    """Name of each computation of an HLO module -> its lines."""
    found, name = {}, None
    for line in text.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = header.group(1)
            found[name] = []
        elif name and line.startswith("  "):
            found[name].append(line)
    return found


def in_loops(text):
    """The lines of all computations that a while loop runs, directly or through calls."""
    by_name = computations(text)
    called = re.compile(r"(?:body|condition|calls|to_apply|branch_computations)=\{?%?([\w.\-]+)")
    pending = [
        name
        for lines in by_name.values()
        for line in lines
        if " while(" in line
        for name in re.findall(r"(?:body|condition)=%?([\w.\-]+)", line)
    ]
    assert pending, "the layers are expected to be a loop"
    seen = set()
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += [inner for line in by_name[name] for inner in called.findall(line)]
    return [line for name in seen for line in by_name[name]]


def numbers(text):
    return [int(number) for number in re.findall(r"\d+", text)]


def iota(text):
    """The devices in the order that ``[2,4]T(1,0)`` or ``[8]`` means: counted, then transposed."""
    shape, _, order = text.partition("T")
    ids = np.arange(math.prod(numbers(shape))).reshape(numbers(shape))
    return ids.transpose(numbers(order)) if order else ids


def replica_groups(line):
    """The groups of devices that a collective joins, from any of the notations of them."""
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", line):
        return [numbers(pair) for pair in re.findall(r"\{(.*?)\}", pairs.group(1))]
    if explicit := re.search(r"replica_groups=\{(\{.*?\})\}", line):
        return [numbers(group) for group in re.findall(r"\{(.*?)\}", explicit.group(1))]
    if counted := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", line):
        return iota(counted.group(2)).reshape(numbers(counted.group(1))).tolist()
    mesh = re.search(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?\))\))? \{(.*?)\}", line)
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh.group(1)))
    joined = re.findall(r"'(\w+)'", mesh.group(3))
    assert mesh.group(3) == ",".join(f"'{axis}'" for axis in joined), "part of an axis: " + line
    shape = [int(size) for size in sizes.values()]
    ids = (iota(mesh.group(2)) if mesh.group(2) else np.arange(math.prod(shape))).reshape(shape)
    axes = [list(sizes).index(axis) for axis in joined]
    moved = np.moveaxis(ids, axes, range(-len(axes), 0))
    return moved.reshape(-1, math.prod(shape[axis] for axis in axes)).tolist()


def crosses_data(line, devices_per_index):
    """Whether a collective joins devices of different indices of the data axis."""
    return any(
        len({device // devices_per_index for device in group}) > 1 for group in replica_groups(line)
    )


def elements(line):
    """How many array elements a collective gives out."""
    kinds = COLLECTIVE.search(line).group("type")
    shapes = re.findall(r"\w+\[([\d,]*)\]", kinds)
    return sum(math.prod(int(n) for n in shape.split(",")) if shape else 1 for shape in shapes)


@pytest.mark.parametrize(
    "spread",
    [
        {},
        {"accumulation_steps": 2},
        {"fsdp": 2, "tensor": 2},
        {"fsdp": 2, "tensor": 2, "accumulation_steps": 2},
    ],
    ids=str,
)
def test_gradients_cross_the_data_axis_once_and_outside_every_loop(spread):
    text, parameters = compiled_step(**spread)
    per_index = spread.get("fsdp", 1) * spread.get("tensor", 1)
    inside = [line for line in in_loops(text) if COLLECTIVE.search(line)]
    assert not [line for line in inside if crosses_data(line, per_index)]
    if per_index > 1:
        assert inside, "fsdp and tensor are expected to communicate in the layers"

    everywhere = [line for lines in computations(text).values() for line in lines]
    reduced = [
        elements(line)
        for line in everywhere
        if COLLECTIVE.search(line) and crosses_data(line, per_index)
    ]
    # Each parameter once, each device its own part of those that are cut, and a few scalars.
    assert sum(reduced) <= parameters + 32
    if per_index == 1:
        assert sum(reduced) >= parameters


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
    assert [line for line in in_loops(text) if COLLECTIVE.search(line) and crosses_data(line, 1)]


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
