"""Inference on rows of any lengths: outputs independent of the batch, few compiled shapes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.devices.mesh import make_mesh
from experiments.prediction.inference import Inference
from experiments.tasks.raw_inputs import EncodedRow


def rows_of(lengths: list[int]) -> list[EncodedRow]:
    random = np.random.default_rng(0)
    return [
        {
            "input_ids": random.integers(1, 9, length).astype(np.int32),
            "attention_mask": np.ones(length, np.int32),
        }
        for length in lengths
    ]


def summed(params: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """The rows' sums, and their ids doubled."""
    weighted = batch["input_ids"] * batch["attention_mask"] * params
    return {"sum": weighted.sum(-1), "doubled": 2 * batch["input_ids"]}


def make(logged: list[str], devices: int = 1, **options: Any) -> Inference:
    mesh = make_mesh(devices=jax.devices()[:devices])
    return Inference(summed, jnp.float32(3), max_length=40, mesh=mesh, log=logged.append, **options)


@pytest.mark.parametrize("devices", [1, 4])
def test_outputs_do_not_depend_on_the_batch(devices):
    lengths = [40, 1, 16, 17, 3, 33, 16, 2, 32, 40, 5]
    rows = rows_of(lengths)
    logged: list[str] = []
    infer = make(logged, devices, tokens_per_batch=80)
    for outputs, row in zip(infer.in_order(rows), rows, strict=True):
        ids = row["input_ids"]
        assert outputs["sum"] == 3 * ids.sum()
        assert outputs["doubled"][: len(ids)].tolist() == (2 * ids).tolist()
        assert not outputs["doubled"][len(ids) :].any()
    # A few lengths that are padded to, and a rest: whatever the number of rows.
    count = len(logged)
    assert count <= 6
    infer.in_order(rows)
    assert len(logged) == count


def test_answers_are_masked_at_padding():
    def unmasked(params: Any, batch: dict[str, Any]) -> Any:
        return (1 - batch["p_mask"]).sum(-1) * params

    rows = [{"p_mask": np.arange(length, dtype=np.int32) % 2} for length in (3, 17, 40)]
    mesh = make_mesh(devices=jax.devices()[:1])
    infer = Inference(unmasked, jnp.int32(1), max_length=40, mesh=mesh, log=lambda _: None)
    assert [int(found) for found in infer.in_order(rows)] == [2, 9, 20]


def compiled_shapes(lengths: list[int], tokens_per_batch: int) -> list[str]:
    logged: list[str] = []
    make(logged, tokens_per_batch=tokens_per_batch).in_order(rows_of(lengths))
    return [line.removeprefix("compiled for ").rpartition(" in ")[0] for line in logged]


def test_batches_are_full_but_that_of_the_shortest_rows():
    assert compiled_shapes([10, 12, 3], 128) == ["3 rows of 16 tokens"]
    assert compiled_shapes([10, 12, 3, 20], 128) == ["4 rows of 24 tokens"]
    assert compiled_shapes([10, 12, 3, 40], 128) == ["1 row of 8 tokens", "3 rows of 40 tokens"]
    assert compiled_shapes([1, 2, 20, 40], 2048) == ["4 rows of 40 tokens"]
    assert compiled_shapes([40] * 9, 128) == ["3 rows of 40 tokens"]
    assert compiled_shapes([12] * 35, 330) == ["3 rows of 16 tokens", "16 rows of 16 tokens"]
    assert compiled_shapes([12] * 5, 330) == ["6 rows of 16 tokens"]


def test_an_accelerator_compiles_for_fewer_lengths(monkeypatch):
    lengths, tokens = list(range(1, 41)), 80
    on_cpu = compiled_shapes(lengths, tokens)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    on_gpu = compiled_shapes(lengths, tokens)
    assert [shape.split()[3] for shape in on_cpu] == ["8", "16", "24", "32", "40"]
    assert [shape.split()[3] for shape in on_gpu] == ["16", "24", "32", "40"]


def test_short_rows_come_first():
    numbers = [number for number, _ in make([])(rows_of([40, 20, 4, 30, 16]))]
    assert numbers == [2, 4, 1, 3, 0]
    assert list(make([])([])) == []


def test_the_next_batch_is_computed_while_the_last_is_read(monkeypatch):
    infer = make([], tokens_per_batch=8)
    seen: list[str] = []
    run = infer._run
    monkeypatch.setattr(infer, "_run", lambda batch: (seen.append("started"), run(batch))[1])
    for number, _ in infer(rows_of([4, 4, 4])):
        seen.append(f"read {number}")
    assert seen == ["started", "started", "read 0", "started", "read 1", "read 2"]


def test_choices_of_a_row_keep_their_axis():
    random = np.random.default_rng(0)
    rows = [{"input_ids": random.integers(1, 9, (3, length))} for length in (4, 20, 16)]

    def first(params: Any, batch: dict[str, Any]) -> Any:
        return batch["input_ids"].sum(-1) * params

    infer = Inference(first, jnp.int32(1), max_length=32, log=[].append)
    for sums, row in zip(infer.in_order(rows), rows, strict=True):
        assert sums.tolist() == row["input_ids"].sum(-1).tolist()


def test_rows_that_are_too_long_are_rejected():
    with pytest.raises(ValueError, match="row 1 has 41 tokens, at most 40 fit"):
        make([]).in_order(rows_of([4, 41]))
