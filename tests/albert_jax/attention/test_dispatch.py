"""Every attention equals the reference, and the chosen one is supported and right."""

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.attention import blocked, dispatch
from albert_jax.attention.dispatch import Attention, choose_attention, make_attention_fn
from albert_jax.attention.implementation import AttentionWorkload
from albert_jax.attention.mask import AttentionMask
from albert_jax.attention.splash import SPLASH, splash_attention
from albert_jax.attention.traced_platform import traced_for
from albert_jax.attention.verification import error_of
from albert_jax.batch import PretrainingBatch
from albert_jax.config import PositionEncoding
from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.sharding import place_batch
from albert_jax.encoder import Execution
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.parallel import compile_train_step, initialize_state
from albert_jax.training.train_step import create_train_state

CONFIG = AlbertConfig(
    vocab_size=17,
    embedding_size=4,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=8,
    max_position_embeddings=128,
)
LENGTH = 128  # the shortest row that splash supports
SIZES = (61, 40)  # of the two pairs of a packed row; padding ends it
CPU = jax.devices()[0]


def workload(**changes: Any) -> AttentionWorkload:
    return AttentionWorkload(CONFIG, jnp.float32, (LENGTH,), True, CPU)._replace(**changes)


def packed_batch() -> PretrainingBatch:
    """Two pairs in a row, and a second row whose weights are 0."""
    rng = np.random.default_rng(0)
    fields = {
        "input_ids": rng.integers(5, CONFIG.vocab_size, (1, LENGTH)),
        "token_type_ids": np.zeros((1, LENGTH)),
        "position_ids": np.concatenate([np.arange(n) for n in (*SIZES, LENGTH - sum(SIZES))])[None],
        "sequence_ids": np.repeat([1, 2, 0], [*SIZES, LENGTH - sum(SIZES)])[None],
        "masked_lm_positions": np.array([[3, 9, 70, 99]]),
        "masked_lm_ids": np.array([[5, 6, 7, 8]]),
        "masked_lm_weights": np.ones((1, 4)),
        "sentence_order_positions": np.array([[0, SIZES[0]]]),
        "sentence_order_labels": np.array([[0, 1]]),
        "sentence_order_weights": np.ones((1, 2)),
    }
    rows = {
        name: np.concatenate([row, np.zeros_like(row) if name.endswith("weights") else row])
        for name, row in fields.items()
    }
    return as_batch(rows)


def unpacked_batch(packed: PretrainingBatch) -> PretrainingBatch:
    """The same two pairs, each at the start of a row of its own, in arrays of the same shapes."""
    fields = {name: array for name, array in packed._asdict().items() if array is not None}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in fields}
    for pair, (start, size) in enumerate(zip((0, SIZES[0]), SIZES, strict=True)):
        for name, array in fields.items():
            if name.startswith("masked_lm"):
                own = array[0, 2 * pair : 2 * pair + 2]
            elif name.startswith("sentence_order"):
                own = array[0, pair : pair + 1]
            else:
                own = array[0, start : start + size]
            if name.endswith("positions"):
                own = own - start
            if name == "sequence_ids":
                own = np.minimum(own, 1)
            rows[name].append(np.pad(own, (0, array.shape[1] - len(own))))
    return as_batch({name: np.stack(row) for name, row in rows.items()})


def as_batch(rows: dict[str, np.ndarray]) -> PretrainingBatch:
    return PretrainingBatch.from_numpy(
        {k: v.astype(np.float32 if k.endswith("weights") else np.int32) for k, v in rows.items()}
    )


def initialize(key: jax.Array) -> Any:
    """Initialize with values so large that scores differ and errors of attention show."""
    model = AlbertForPreTraining(dataclasses.replace(CONFIG, initializer_range=0.5))
    return model.init(key, jnp.zeros((1, LENGTH), jnp.int32))["params"]


PARAMS = initialize(jax.random.key(0))


