"""Steps that are not applied: which they are, and what they leave behind."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_regression import ADAMW, initialize, loss_fn, make_batch, weight_fn

from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.sharding import place_batch, state_shardings
from albert_jax.training.losses import summarize
from albert_jax.training.parallel import compile_train_step, initialize_state
from albert_jax.training.skipping import FEWEST, WINDOW, deviations
from albert_jax.training.train_step import TrainState

SIGMAS = 5.0
SPIKES, NOT_FINITE = {40: 30.0, 150: 30.0, 151: 1e4, 152: 30.0}, {70, 71, 200}
STEPS = 210


@functools.cache
def step_on(devices: int) -> Any:
    mesh = make_mesh(devices=jax.devices()[:devices])
    state = initialize_state(initialize, ADAMW, jax.random.key(0), mesh, keep_history=True)
    step = compile_train_step(loss_fn, ADAMW, state, mesh, weight_fn=weight_fn, spike_sigmas=SIGMAS)
    return jax.device_get(state), step, mesh


def run(state: TrainState, *, devices: int = 1, until: int = STEPS) -> tuple[Any, list[Any]]:
    """The state and the metrics of each step up to `until`."""
    _, step, mesh = step_on(devices)
    state, history = jax.device_put(state, state_shardings(state, mesh)), []
    for number in range(int(state.step), until):
        batch = make_batch(number, scale=SPIKES.get(number, 1.0))
        if number in NOT_FINITE:
            batch["y"] *= np.float32("nan")
        state, metrics = step(state, place_batch(batch, mesh), jax.random.key(1))
        history.append(summarize(jax.device_get(metrics)))
    return jax.device_get(state), history


def expected_spikes(history: list[dict[str, float]]) -> list[int]:
    """The spikes by their definition, with NumPy."""
    found, before = [], np.zeros((0, 2), np.float32)
    for number, metrics in enumerate(history):
        if not metrics["finite"]:
            continue
        values = np.array([metrics["loss"], metrics["grad_norm"]], np.float32)
        window = before[-WINDOW:]
        if len(window) >= FEWEST:
            above = (values - window.mean(0)) / window.std(0, ddof=1)
            found += [number] if above.max() > SIGMAS else []
        before = np.vstack([before, values])
    return found


@pytest.fixture(scope="module")
def whole() -> tuple[Any, list[Any]]:
    return run(step_on(1)[0])


def test_spikes_and_what_is_not_finite_are_skipped(whole: tuple[Any, list[Any]]) -> None:
    state, history = whole
    spikes = [number for number, metrics in enumerate(history) if metrics["spike"]]
    assert spikes == expected_spikes(history)
    assert {150, 151} <= set(spikes)
    assert 40 not in spikes, "too few steps are known"
    assert 152 not in spikes, "a spike is one of the last steps, too"
    assert {n for n, metrics in enumerate(history) if not metrics["finite"]} == NOT_FINITE
    adam, schedule = (
        next(s for s in jax.tree.leaves(state.opt_state, is_leaf=is_kind) if is_kind(s))
        for is_kind in (
            lambda node: isinstance(node, optax.ScaleByAdamState),
            lambda node: isinstance(node, optax.ScaleByScheduleState),
        )
    )
    assert (int(state.step), int(schedule.count)) == (STEPS, STEPS)
    assert int(adam.count) == STEPS - len(spikes) - len(NOT_FINITE)
    assert int(state.history.finite_steps) == STEPS - len(NOT_FINITE)
    assert int(state.history.nonfinite_in_a_row) == 0


@pytest.mark.parametrize("number", [70, 150])
def test_a_skipped_step_leaves_parameters_and_moments(number: int) -> None:
    before, _ = run(step_on(1)[0], until=number)
    after, _ = run(before, until=number + 1)
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    assert int(after.step) == number + 1
    assert int(after.history.nonfinite_in_a_row) == (number in NOT_FINITE)


def test_an_interrupted_run_skips_the_same_steps(whole: tuple[Any, list[Any]]) -> None:
    state, history = whole
    half, first = run(step_on(1)[0], until=71)
    again, second = run(half)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    assert str(first + second) == str(history)  # nan equals no nan


def test_other_devices_skip_the_same_steps(whole: tuple[Any, list[Any]]) -> None:
    _, history = whole
    _, spread = run(step_on(4)[0], devices=4)
    assert [m["spike"] for m in spread] == [m["spike"] for m in history]


@pytest.mark.parametrize("known", [0, FEWEST - 1, FEWEST, WINDOW, WINDOW + 3])
def test_deviations_are_those_of_the_last_values(known: int) -> None:
    rng = np.random.default_rng(0)
    values, ring = rng.normal(3, 1, known), np.zeros(WINDOW, np.float32)
    for number, value in enumerate(values):
        ring[number % WINDOW] = value
    last = values[-WINDOW:]
    expected = (7 - last.mean()) / last.std(ddof=1) if known >= FEWEST else 0
    above = jax.jit(deviations)(ring, jnp.int32(known), jnp.float32(7))
    assert float(above) == pytest.approx(expected, rel=1e-4)


def test_a_constant_loss_is_no_spike() -> None:
    above = jax.jit(functools.partial(deviations, count=jnp.int32(500)))
    values = jnp.full(WINDOW, 0.1, jnp.float32)
    assert abs(above(values, value=jnp.float32(0.1))) < 1
    assert above(values, value=jnp.float32(0.2)) > 1000
    assert above(jnp.zeros(WINDOW), value=jnp.float32(0)) == 0
