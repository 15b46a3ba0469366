"""The loop: what it logs, saves and skips, with a step that computes nothing."""

import time
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.devices.prefetch import BatchQueue
from albert_jax.training.loop import Intervals, NonFiniteStepError, train
from albert_jax.training.losses import Ratio
from albert_jax.training.skipping import StepHistory
from albert_jax.training.train_step import TrainState


class Hooks:
    """A run that records what the loop asks for."""

    def __init__(self, *, start: int = 0, stop_at: int = 0, stop_early_at: int = 0) -> None:
        self.start = start
        self.rows: list[tuple[int, str, dict[str, float]]] = []
        self.saved: list[int] = []
        self.stop_at, self.stop_early_at = stop_at, stop_early_at

    def evaluate(self, state: Any) -> dict[str, float]:
        self.evaluated = int(state.step)
        return {"accuracy": 0.5}

    def should_stop_early(self) -> bool:
        return self.evaluated == self.stop_early_at

    def save(self, step: int, state: Any, metrics: dict[str, float] | None) -> None:
        assert self.logged() == step, "what is saved is logged"
        self.saved.append(step)

    def report(self, step: int, split: str, metrics: dict[str, float]) -> None:
        self.rows.append((step, split, metrics))

    def advance(self, step: int) -> None:
        pass

    def should_stop(self, step: int) -> bool:
        return step == self.stop_at

    def of(self, split: str) -> list[tuple[int, dict[str, float]]]:
        return [(step, metrics) for step, kind, metrics in self.rows if kind == split]

    def logged(self) -> int:
        return self.start + sum(int(metrics["steps"]) for _, metrics in self.of("train"))


def run(hooks: Hooks, *, start: int = 0, bad: Any = (), spikes: Any = (), **options: Any) -> Any:
    """Train up to step 20 in batches 0, 1, ...; each step's loss is the number of its batch."""

    def batches() -> Iterator[int]:
        number = start
        while True:
            yield number
            number += 1

    def step(state: Any, batch: int, key: Any) -> Any:
        def one(value: float) -> Ratio:
            return Ratio(np.float32(value), np.float32(1))

        loss = np.nan if batch in bad else float(batch)
        metrics = {"a_loss": one(loss), "grad_norm": one(2 * loss), "finite": one(batch not in bad)}
        metrics["spike"] = one(batch in spikes)
        return state._replace(step=np.int32(batch + 1)), metrics

    state = TrainState(np.int32(start), {}, {}, options.pop("history", None))
    return train(
        state,
        step,
        BatchQueue(batches(), lambda batch: batch),
        jnp.zeros(2),
        num_steps=20,
        intervals=Intervals(log=5, evaluate=8, checkpoint=7),
        hooks=hooks,
        **options,
    )


def test_every_step_is_logged_once_however_a_run_is_interrupted() -> None:
    whole = Hooks()
    run(whole)
    steps = [(step, metrics["steps"]) for step, metrics in whole.of("train")]
    assert steps == [(5, 5), (7, 2), (10, 3), (14, 4), (15, 1), (20, 5)]
    assert whole.saved == [7, 14, 20]
    assert [step for step, _ in whole.of("validation")] == [8, 16, 20]
    assert whole.of("train")[2][1]["a_loss"] == np.mean([7, 8, 9])

    stopped, resumed, early = Hooks(stop_at=12), Hooks(start=7), Hooks(stop_early_at=8)
    run(stopped)
    assert (stopped.of("train")[-1][0], stopped.logged()) == (12, 12)
    killed = [row for row in whole.rows if row[0] <= 7]
    run(resumed, start=7)
    assert [row[:2] for row in killed + resumed.rows] == [row[:2] for row in whole.rows]
    assert resumed.logged() == 20
    run(early)
    assert (early.saved, early.logged()) == ([7, 8], 8)


def test_skipped_steps_are_logged_and_left_out_of_the_averages() -> None:
    hooks = Hooks()
    run(hooks, bad={1, 2, 7}, spikes={3}, skip_nonfinite=2)
    rows = hooks.of("skipped")
    assert [(step, row["batch"]) for step, row in rows] == [(2, 1), (3, 2), (4, 3), (8, 7)]
    assert [row.get("nonfinite_in_a_row") for _, row in rows] == [1, 2, None, 1]
    assert (rows[2][1]["loss"], rows[2][1]["grad_norm"]) == (3, 6)
    first = hooks.of("train")[0][1]
    assert (first["steps"], first["skipped_steps"], first["loss"]) == (5, 3, 2)
    assert "skipped_steps" not in hooks.of("train")[1][1]
    empty = Hooks()
    run(empty, bad=range(5), skip_nonfinite=5)
    assert "loss" not in empty.of("train")[0][1]


@pytest.mark.parametrize(
    ("bad", "allowed", "step", "said"),
    [({6}, 0, 7, "step 7 has a loss .* not finite$"), ({6, 7, 8}, 2, 9, "as have the 2 before it")],
)
def test_too_many_steps_in_a_row_end_the_run(bad: Any, allowed: int, step: int, said: str) -> None:
    hooks = Hooks()
    with pytest.raises(NonFiniteStepError, match=said) as raised:
        run(hooks, bad=bad, skip_nonfinite=allowed)
    assert (raised.value.step, hooks.saved) == (step, [7] if allowed else [])


def test_the_row_goes_on_after_an_interruption() -> None:
    zeros = np.zeros(128, np.float32)
    history = StepHistory(zeros, zeros, np.int32(0), np.int32(2))
    with pytest.raises(NonFiniteStepError) as raised:
        run(Hooks(start=7), start=7, bad={7}, skip_nonfinite=2, history=history)
    assert raised.value.in_a_row == 3


class Pending:
    """A number that a device has not computed yet."""

    def is_ready(self) -> bool:
        return False

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return np.float32(1)


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("is_done", [True, False])
def test_loading_is_a_stall_where_the_step_before_is_done(every: int, is_done: bool) -> None:
    """Whatever the interval of the log: with an entry for each step, too."""

    def batches() -> Iterator[int]:
        while True:
            time.sleep(0.02)
            yield 0

    def step(state: Any, batch: int, key: Any) -> Any:
        one = Ratio(np.float32(1), np.float32(1))
        value: Any = one.sum if is_done else Pending()
        loss = Ratio(value, one.weight)
        metrics = {"a_loss": loss, "grad_norm": one, "finite": one}
        return state._replace(step=np.int32(state.step + 1)), metrics

    hooks, queue = Hooks(), BatchQueue(batches(), lambda batch: batch)
    train(
        *(TrainState(np.int32(0), {}, {}), step, queue, jnp.zeros(2)),
        num_steps=10,
        intervals=Intervals(log=every, evaluate=99, checkpoint=99),
        hooks=hooks,
    )
    shares = [metrics["host_stall_share"] for _, metrics in hooks.of("train")[:-1]]
    assert len(shares) == 10 // every - 1
    assert min(shares) > 0.8 if is_done else max(shares) < 0.2