@functools.partial(jax.jit, static_argnums=(0, 1))
def losses_and_gradients(attention: Attention, dtype: Any, batch: PretrainingBatch) -> Any:
    model = AlbertForPreTraining(CONFIG, dtype=dtype, execution=Execution(attention=attention))
    loss_fn = pretraining_objective(model).loss_fn

    def total(params: Any) -> Any:
        metrics = loss_fn(params, batch, None)
        sums = {k: metrics[k].sum for k in ("masked_lm_loss", "sentence_order_loss")}
        return sum(sums.values()), sums

    gradients, sums = jax.grad(total, has_aux=True)(PARAMS)
    return sums, gradients


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocked attention split even rows as short as those of these tests into blocks."""
    monkeypatch.setattr(blocked, "SHORTEST_BLOCKED", LENGTH)


@pytest.mark.usefixtures("short_blocks")
def test_packed_or_not_losses_and_gradients_of_every_attention_are_the_same() -> None:
    packed = packed_batch()
    alone = unpacked_batch(packed)
    expected_sums, expected = losses_and_gradients(Attention.XLA, jnp.float32, packed)
    assert min(expected_sums.values()) > 0.1
    for attention in (Attention.XLA, Attention.BLOCKED, Attention.SPLASH):
        # In bfloat16 one of the two ways is enough: it shares everything but the rounding.
        for batch, dtype, within in (
            (packed, jnp.float32, 1e-5),
            (alone, jnp.float32, 1e-5),
            (packed, jnp.bfloat16, 5e-2),
        ):
            sums, gradients = losses_and_gradients(attention, dtype, batch)
            for name, value in expected_sums.items():
                np.testing.assert_allclose(sums[name], value, rtol=within)
            # Compare the tree as a whole: a leaf's own noise in bfloat16 may exceed the leaf.
            difference = optax.tree.norm(optax.tree.sub(gradients, expected))
            assert difference < within * optax.tree.norm(expected), (attention, dtype)


def replaced(monkeypatch: pytest.MonkeyPatch, attention: Attention, **changes: Any) -> None:
    """Register another implementation under an attention's name."""
    implementation = dataclasses.replace(SPLASH, **changes)
    monkeypatch.setattr(attention, "implementation", implementation)


def test_splash_is_within_its_tolerance_and_a_leaking_kernel_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supported = {"unsupported_reason": lambda workload: None, "platform": "cpu"}
    replaced(monkeypatch, Attention.SPLASH, **supported)
    unpacked = workload(packed=False, dtype=jnp.bfloat16)
    for asked in (workload(), unpacked, workload(config=WINDOWED)):
        assert choose_attention(Attention.SPLASH, asked)[0] is Attention.SPLASH

    def without_window(mask: AttentionMask) -> Any:
        return SPLASH.bind(mask._replace(reach=None))

    with monkeypatch.context() as patch:
        replaced(patch, Attention.SPLASH, bind=without_window, **supported)
        with pytest.raises(ValueError, match="off the reference on this device"):
            choose_attention(Attention.SPLASH, workload(config=WINDOWED))

    def leaking(query: Any, key: Any, value: Any) -> Any:
        return splash_attention(query, key, value, jnp.ones(query.shape[:2], jnp.int32))

    def broken(query: Any, key: Any, value: Any) -> Any:
        return jnp.full_like(query, jnp.nan) * (query + key + value)

    monkeypatch.setattr(Attention.BLOCKED, "implementation", None)
    for wrong in (leaking, broken):
        replaced(monkeypatch, Attention.SPLASH, bind=lambda mask, f=wrong: f, **supported)
        error = error_of(Attention.SPLASH.implementation, workload())
        assert not error < 0.1
        monkeypatch.setattr(dispatch, "error_of", lambda *_, error=error: error)
        with pytest.raises(ValueError, match="off the reference on this device"):
            choose_attention(Attention.SPLASH, workload())
        picked, line = choose_attention(Attention.AUTO, workload())
        assert picked is Attention.XLA
        assert "not splash: it is" in line


