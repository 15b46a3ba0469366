"""One step, however it is spread: devices, micro-batches and pmap give the same parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.batch import PretrainingBatch
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.config import OptimizerConfig
from albert_jax.training.losses import summarize
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.parallel import (
    Parallelism,
    compile_eval_step,
    compile_train_step,
    initialize_state,
    make_mesh,
    place_batch,
    rows_of_process,
    state_shardings,
)

CONFIG = AlbertConfig(
    vocab_size=48,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
    initializer_range=0.2,
)
B, S, P, M = 16, 12, 3, 2


def make_batch(seed: int) -> PretrainingBatch:
    """Rows of two pairs, five and six pieces long, whose predictions are spread unevenly: the rows
    of the third device have none at all, the first ones most."""
    rng = np.random.default_rng(seed)
    lengths = [1] * 5 + [2] * 6 + [0]
    weights = (rng.random((B, P)) < np.linspace(1, 0.1, B)[:, None]).astype(np.float32)
    weights[4:6] = 0
    order_weights = np.ones((B, M), np.float32)
    order_weights[4:6] = 0
    order_weights[9:, 1] = 0

    def rows(values: object) -> np.ndarray:
        return np.tile(np.asarray(values, np.int32), (B, 1))

    return PretrainingBatch.from_numpy(
        {
            "input_ids": rng.integers(5, CONFIG.vocab_size, (B, S)).astype(np.int32),
            "token_type_ids": rows([0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0]),
            "position_ids": rows([*range(5), *range(6), 0]),
            "sequence_ids": rows(lengths),
            "masked_lm_positions": rng.integers(0, S - 1, (B, P)).astype(np.int32),
            "masked_lm_ids": rng.integers(5, CONFIG.vocab_size, (B, P)).astype(np.int32),
            "masked_lm_weights": weights,
            "sentence_order_positions": rows([0, 5]),
            "sentence_order_labels": rng.integers(0, 2, (B, M)).astype(np.int32),
            "sentence_order_weights": order_weights,
        }
    )


LAMB = make_optimizer(
    OptimizerConfig(learning_rate=0.02, num_train_steps=10, num_warmup_steps=1),
    global_batch_size=B,
)


@functools.cache
def compiled(config, devices, fsdp, tensor, **spread):
    """The mesh, the state's initialization and the step; compiled once for all tests."""
    mesh = make_mesh(devices=jax.devices()[:devices], fsdp=fsdp, tensor=tensor)
    model = AlbertForPreTraining(config)

    def initialize(key):
        return model.init(key, jnp.zeros((1, S), jnp.int32))["params"]

    state = initialize_state(initialize, LAMB, jax.random.key(0), mesh)
    objective = pretraining_objective(model)
    step = compile_train_step(
        objective.loss_fn, LAMB, state, mesh, weight_fn=objective.weight_fn, **spread
    )
    return mesh, jax.device_get(state), step


def run(*, config=CONFIG, devices=1, fsdp=1, tensor=1, steps=4, poison=(), **spread):
    """The state and the metrics of each step after a few LAMB steps."""
    mesh, state, step = compiled(config, devices, fsdp, tensor, **spread)
    state = jax.device_put(state, state_shardings(state, mesh))
    history = []
    for number in range(steps):
        batch = make_batch(number)
        if number in poison:
            batch = batch._replace(masked_lm_weights=batch.masked_lm_weights * np.float32("nan"))
        state, metrics = step(state, place_batch(batch, mesh), jax.random.key(1))
        history.append(summarize(metrics))
    return jax.device_get(state), history


@pytest.fixture(scope="module")
def one_device():
    return run()


@pytest.mark.parametrize(
    "spread",
    [
        {"devices": 8, "fsdp": 2},
        {"devices": 1, "accumulation_steps": 4},
        {"devices": 4, "accumulation_steps": 2},
        {"devices": 8, "fsdp": 2, "tensor": 2, "accumulation_steps": 2},
        {"devices": 2, "tensor": 2},
        {"devices": 4, "parallelism": Parallelism.PMAP, "accumulation_steps": 2},
    ],
    ids=str,
)
def test_spread_changes_nothing(one_device, spread):
    expected, expected_history = one_device
    state, history = run(**spread)
    assert int(state.step) == 4
    # The bias of the keys has no gradient but rounding, which Adam makes a step of: hence atol.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5),
        state.params,
        expected.params,
    )
    for step, expected_step in zip(history, expected_history, strict=True):
        assert step == pytest.approx(expected_step, rel=1e-4)


def test_pmap_refuses_other_axes():
    with pytest.raises(ValueError, match=r"run\.fsdp must be 1, got 2"):
        run(devices=4, fsdp=2, parallelism=Parallelism.PMAP)


def test_devices_must_divide():
    with pytest.raises(ValueError, match=r"run.fsdp \(3\) times run.tensor \(1\).* 8 devices"):
        make_mesh(fsdp=3)
    with pytest.raises(ValueError, match="batch of 12 rows must be a multiple of 8"):
        rows_of_process(12, make_mesh())
    with pytest.raises(ValueError, match="2 rows do not divide into 4 micro-batches"):
        run(devices=8, accumulation_steps=4)


@pytest.mark.parametrize("parallelism", Parallelism)
def test_non_finite_step_is_not_applied(parallelism):
    state, history = run(devices=2, parallelism=parallelism, poison={2})
    expected, _ = run(devices=2, parallelism=parallelism, steps=2)
    assert [step["finite"] for step in history] == [1, 1, 0, 1]
    assert int(state.step) == 3, "the poisoned step counts for nothing"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    after, _ = run(devices=2, parallelism=parallelism, steps=3, poison={2})
    jax.tree.map(np.testing.assert_array_equal, after, expected)


def test_dropout_follows_from_key_and_step():
    config = dataclasses.replace(CONFIG, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    once, _ = run(config=config, devices=2, steps=2)
    again, history = run(config=config, devices=2, steps=2)
    jax.tree.map(np.testing.assert_array_equal, once, again)
    _, without = run(devices=2, steps=2)
    assert history[0]["loss"] != pytest.approx(without[0]["loss"], rel=1e-4)


def test_evaluation_adds_up_over_devices_and_batches():
    model = AlbertForPreTraining(CONFIG)
    loss_fn = pretraining_objective(model).loss_fn
    params = model.init(jax.random.key(0), jnp.zeros((1, S), jnp.int32))["params"]
    batch = jax.tree.map(jnp.asarray, make_batch(0))
    loss = jax.jit(loss_fn)
    whole = summarize(loss(params, batch, None))
    mesh = make_mesh()
    eval_step = compile_eval_step(loss_fn, params, mesh)
    assert summarize(eval_step(params, place_batch(make_batch(0), mesh))) == pytest.approx(whole)
    halves = [jax.tree.map(lambda x, h=half: x[h::2], batch) for half in range(2)]
    parts = [loss(params, half, None) for half in halves]
    assert summarize(jax.tree.map(jnp.add, *parts)) == pytest.approx(whole)
