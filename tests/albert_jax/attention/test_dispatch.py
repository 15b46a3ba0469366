"""Fused attention equals the reference; a device is given one that it can do and does right."""

import dataclasses
import inspect
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.attention import dispatch as choice
from albert_jax.attention.dispatch import Attention, AttentionWorkload, choose_attention, deviation
from albert_jax.attention.fused import cudnn_attention, packed_offsets, splash_attention
from albert_jax.attention.reference import dot_product_attention, packed_mask
from albert_jax.batch import PretrainingBatch
from albert_jax.config import PositionEncoding
from albert_jax.encoder import Execution
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.config import OptimizerConfig
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.parallel import (
    compile_train_step,
    initialize_state,
    make_mesh,
    place_batch,
)

CONFIG = AlbertConfig(
    vocab_size=17,
    embedding_size=4,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=8,
    max_position_embeddings=128,
)
LENGTH = 128  # the shortest row that splash takes
SIZES = (61, 40)  # of the two pairs of a packed row; padding ends it
CPU = jax.devices()[0]


def work(**changes: Any) -> AttentionWorkload:
    return AttentionWorkload(CONFIG, jnp.float32, (LENGTH,), True, CPU)._replace(**changes)


def packed_batch() -> PretrainingBatch:
    rng = np.random.default_rng(0)
    starts = [0, SIZES[0]]
    fields = {
        "input_ids": rng.integers(5, CONFIG.vocab_size, (1, LENGTH)),
        "token_type_ids": np.zeros((1, LENGTH)),
        "position_ids": np.concatenate([np.arange(n) for n in (*SIZES, LENGTH - sum(SIZES))])[None],
        "sequence_ids": np.repeat([1, 2, 0], [*SIZES, LENGTH - sum(SIZES)])[None],
        "masked_lm_positions": np.array([[3, 9, 70, 99]]),
        "masked_lm_ids": np.array([[5, 6, 7, 8]]),
        "masked_lm_weights": np.ones((1, 4), np.float32),
        "sentence_order_positions": np.array([starts]),
        "sentence_order_labels": np.array([[0, 1]]),
        "sentence_order_weights": np.ones((1, 2), np.float32),
    }
    return PretrainingBatch(
        **{k: v if v.dtype == np.float32 else v.astype(np.int32) for k, v in fields.items()}
    )


def unpacked_batch(packed: PretrainingBatch) -> PretrainingBatch:
    """The same two pairs, each at the start of a row of its own."""
    rows = []
    for pair, (start, size) in enumerate(zip((0, SIZES[0]), SIZES, strict=True)):
        row = {}
        for name, array in packed._asdict().items():
            if name.startswith("masked_lm"):
                row[name] = array[:, 2 * pair : 2 * pair + 2]
            elif name.startswith("sentence_order"):
                row[name] = array[:, pair : pair + 1]
            else:
                row[name] = np.pad(array[:, start : start + size], [(0, 0), (0, LENGTH - size)])
        for name in ("masked_lm_positions", "sentence_order_positions"):
            row[name] = row[name] - start
        row["sequence_ids"] = np.minimum(row["sequence_ids"], 1)
        rows.append(row)
    return PretrainingBatch(**{k: np.concatenate([r[k] for r in rows]) for k in rows[0]})


def initialize(key: jax.Array) -> Any:
    """Parameters so large that scores differ, and what is wrong with attention is seen."""
    model = AlbertForPreTraining(dataclasses.replace(CONFIG, initializer_range=0.5))
    return model.init(key, jnp.zeros((1, LENGTH), jnp.int32))["params"]


PARAMS = initialize(jax.random.key(0))