def test_a_kernel_that_fails_on_the_device_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(mask: AttentionMask) -> Any:
        raise RuntimeError("no such engine\nand a trace")

    replaced(monkeypatch, Attention.BLOCKED, bind=failing, unsupported_reason=lambda _: None)
    with pytest.raises(ValueError, match="it fails on this device: no such engine; xla and auto"):
        choose_attention(Attention.BLOCKED, workload())


def test_padding_stays_finite() -> None:
    query = jnp.ones((1, LENGTH, 2, 8))
    context = splash_attention(query, query, query, jnp.zeros((1, LENGTH), jnp.int32))
    assert np.isfinite(context).all()


GPU = SimpleNamespace(platform="gpu", compute_capability="9.0")
AMPERE = SimpleNamespace(platform="gpu", compute_capability="8.0")
TPU = SimpleNamespace(platform="tpu")
RELATIVE = dataclasses.replace(CONFIG, position_encoding=PositionEncoding.RELATIVE_LOCAL)
WINDOWED = dataclasses.replace(CONFIG, attention_window=32)
DROPPING = dataclasses.replace(CONFIG, attention_probs_dropout_prob=0.1)


@pytest.mark.parametrize(
    ("attention", "changes", "expected"),
    [
        ("splash", {"device": TPU}, None),
        ("splash", {}, "for TPUs, this is a cpu"),
        ("splash", {"device": TPU, "lengths": (128, 96)}, "multiple of 128 long, they are 96"),
        ("splash", {"device": TPU, "lengths": ()}, "these are of any length"),
        ("splash", {"device": TPU, "partitioned": True}, "run.tensor must be 1"),
        ("splash", {"device": TPU, "config": RELATIVE}, "position_encoding=relative_local"),
        ("splash", {"device": TPU, "config": DROPPING}, "must be 0, it is 0.1"),
        ("blocked", {"lengths": ()}, None),
        ("blocked", {"partitioned": True}, "run.tensor must be 1"),
        ("blocked", {"config": RELATIVE}, "position_encoding=relative_local"),
        ("blocked", {"config": DROPPING}, "must be 0, it is 0.1"),
        ("cudnn", {"device": GPU, "dtype": jnp.bfloat16}, None),
        ("cudnn", {"device": TPU}, "for NVIDIA GPUs, this is a tpu"),
        ("cudnn", {"device": GPU}, "run.dtype is float32"),
        ("cudnn", {"device": AMPERE, "dtype": jnp.bfloat16}, "this GPU has 8.0"),
        ("cudnn", {"device": AMPERE, "dtype": jnp.bfloat16, "packed": False}, None),
        ("cudnn", {"device": GPU, "dtype": jnp.bfloat16, "config": WINDOWED}, None),
        ("blocked", {"config": WINDOWED}, None),
        ("xla", {"config": RELATIVE}, None),
    ],
)
def test_unsupported_workloads_are_rejected_with_the_reason(
    attention: str, changes: dict[str, Any], expected: str | None
) -> None:
    why = dispatch.unsupported_reason(Attention(attention), workload(**changes))
    assert why is None if expected is None else why is not None and expected in why


def test_auto_takes_blocks_on_a_cpu_and_the_model_wants_it_resolved() -> None:
    assert choose_attention(Attention.AUTO, workload()) == (Attention.BLOCKED, "attention: blocked")
    assert choose_attention(Attention.XLA, workload()) == (Attention.XLA, "attention: xla")
    picked, line = choose_attention(Attention.AUTO, workload(config=RELATIVE))
    assert picked is Attention.XLA
    assert "not blocked: it supports no bias by position" in line
    with pytest.raises(ValueError, match="for TPUs, this is a cpu; xla and auto can"):
        choose_attention(Attention.SPLASH, workload())
    with pytest.raises(ValueError, match="resolved by choose_attention"):
        make_attention_fn(Attention.AUTO, AttentionMask())


