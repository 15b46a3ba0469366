"""Devices, micro-batches and pmap: the same parameters, however a step is distributed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from spread_steps import (
    CONFIG,
    LAMB,
    SOPHIA,
    compiled_step,
    initial_state,
    lowered_step,
    make_batch,
)

from albert_jax import AlbertForPreTraining
from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.sharding import place_batch, rows_of_process, state_shardings
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.losses import summarize
from albert_jax.training.parallel import Parallelism, compile_eval_step
from albert_jax.training.train_step import make_gradient_fn

ROUTED = dataclasses.replace(CONFIG, num_experts=3, expert_rank=2, depth_signal="scale")


def run(*, steps=4, poison=(), config=CONFIG, **spread):
    """The state and the metrics of each step after a few steps, of LAMB or another."""
    step, mesh = compiled_step(config=config, **spread)
    state = initial_state(config=config, optimizer=spread.get("optimizer", LAMB))
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
    return run(devices=1)


@pytest.mark.parametrize(
    "spread",
    [
        {"accumulation_steps": 2},
        {"fsdp": 2, "tensor": 2, "accumulation_steps": 2},
        {"devices": 4, "parallelism": Parallelism.PMAP, "accumulation_steps": 2},
        pytest.param({"fsdp": 2}, marks=pytest.mark.slow),
        pytest.param({"devices": 1, "accumulation_steps": 4}, marks=pytest.mark.slow),
        pytest.param({"devices": 2, "tensor": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_distribution_changes_nothing(one_device, spread):
    state, history = run(**spread)
    assert_same_steps(state, history, *one_device)


@pytest.mark.slow  # two compilations of its own; the sums are tested without devices
def test_tokens_are_routed_and_loads_balanced_over_all_devices_and_micro_batches():
    """Padding, the last token of each row, counts nowhere; biases of experts move."""
    expected, expected_history = run(config=ROUTED, devices=1)
    bias = expected.params["albert"]["encoder"]["layers"]["feed_forward"]["router"]["bias"]
    assert np.all(np.abs(bias) > 1e-3)
    for step in expected_history:
        assert sum(step[f"expert_load/{number}"] for number in (1, 2, 3)) == pytest.approx(1)
    spread = {"fsdp": 2, "tensor": 2, "accumulation_steps": 2}
    assert_same_steps(*run(config=ROUTED, **spread), expected, expected_history)


def assert_same_steps(state, history, expected, expected_history):
    assert int(state.step) == 4
    # The gradient of the keys' bias is only rounding, which Adam turns into a step: hence atol.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5),
        state.params,
        expected.params,
    )
    for step, expected_step in zip(history, expected_history, strict=True):
        assert step == pytest.approx(expected_step, rel=1e-4)


def same_labels(params, batch, key):
    """A loss on labels that do not depend on how rows are distributed: those of the batch."""
    return pretraining_objective(AlbertForPreTraining(CONFIG)).loss_fn(params, batch, None)


@pytest.mark.parametrize(
    "spread",
    [
        {"fsdp": 2, "accumulation_steps": 2},
        pytest.param(
            {"devices": 4, "parallelism": Parallelism.PMAP, "accumulation_steps": 2},
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_curvature_is_that_of_the_global_batch(spread):
    """Estimated in the first and the third of four steps."""
    options = {"optimizer": SOPHIA, "sampled_loss_fn": same_labels}
    (expected, _), (state, _) = run(devices=1, **options), run(**spread, **options)
    params = [flatten_dict(one.params, sep="/") for one in (expected, state)]
    for name, weights in params[0].items():
        if not name.endswith("key/bias"):  # without a gradient but for rounding
            np.testing.assert_allclose(params[1][name], weights, rtol=2e-4, atol=1e-5, err_msg=name)
    curvatures = [optax.tree.get(one.opt_state, "nu") for one in (expected, state)]
    assert float(optax.tree.norm(curvatures[0])) > 0.01
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-7), *curvatures)


def test_sampled_gradients_estimate_the_gauss_newton_diagonal():
    """For the output biases, the matrix is known: the mean of p (1 - p) over what is predicted."""
    objective = pretraining_objective(
        AlbertForPreTraining(CONFIG), z_loss_weight=0.1, samples_labels=True
    )
    params, batch = initial_state().params, jax.tree.map(jnp.asarray, make_batch(0))
    biases = {"predictions": "bias", "sop_classifier": "bias"}
    gradients = make_gradient_fn(
        objective.sampled_loss_fn, objective.weight_fn, row_axes=(), root_weights=True
    )

    @jax.jit
    def estimate(key):
        of_key, _ = gradients(params, batch, key)
        return {part: jnp.square(of_key[part][name]) for part, name in biases.items()}

    found = jax.lax.map(estimate, jax.random.split(jax.random.key(0), 1500), batch_size=50)
    logits = objective.predict(params, batch)
    for part, output, weights in (
        ("predictions", "prediction_logits", batch.masked_lm_weights),
        ("sop_classifier", "sop_logits", batch.sentence_order_weights),
    ):
        p = jax.nn.softmax(logits[output])
        expected = (weights[..., None] * p * (1 - p)).sum((0, 1)) / weights.sum()
        np.testing.assert_allclose(found[part].mean(0), expected, rtol=0.2)


def test_the_initial_state_does_not_depend_on_the_mesh():
    sharded = initial_state(devices=8, fsdp=2, tensor=2)
    jax.tree.map(np.testing.assert_array_equal, sharded, initial_state())


def test_pmap_rejects_other_axes():
    with pytest.raises(ValueError, match=r"run\.fsdp must be 1, got 2"):
        lowered_step(devices=4, fsdp=2, parallelism=Parallelism.PMAP)


def test_devices_must_divide():
    with pytest.raises(ValueError, match=r"run.fsdp \(3\) times run.tensor \(1\).* 8 devices"):
        make_mesh(fsdp=3)
    with pytest.raises(ValueError, match="batch of 12 rows must be a multiple of 8"):
        rows_of_process(12, make_mesh())
    with pytest.raises(ValueError, match="2 rows do not divide into 4 micro-batches"):
        lowered_step(accumulation_steps=4)


@pytest.mark.parametrize(
    "spread",
    [
        {"fsdp": 2},
        {"devices": 4, "parallelism": Parallelism.PMAP, "accumulation_steps": 2},
    ],
    ids=str,
)
def test_a_non_finite_step_is_not_applied(spread):
    state, history = run(poison={2}, **spread)
    expected, _ = run(steps=2, **spread)
    assert [step["finite"] for step in history] == [1, 1, 0, 1]
    assert int(state.step) == 4, "its batch is not taken again"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    after, _ = run(steps=3, poison={2}, **spread)
    jax.tree.map(np.testing.assert_array_equal, after.params, expected.params)
    # In the optimizer's state, only the schedule has advanced, with the batch.
    pairs = zip(jax.tree.leaves(after.opt_state), jax.tree.leaves(expected.opt_state), strict=True)
    assert [(int(new), int(old)) for new, old in pairs if (new != old).any()] == [(3, 2)]


def test_dropout_is_a_function_of_key_and_step(one_device):
    config = dataclasses.replace(CONFIG, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    once, _ = run(config=config, devices=2, steps=2)
    again, history = run(config=config, devices=2, steps=2)
    jax.tree.map(np.testing.assert_array_equal, once, again)
    _, without = one_device
    assert history[0]["loss"] != pytest.approx(without[0]["loss"], rel=1e-4)


def test_evaluation_adds_up_over_devices_and_batches():
    loss_fn = pretraining_objective(AlbertForPreTraining(CONFIG)).loss_fn
    params = initial_state().params
    batch = jax.tree.map(jnp.asarray, make_batch(0))
    loss = jax.jit(loss_fn)
    whole = summarize(loss(params, batch, None))
    mesh = make_mesh()
    eval_step = compile_eval_step(loss_fn, params, mesh)
    assert summarize(eval_step(params, place_batch(make_batch(0), mesh))) == pytest.approx(whole)
    halves = [jax.tree.map(lambda x, h=half: x[h::2], batch) for half in range(2)]
    parts = [loss(params, half, None) for half in halves]
    assert summarize(jax.tree.map(jnp.add, *parts)) == pytest.approx(whole)
