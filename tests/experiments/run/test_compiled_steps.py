"""Micro-batches are as few as the memory allows, for each shape of batches on its own."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from config_files import load

from albert_jax import AlbertForPreTraining
from albert_jax.batch import PretrainingBatch
from albert_jax.devices.memory import memory_limit, memory_of
from data_pipeline.errors import InputError
from experiments.run.compiled_steps import CompiledSteps, micro_batch_counts, objective_of

FIXED, A_PIECE = 100, 10  # bytes that any step needs, and bytes for each piece at once


class Step:
    """A stand-in for a step whose memory the compiler knows."""

    def __init__(self, count: int) -> None:
        self.count = count

    def lower(self, state: Any, batch: Any, key: Any) -> Any:
        used = SimpleNamespace(
            argument_size_in_bytes=FIXED,
            output_size_in_bytes=0,
            alias_size_in_bytes=0,
            temp_size_in_bytes=A_PIECE * batch.size // self.count,
        )
        return SimpleNamespace(compile=lambda: Compiled(self.count, used))


class Compiled(jax.stages.Compiled):
    def __init__(self, count: int, used: Any) -> None:
        self.count, self.used = count, used

    def memory_analysis(self) -> Any:
        return self.used

    def __call__(self, *_: Any) -> int:
        return self.count


def steps(limit: int | None, said: list[str], fixed: int = 0) -> Any:
    return CompiledSteps(
        Step,  # type: ignore[arg-type]
        lambda rows: [fixed] if fixed else micro_batch_counts(rows, 2),
        limit,
        said.append,
        lambda compiled: "costs",
    )


def take(compiled: Any, rows: int, length: int) -> Any:
    return compiled(None, np.zeros((rows, length)), None)


def test_the_fewest_micro_batches_that_fit_are_taken_for_each_shape() -> None:
    said: list[str] = []
    compiled = steps(FIXED + A_PIECE * 64, said)
    assert take(compiled, 16, 4) == 1
    assert take(compiled, 16, 8) == 2
    assert take(compiled, 16, 32) == 8
    assert any(line.startswith("8 micro-batches a step: ") for line in said)
    smallest = r"in 8 micro-batches, the smallest, needs .* --config.run.remat=full"
    with pytest.raises(InputError, match=smallest):
        take(compiled, 16, 33)


def test_a_number_that_was_named_is_taken_as_it_is() -> None:
    assert take(steps(1, [], fixed=4), 16, 512) == 4


def test_without_a_known_memory_nothing_is_guessed() -> None:
    with pytest.raises(InputError, match="which is not known here"):
        take(steps(None, []), 16, 4)


def test_rows_are_halved_as_long_as_every_device_has_some() -> None:
    assert micro_batch_counts(24, 2) == [1, 2, 4]
    assert micro_batch_counts(7, 1) == [1]


def test_the_compiler_and_the_host_tell_their_memory() -> None:
    zeros = np.zeros((64, 64), np.float32)
    compiled = jax.jit(lambda x: x @ x).lower(zeros).compile()
    needed, limit = memory_of(compiled), memory_limit(jax.devices()[0])
    assert needed is not None and needed >= 2 * zeros.nbytes
    assert limit is not None and limit > needed


def test_the_objective_of_a_run_has_the_losses_of_its_settings() -> None:
    config = load("albert_tiny_cpu")
    sizes = {"batch": 2, "length": 8, "predictions": 1, "pairs": 1}
    batch = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), PretrainingBatch.shapes(**sizes))
    model = AlbertForPreTraining(config.model)
    found = set(objective_of(config, model).weight_fn(batch))
    assert found == {"masked_lm_loss", "sentence_order_loss"}
    optimizer = dataclasses.replace(config.optimizer, z_loss_weight=1e-4)
    more = objective_of(dataclasses.replace(config, optimizer=optimizer), model)
    assert set(more.weight_fn(batch)) == found | {"masked_lm_z_loss"}
