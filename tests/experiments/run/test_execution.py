"""The execution of a run, resolved for devices that this machine does not have."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from echoes import make_experiment, write_echoes

from albert_jax.attention.dispatch import Attention
from albert_jax.attention.implementation import AttentionWorkload
from albert_jax.config import AlbertConfig
from albert_jax.settings import FieldError
from albert_jax.training.parallel import make_mesh
from data_pipeline.corpus.reader import open_corpus
from experiments.benchmarks.batches import Batches
from experiments.benchmarks.step import sequence_slots
from experiments.run import execution
from experiments.run.config import ExperimentConfig, RunConfig, TrainingRunConfig
from experiments.run.curriculum import Curriculum

CONFIG = AlbertConfig(attention_probs_dropout_prob=0.0)


@pytest.mark.parametrize(
    ("chosen", "packed", "slots", "words"),
    [
        (Attention.CUDNN, True, 2, ", 2 sequence slots a row"),
        (Attention.XLA, True, None, "sequence_slots=2 is for cudnn on packed rows: not used"),
        (Attention.CUDNN, False, None, "sequence_slots=2 is for cudnn on packed rows: not used"),
    ],
)
def test_slots_are_for_packed_rows_under_cudnn(
    monkeypatch: pytest.MonkeyPatch,
    chosen: Attention,
    packed: bool,
    slots: int | None,
    words: str,
) -> None:
    workloads = []

    def choose(wanted: Attention, workload: AttentionWorkload) -> tuple[Attention, str]:
        workloads.append(workload)
        return chosen, str(wanted)

    monkeypatch.setattr(execution, "choose_attention", choose)
    mesh = make_mesh(devices=jax.devices()[:1])
    resolved, line = execution.resolve_execution(
        TrainingRunConfig(), CONFIG, mesh, lengths=[512], packed=packed, sequence_slots=2
    )
    assert resolved.sequence_slots == slots
    assert line.endswith(words)
    assert workloads[0].slotted is packed  # what the verification covers


@pytest.mark.parametrize(
    "settings",
    [
        {"sequence_slots": 1},
        {"sequence_slots": -1},
        {"sequence_slots": 2, "tensor": 2},
        {"sequence_slots": 2, "accumulation_steps": 0},
    ],
)
def test_impossible_slots_are_rejected(settings: dict[str, int]) -> None:
    with pytest.raises(FieldError, match=r"^sequence_slots must be"):
        RunConfig(**settings)
    RunConfig(sequence_slots=2)


def test_a_batch_with_more_sequences_than_slots_is_rejected_in_words(tmp_path: Path) -> None:
    corpus = write_echoes(tmp_path / "corpus")
    config = make_experiment(corpus, num_train_steps=20, accumulation_steps=2)
    mesh = make_mesh(devices=jax.devices()[:2])

    def read(slots: int | None) -> list[Any]:
        batches = Curriculum(open_corpus(corpus), config, mesh, sequence_slots=slots).batches(0)
        return list(itertools.islice(batches, 4))

    ids = np.stack([batch.sequence_ids for batch in read(None)])
    runs = (np.diff(ids, axis=-1) != 0).sum(-1) + 1
    # Rows of a batch by device, then by micro-batch: rows 0, 2, ... and 1, 3, ... of each device.
    needed = int(np.ceil(runs.reshape(4, 2, -1, 2).mean(axis=2).max()))
    assert len(read(needed)) == 4
    message = rf"run.sequence_slots must be at least {needed} for .* got {needed - 1}"
    assert needed > 2, "the example needs more than the fewest slots"
    with pytest.raises(FieldError, match=message):
        read(needed - 1)


def test_the_benchmark_finds_the_slots_of_its_batches() -> None:
    ids = np.array([[1, 2, 3, 0], [1, 1, 2, 2]])
    batches = Batches([{"sequence_ids": ids}], "test")
    config = ExperimentConfig()
    gpu: Any = SimpleNamespace(
        devices=np.array([SimpleNamespace(platform="gpu")]), shape={"tensor": 1}, size=1
    )
    assert sequence_slots(config, gpu, batches) == 3
    assert sequence_slots(config, make_mesh(devices=jax.devices()[:1]), batches) == 0
    gpu.shape = {"tensor": 2}
    assert sequence_slots(config, gpu, batches) == 0