def losses_and_gradients(attention: Attention, batch: PretrainingBatch, dtype: Any) -> Any:
    model = AlbertForPreTraining(CONFIG, dtype=dtype, execution=Execution(attention=attention))
    loss = pretraining_objective(model).loss_fn

    def total(params: Any, batch: PretrainingBatch) -> Any:
        metrics = loss(params, batch, None)
        sums = {k: metrics[k].sum for k in ("masked_lm_loss", "sentence_order_loss")}
        return jnp.stack(list(sums.values())).sum(), sums

    gradients, sums = jax.jit(jax.grad(total, has_aux=True))(PARAMS, batch)
    return sums, gradients


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocked attention takes rows as short as those of these tests by blocks."""
    monkeypatch.setattr(choice, "SHORTEST_BLOCKED", LENGTH)


@pytest.mark.usefixtures("short_blocks")
def test_packed_or_not_and_fused_or_not_losses_and_gradients_are_the_same() -> None:
    packed = packed_batch()
    alone = unpacked_batch(packed)
    expected_sums, expected = losses_and_gradients(Attention.XLA, packed, jnp.float32)
    assert min(expected_sums.values()) > 0.1
    # In bfloat16 one of the two ways is enough: it shares everything but the rounding.
    for attention, batch, dtype, within in (
        (Attention.XLA, alone, jnp.float32, 1e-5),
        (Attention.BLOCKED, packed, jnp.float32, 1e-5),
        (Attention.BLOCKED, alone, jnp.float32, 1e-5),
        (Attention.SPLASH, packed, jnp.float32, 1e-5),
        (Attention.SPLASH, alone, jnp.float32, 1e-5),
        (Attention.XLA, packed, jnp.bfloat16, 5e-2),
        (Attention.BLOCKED, packed, jnp.bfloat16, 5e-2),
        (Attention.SPLASH, packed, jnp.bfloat16, 5e-2),
    ):
        sums, gradients = losses_and_gradients(attention, batch, dtype)
        for name, value in expected_sums.items():
            np.testing.assert_allclose(sums[name], value, rtol=within)
        # Of the tree as a whole: a leaf's own noise in bfloat16 may exceed the leaf.
        differences = jax.tree.map(jnp.subtract, gradients, expected)
        norms = [
            np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(tree)))
            for tree in (differences, expected)
        ]
        assert norms[0] < within * norms[1], (attention, dtype, batch.input_ids.shape)


def test_a_fused_attention_is_within_its_tolerance_and_a_leaking_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "unsupported_reason", lambda *_: None)
    for asked in (work(), work(packed=False, dtype=jnp.bfloat16)):
        assert choose_attention(Attention.SPLASH, asked)[0] is Attention.SPLASH

    def leaking(query: Any, key: Any, value: Any, ids: Any) -> Any:
        return splash_attention(query, key, value, jnp.ones_like(ids))

    def broken(query: Any, key: Any, value: Any, ids: Any) -> Any:
        return jnp.full_like(query, jnp.nan) * (query + key + value)

    for wrong in (leaking, broken):
        monkeypatch.setattr(choice, "splash_attention", wrong)
        assert not deviation(Attention.SPLASH, work()) < 0.1
        with pytest.raises(ValueError, match="off the reference on this device"):
            choose_attention(Attention.SPLASH, work())
        tpu = SimpleNamespace(platform="tpu")
        monkeypatch.setattr(choice, "deviation", lambda *_: np.nan)
        picked, line = choose_attention(Attention.AUTO, work(device=tpu))
        assert picked is Attention.XLA
        assert "not splash: it is" in line
        monkeypatch.undo()
        monkeypatch.setattr(choice, "unsupported_reason", lambda *_: None)


def test_padding_stays_finite() -> None:
    query = jnp.ones((1, LENGTH, 2, 8))
    context = splash_attention(query, query, query, jnp.zeros((1, LENGTH), jnp.int32))
    assert np.isfinite(context).all()


GPU = SimpleNamespace(platform="gpu", compute_capability="9.0")
AMPERE = SimpleNamespace(platform="gpu", compute_capability="8.0")
TPU = SimpleNamespace(platform="tpu")
RELATIVE = dataclasses.replace(CONFIG, position_encoding=PositionEncoding.RELATIVE_LOCAL)
DROPPING = dataclasses.replace(CONFIG, attention_probs_dropout_prob=0.1)


@pytest.mark.parametrize(
    ("attention", "changes", "expected"),
    [
        ("splash", {"device": TPU}, None),
        ("splash", {}, "for TPUs, this is a cpu"),
        ("splash", {"device": TPU, "lengths": (128, 96)}, "multiple of 128 long, they are 96"),
        ("splash", {"device": TPU, "lengths": ()}, "these are of any length"),
        ("splash", {"device": TPU, "partitioned": True}, "run.tensor must be 1"),
        ("splash", {"device": TPU, "config": RELATIVE}, "learned relative positions"),
        ("splash", {"device": TPU, "config": DROPPING}, "must be 0, it is 0.1"),
        ("blocked", {"lengths": ()}, None),
        ("blocked", {"partitioned": True}, "run.tensor must be 1"),
        ("blocked", {"config": RELATIVE}, "learned relative positions"),
        ("blocked", {"config": DROPPING}, "must be 0, it is 0.1"),
        ("cudnn", {"device": GPU, "dtype": jnp.bfloat16}, None),
        ("cudnn", {"device": TPU}, "for NVIDIA GPUs, this is a tpu"),
        ("cudnn", {"device": GPU}, "run.dtype is float32"),
        ("cudnn", {"device": AMPERE, "dtype": jnp.bfloat16}, "this GPU has 8.0"),
        ("cudnn", {"device": AMPERE, "dtype": jnp.bfloat16, "packed": False}, None),
        ("xla", {"config": RELATIVE}, None),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    attention: str, changes: dict[str, Any], expected: str | None
) -> None:
    why = choice.unsupported_reason(Attention(attention), work(**changes))
    assert why is None if expected is None else why is not None and expected in why


def test_auto_takes_blocks_on_a_cpu_and_the_model_wants_it_settled() -> None:
    assert choose_attention(Attention.AUTO, work()) == (Attention.BLOCKED, "attention: blocked")
    assert choose_attention(Attention.XLA, work()) == (Attention.XLA, "attention: xla")
    picked, line = choose_attention(Attention.AUTO, work(config=RELATIVE))
    assert picked is Attention.XLA
    assert "not blocked: it does not know learned relative positions" in line
    with pytest.raises(ValueError, match="for TPUs, this is a cpu; xla and auto can"):
        choose_attention(Attention.SPLASH, work())
    with pytest.raises(ValueError, match="settled by choose_attention"):
        choice.make_attention_fn(Attention.AUTO)


@pytest.mark.parametrize("shorter", [0, 1])
def test_long_rows_go_by_blocks_and_shorter_ones_do_not(
    monkeypatch: pytest.MonkeyPatch, shorter: int
) -> None:
    taken = []
    for name in ("blocked_attention", "dot_product_attention"):

        def attend(query: Any, *_: Any, name: str = name, **__: Any) -> Any:
            taken.append(name)
            return query

        monkeypatch.setattr(choice, name, attend)
    length = choice.SHORTEST_BLOCKED - shorter
    row = jnp.zeros((1, length, 1, 8))
    choice.make_attention_fn(Attention.BLOCKED)(row, row, row)
    assert taken == [("blocked_attention", "dot_product_attention")[shorter]]


def test_offsets_of_packed_rows() -> None:
    ids = jnp.array([[1, 1, 2, 0], [1, 2, 3, 3], [0, 0, 0, 0]])
    offsets, lengths = packed_offsets(ids, 3)
    np.testing.assert_array_equal(offsets, [[0, 2, -1, -1], [0, 1, 2, -1], [-1, -1, -1, -1]])
    np.testing.assert_array_equal(lengths, [[2, 1, -1], [1, 1, 2], [-1, -1, -1]])


def test_packed_rows_leave_no_position_to_chance_under_cudnn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """cuDNN's kernel writes only where it was told that a sequence lies. A stand-in for it says so
    with NaN; whether the kernel itself is right is checked on the device, at the start of a run."""
    ids = jnp.array([[1, 1, 1, 2, 2, 0, 0, 0], [1, 2, 2, 2, 3, 3, 3, 3], [1] * 8, [0] * 8])
    told = []

    def kernel(
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        *,
        q_offsets: jax.Array,
        q_seqlen: jax.Array,
        **_: Any,
    ) -> jax.Array:
        told.append(q_seqlen)
        starts = q_offsets[:, :-1, None]
        within = np.arange(query.shape[1]) - starts
        covers = (starts >= 0) & (within >= 0) & (within < q_seqlen[:, :, None])
        number = jnp.argmax(covers, axis=1)
        context = dot_product_attention(query, key, value, packed_mask(number))
        return jnp.where(covers.any(1)[:, :, None, None], context, jnp.nan)

    monkeypatch.setattr(fused_attention_stablehlo, "dot_product_attention", kernel)
    operands = list(jax.random.normal(jax.random.key(0), (3, *ids.shape, 2, 8)))
    context = cudnn_attention(*operands, ids, max_sequences=3)
    np.testing.assert_allclose(
        context, dot_product_attention(*operands, packed_mask(ids)), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(
        told[0], [[3, 2, 3, -1], [1, 3, 4, -1], [8, -1, -1, -1], [8, -1, -1, -1]]
    )


def test_the_private_function_of_jax_still_takes_what_it_is_given() -> None:
    taken = inspect.signature(fused_attention_stablehlo.dot_product_attention).parameters
    assert {"q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets", "scale", "mask_type"} <= set(taken)
    assert fused_attention_stablehlo.MaskType.PADDING


@pytest.mark.usefixtures("short_blocks")
def test_the_step_over_devices_is_the_same_with_splash_and_by_blocks() -> None:
    single = packed_batch()
    batch = PretrainingBatch(*(np.concatenate([x, x]) for x in single))
    optimizer = make_optimizer(
        OptimizerConfig(num_train_steps=2, num_warmup_steps=0), global_batch_size=2
    )
    mesh = make_mesh(fsdp=2, devices=jax.devices()[:2])  # mapped by hand, as data is

    def loss_and_norm(attention: Attention) -> tuple[float, float]:
        model = AlbertForPreTraining(CONFIG, execution=Execution(attention=attention))
        state = initialize_state(initialize, optimizer, jax.random.key(0), mesh)
        loss_fn, weight_fn, _ = pretraining_objective(model)
        step = compile_train_step(loss_fn, optimizer, state, mesh, weight_fn=weight_fn)
        _, metrics = step(state, place_batch(batch, mesh), jax.random.key(0))
        return float(metrics["masked_lm_loss"].sum), float(metrics["grad_norm"].sum)

    expected = loss_and_norm(Attention.XLA)
    for attention in (Attention.SPLASH, Attention.BLOCKED):
        np.testing.assert_allclose(loss_and_norm(attention), expected, rtol=1e-5)
