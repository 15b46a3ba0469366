"""The model of a step's time, by hand."""

import pytest

from albert_jax.config import AlbertConfig
from albert_jax.devices.collectives import Collective
from albert_jax.devices.flops import pretraining_flops_per_row, skipped_flops
from albert_jax.devices.specifications import SPECIFICATIONS, Specification
from albert_jax.encoder import Remat
from experiments.compiling.prediction import (
    StepOperations,
    predict_step,
    ring_bytes,
    step_operations,
)

MB = 10**6


@pytest.mark.parametrize(
    ("collective", "inside", "between"),
    [
        (Collective("all-reduce", ("data",), False, 0, 8 * MB, devices=4), 12, 0),
        (Collective("all-reduce", ("data",), False, 0, 8 * MB, devices=8, parts=2), 12, 2),
        (Collective("all-reduce", ("data",), False, 0, 8 * MB, devices=2, parts=2), 0, 8),
        (Collective("all-gather", ("fsdp",), True, 0, 8 * MB, times=3, devices=4), 18, 0),
        (Collective("reduce-scatter", ("fsdp",), False, 0, 2 * MB, devices=4), 6, 0),
        (Collective("send", ("data",), False, 0, 5 * MB, parts=2), 0, 5),
        (Collective("collective-permute", ("data",), False, 0, 5 * MB, devices=2), 5, 0),
        (Collective("all-reduce", (), False, 0, 8 * MB), 0, 0),
    ],
)
def test_rings_send_their_part(collective: Collective, inside: float, between: float) -> None:
    assert ring_bytes(collective) == (pytest.approx(inside * MB), pytest.approx(between * MB))


def test_the_four_terms_add_up() -> None:
    known = Specification(1e15, 10**11, 1e12, 1e11, 1e10)
    operations = StepOperations(dense=7.3e14, attention=1.9e13, counted=7.49e14)
    collectives = [
        Collective("all-reduce", ("data",), False, 0, 10**9, devices=2),
        Collective("send", ("data",), False, 0, 10**8, parts=2),
    ]
    time = predict_step(operations, 47 * 10**9, collectives, known)
    assert time is not None
    assert time == pytest.approx((1.0, 0.1, 0.1, 0.02, 0.02))
    assert time.total == pytest.approx(1.24)
    assert predict_step(operations, 0, [], Specification(1e15)) is None, "a figure is missing"


def test_what_is_computed_again_takes_time_and_is_not_counted() -> None:
    model, row = AlbertConfig.from_name("base_v2"), {"length": 512, "predictions": 77, "pairs": 1}
    none, dots, full = (
        step_operations(model, remat, rows=256, devices=8, **row) for remat in Remat
    )
    assert none.counted == 32 * pretraining_flops_per_row(model, **row) == dots.counted
    assert none.counted == pytest.approx(none.dense + none.attention)
    assert none.attention == pytest.approx(32 * 12 * 12 * 512**2 * 768)
    assert (dots.dense, full.dense) == pytest.approx((none.dense, 4 / 3 * none.dense))
    assert dots.attention == full.attention == pytest.approx(4 / 3 * none.attention)


def test_base_on_an_h200_is_what_was_measured() -> None:
    """By the profile that the model's fractions come from: 87.2 ms, 45.6 GB between matmuls.

    That step computed all positions of the last layer, also those that nothing reads.
    """
    model = AlbertConfig.from_name("base_v2")
    work = step_operations(
        model, Remat.NONE, rows=128, devices=1, length=512, predictions=77, pairs=16
    )
    every = 128 * 3 * skipped_flops(model, length=512, chosen=77 + 16)
    work = work._replace(dense=work.dense + every)
    time = predict_step(work, int(45.6e9), [], SPECIFICATIONS["NVIDIA H200"])
    assert time is not None
    assert 1e3 * time.total == pytest.approx(87.2, rel=0.02)