def test_an_attention_without_windows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, Attention.SPLASH, supports_reach=False)
    why = dispatch.unsupported_reason(Attention.SPLASH, workload(config=WINDOWED, device=TPU))
    assert why == "it has no window: model.attention_window must be 0, it is 32"
    with pytest.raises(ValueError, match="splash supports no window"):
        make_attention_fn(Attention.SPLASH, AttentionMask(reach=4))


@pytest.mark.parametrize("option", ["bias", "dropout_key"])
def test_an_attention_rejects_what_it_does_not_support(option: str) -> None:
    row = jnp.zeros((1, LENGTH, 1, 8))
    attend = make_attention_fn(Attention.BLOCKED, AttentionMask())
    with pytest.raises(ValueError, match=f"blocked supports no {option.partition('_')[0]}"):
        attend(row, row, row, **{option: object()})


@pytest.mark.parametrize("shorter", [0, 1])
def test_long_rows_go_by_blocks_and_shorter_ones_do_not(
    monkeypatch: pytest.MonkeyPatch, shorter: int
) -> None:
    called = []
    for name in ("blocked_attention", "dot_product_attention"):

        def attend(query: Any, *_: Any, name: str = name, **__: Any) -> Any:
            called.append(name)
            return query

        monkeypatch.setattr(blocked, name, attend)
    row = jnp.zeros((1, blocked.SHORTEST_BLOCKED - shorter, 1, 8))
    make_attention_fn(Attention.BLOCKED, AttentionMask())(row, row, row)
    assert called == [("blocked_attention", "dot_product_attention")[shorter]]


@pytest.mark.slow
@pytest.mark.usefixtures("short_blocks")
def test_the_step_over_devices_is_the_same_with_splash_and_by_blocks() -> None:
    mesh = make_mesh(fsdp=2, devices=jax.devices()[:2])  # mapped by hand, as data is
    optimizer = optax.sgd(0.1)
    state = initialize_state(initialize, optimizer, jax.random.key(0), mesh)
    batch = place_batch(unpacked_batch(packed_batch()), mesh)

    def loss_and_norm(attention: Attention) -> tuple[float, float]:
        model = AlbertForPreTraining(CONFIG, execution=Execution(attention=attention))
        objective = pretraining_objective(model)
        step = compile_train_step(
            objective.loss_fn, optimizer, state, mesh, weight_fn=objective.weight_fn
        )
        _, metrics = step(jax.tree.map(jnp.copy, state), batch, jax.random.key(0))
        return float(metrics["masked_lm_loss"].sum), float(metrics["grad_norm"].sum)

    expected = loss_and_norm(Attention.XLA)
    for attention in (Attention.SPLASH, Attention.BLOCKED):
        np.testing.assert_allclose(loss_and_norm(attention), expected, rtol=1e-5)


def test_a_step_with_splash_can_be_lowered_for_several_tpus() -> None:
    """Mosaic rejects kernels that XLA might shard, which only lowering for TPUs shows."""
    config = dataclasses.replace(CONFIG, max_position_embeddings=LENGTH)
    execution = Execution(attention=Attention.SPLASH)
    model = AlbertForPreTraining(config, execution=execution)
    optimizer = optax.sgd(0.1)
    key = jax.eval_shape(lambda: jax.random.key(0))
    mesh = make_mesh(fsdp=2)
    with traced_for("tpu"):
        state = jax.eval_shape(lambda k: create_train_state(model.initialize(k), optimizer), key)
        objective = pretraining_objective(model)
        step = compile_train_step(
            objective.loss_fn, optimizer, state, mesh, weight_fn=objective.weight_fn
        )
        batch = PretrainingBatch.shapes(batch=16, length=LENGTH, predictions=4, pairs=1)
        lowered = step.trace(state, batch, key).lower(lowering_platforms=("tpu",))
    assert "tpu_custom_call" in lowered.as_text()
