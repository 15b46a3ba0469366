"""Runs in phases: their batches from any step on, and resuming in each phase."""

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from commands import assert_same_params
from echoes import SPECIAL, WORDS, make_experiment, with_part, write_echoes
from short_runs import use_one_device
from tiny_corpora import write_corpus

from albert_jax.devices.mesh import make_mesh
from albert_jax.settings import FieldError
from albert_jax.training.checkpoint import restore_params
from albert_jax.training.config import OptimizerName, ScheduleName
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.errors import InputError
from data_pipeline.pretraining.dataset import PretrainingDataset
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer
from experiments.cli.exit_codes import ExitCode
from experiments.converting import read_provenance
from experiments.metrics.metrics_file import read_metrics
from experiments.pretrain import pretrain
from experiments.run.config import ExperimentConfig, PhaseConfig, PhasesConfig
from experiments.run.curriculum import Curriculum, mean_flops_per_row, phases_of

FIRST = PhaseConfig(num_steps=4, max_seq_length=16, max_predictions_per_seq=2, global_batch_size=24)
SECOND = PhaseConfig(num_steps=3, max_seq_length=24, max_predictions_per_seq=4)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_echoes(tmp_path_factory.mktemp("echoes") / "corpus")


def make_config(corpus: Path, first: PhaseConfig, second: PhaseConfig, **run: Any) -> Any:
    config = make_experiment(corpus, num_train_steps=12, **run)
    optimizer = dataclasses.replace(config.optimizer, num_warmup_steps=2, average_decay=0.9)
    return dataclasses.replace(config, optimizer=optimizer, phases=PhasesConfig(first, second))


def test_phases_follow_one_another_and_the_last_is_the_run_s_own(corpus: Path) -> None:
    config = make_config(corpus, FIRST, SECOND)
    phases = phases_of(config)
    assert [(phase.begin, phase.end) for phase in phases] == [(0, 4), (4, 7), (7, 12)]
    assert [phase.data.max_seq_length for phase in phases] == [16, 24, 32]
    assert [phase.global_batch_size for phase in phases] == [24, 16, 16]
    assert phases[-1].data == config.data
    more = dataclasses.replace(FIRST, masked_lm_prob=0.5)
    rates = [p.data.masked_lm_prob for p in phases_of(make_config(corpus, more, SECOND))]
    assert rates == [0.5, config.data.masked_lm_prob, config.data.masked_lm_prob]
    assert phases[-1].seed == config.seed
    assert len({phase.seed for phase in phases}) == 3
    only_second = phases_of(make_config(corpus, PhaseConfig(), SECOND))
    assert [(phase.begin, phase.end) for phase in only_second] == [(0, 3), (3, 12)]
    alone = phases_of(make_config(corpus, PhaseConfig(), PhaseConfig()))
    assert [(phase.begin, phase.end) for phase in alone] == [(0, 12)]
    # 96 rows, 48 and 80.
    flops = [mean_flops_per_row(config, [phase]) for phase in phases]
    mean = (96 * flops[0] + 48 * flops[1] + 80 * flops[2]) / 224
    assert mean_flops_per_row(config, phases) == round(mean)


def test_the_batch_of_a_step_is_the_same_from_wherever_it_is_read(corpus: Path) -> None:
    config = make_config(corpus, FIRST, SECOND)
    mesh = make_mesh(devices=jax.devices()[:1])
    curriculum = Curriculum(open_corpus(corpus), config, mesh)
    whole = list(itertools.islice(curriculum.batches(0), 14))
    assert [batch.input_ids.shape for batch in whole] == (
        [(24, 16)] * 4 + [(16, 24)] * 3 + [(16, 32)] * 7  # the last phase goes on
    )
    for start in (1, 4, 5, 7, 11):
        for batch, again in zip(whole[start:], curriculum.batches(start), strict=False):
            for array, expected in zip(batch, again, strict=True):
                np.testing.assert_array_equal(array, expected)
    plain = PretrainingDataset(
        open_corpus(corpus), config.data, seed=config.seed, global_batch_size=16
    )
    np.testing.assert_array_equal(
        whole[7].input_ids, next(plain.batches(start_step=0))["input_ids"]
    )
    assert [curriculum.phase_of(step) for step in (0, 3, 4, 6, 7, 11, 99)] == [0, 0, 1, 1, 2, 2, 2]


def make_decay(corpus: Path, decay_corpus: Path, *, steps: int = 12, **run: Any) -> Any:
    """Return an experiment whose last quarter is a decay on another corpus."""
    config = make_experiment(corpus, num_train_steps=steps, **run)
    stable = ScheduleName.WARMUP_STABLE_DECAY
    config = with_part(config, "optimizer", schedule=stable, decay_share=0.25, num_warmup_steps=2)
    return with_part(config, "data", decay_corpus_dir=str(decay_corpus))


@pytest.fixture(scope="module")
def decay_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of the same vocabulary, and of longer documents."""
    return write_echoes(tmp_path_factory.mktemp("decay") / "corpus", documents=200, seed=8)


def test_the_decay_reads_a_corpus_of_its_own_from_any_step(
    corpus: Path, decay_corpus: Path
) -> None:
    config, mesh = make_decay(corpus, decay_corpus), make_mesh(devices=jax.devices()[:1])
    phases = phases_of(config)
    assert [(phase.begin, phase.end, phase.decays) for phase in phases] == [
        (0, 9, False),
        (9, 12, True),
    ]
    curriculum = Curriculum(open_corpus(corpus), config, mesh)
    whole = list(itertools.islice(curriculum.batches(0), 14))
    for start in (8, 9, 10, 13):
        for batch, again in zip(whole[start:], curriculum.batches(start), strict=False):
            jax.tree.map(np.testing.assert_array_equal, batch, again)
    for begin, path, seed in ((0, corpus, config.seed), (9, decay_corpus, config.seed + 1)):
        alone = PretrainingDataset(open_corpus(path), config.data, seed=seed, global_batch_size=16)
        with alone.batches(start_step=0) as batches:
            for batch, expected in zip(whole[begin : begin + 3], batches, strict=False):
                np.testing.assert_array_equal(batch.input_ids, expected["input_ids"])
    assert curriculum.num_shapes == 1
    coverage, of_decay = curriculum.describe_coverage()[:2]
    assert "an epoch of rows of 32 reads" in coverage
    assert of_decay == f"the decay, from step 10 to 12, reads {decay_corpus}"
    three = phases_of(dataclasses.replace(config, phases=PhasesConfig(FIRST)))
    assert [(phase.begin, phase.end) for phase in three] == [(0, 4), (4, 9), (9, 12)]
    assert len({phase.seed for phase in three}) == 3


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (
            "optimizer",
            {"schedule": ScheduleName.POLY},
            "optimizer.schedule must be warmup_stable_decay with data.decay_corpus_dir=.*, got "
            "'poly'",
        ),
        (
            "optimizer",
            {"decay_share": 0.0},
            "optimizer.decay_share must be above 0 with data.decay_corpus_dir=.*, got 0.0",
        ),
        (
            "data",
            {"records_dir": "records"},
            "data.decay_corpus_dir must be empty with data.records_dir, got '.*'",
        ),
        (
            "phases",
            {"first": dataclasses.replace(FIRST, num_steps=9)},
            "optimizer.num_train_steps must be more than 9 of the phases and 3 of the decay, got "
            "12",
        ),
    ],
)
def test_a_decay_that_cannot_be_is_named(
    corpus: Path, decay_corpus: Path, part: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FieldError, match=f"^{message}$"):
        with_part(make_decay(corpus, decay_corpus), part, **changes)


def test_the_corpus_of_a_decay_has_the_run_s_tokenizer(corpus: Path, tmp_path: Path) -> None:
    other = write_echoes(tmp_path / "other", words=7, documents=20)
    config = make_decay(corpus, other)
    with pytest.raises(InputError, match=f"={other} was encoded with another tokenizer than --"):
        Curriculum(open_corpus(corpus), config, make_mesh(devices=jax.devices()[:1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 12}, "optimizer.num_train_steps must be more than the 12 of the phases"),
        ({"num_steps": -1}, "num_steps must be a whole number >= 0, got -1"),
        ({"max_seq_length": 64}, "phases.first.max_seq_length must be at most .*, got 64"),
        (
            {"max_predictions_per_seq": 20},
            r"phases.first.max_predictions_per_seq must be at most max_seq_length \(16\), got 20",
        ),
        (
            {"global_batch_size": 3},
            "phases.first.global_batch_size must be a multiple of .*, got 3",
        ),
    ],
)
def test_a_phase_that_cannot_be_is_named(
    corpus: Path, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(FieldError, match=f"^{message}"):
        make_config(
            corpus, dataclasses.replace(FIRST, **changes), PhaseConfig(), accumulation_steps=2
        )


@pytest.fixture
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_device(monkeypatch)


def forget_after(step: int, whole: Path, stopped: Path) -> None:
    """Copy a workdir without the checkpoints after a step."""
    shutil.copytree(whole, stopped)
    for later in stopped.glob("checkpoints/[0-9]*"):
        if int(later.name) > step:
            shutil.rmtree(later)
    (stopped / "checkpoints/best").unlink(missing_ok=True)


@pytest.mark.slow
def test_a_run_stopped_in_any_phase_ends_as_if_it_had_not_been(
    corpus: Path, tmp_path: Path, one_device: None, capsys: pytest.CaptureFixture[str]
) -> None:
    every = {"checkpoint_every": 3, "log_every": 1, "keep_checkpoints": 9}
    config: ExperimentConfig = make_config(corpus, FIRST, SECOND, **every)
    whole = tmp_path / "whole"
    assert pretrain(config, whole) is ExitCode.DONE
    said = capsys.readouterr().err
    assert "3 shapes of batches, 12 steps to go" in said
    assert said.count("compiled in") == 3
    for length in (16, 24, 32):
        assert f"an epoch of rows of {length} reads " in said
    rows = [
        round(e["rows_per_second"] * e["seconds_per_step"])
        for e in read_metrics(whole)
        if e["split"] == "train"
    ]
    assert rows == [24] * 4 + [16] * 8
    stopped = tmp_path / "stopped"
    forget_after(3, whole, stopped)  # a step before the first phase ends
    assert pretrain(config, stopped) is ExitCode.DONE
    assert_same_params(stopped, whole)
    last, mean = (
        restore_params(whole / "checkpoints", average=average) for average in (False, True)
    )
    again = restore_params(stopped / "checkpoints", average=False)
    jax.tree.map(np.testing.assert_array_equal, again, last)
    assert not np.array_equal(*(tree["predictions"]["bias"] for tree in (last, mean)))


@pytest.mark.slow
def test_a_run_killed_around_its_decay_ends_as_if_it_had_not_been(
    corpus: Path, decay_corpus: Path, tmp_path: Path, one_device: None
) -> None:
    """Resumed from the step before the decay, its first one and its second."""
    every = {"checkpoint_every": 1, "log_every": 1, "keep_checkpoints": 20}
    config = make_decay(corpus, decay_corpus, **every)
    whole = tmp_path / "whole"
    assert pretrain(config, whole) is ExitCode.DONE
    for step in (8, 9, 10):
        stopped = tmp_path / str(step)
        forget_after(step, whole, stopped)
        assert pretrain(config, stopped) is ExitCode.DONE
        assert_same_params(stopped, whole)
    page = (whole / "report.html").read_text()
    for steps, path in (("1 to 9", corpus), ("10 to 12", decay_corpus)):
        assert f"<td>{steps}</td><td>{path}</td>" in page
    (trained,) = [
        text for name, text in read_provenance(whole, 12).training.items() if name.endswith("decay")
    ]
    assert trained.startswith(f"{decay_corpus.name}; sources memory; fingerprint ")
    alone = tmp_path / "alone"
    assert pretrain(with_part(config, "data", decay_corpus_dir=""), alone) is ExitCode.DONE
    for step, same in ((9, True), (12, False)):
        kernels = [
            restore_params(path / "checkpoints", step)["albert"]["pooler"]["kernel"]
            for path in (whole, alone)
        ]
        assert np.array_equal(*kernels) is same


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"name": OptimizerName.SOPHIA, "curvature_every": 3},
        {
            "name": OptimizerName.SCHEDULE_FREE,
            "schedule": ScheduleName.WARMUP_STABLE_DECAY,
            "decay_share": 0.0,
        },
    ],
    ids=lambda settings: str(settings["name"]),
)
def test_a_run_that_is_resumed_has_the_same_parameters_and_the_same_mean(
    corpus: Path, tmp_path: Path, one_device: None, settings: dict[str, Any]
) -> None:
    config = make_experiment(
        corpus, num_train_steps=12, checkpoint_every=4, evaluate_every=6, keep_checkpoints=9
    )
    config = with_part(config, "optimizer", **settings, num_warmup_steps=3)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert pretrain(config, whole) is ExitCode.DONE
    forget_after(4, whole, stopped)
    assert pretrain(config, stopped) is ExitCode.DONE
    for average in (False, True):
        found, expected = (
            restore_params(path / "checkpoints", 12, average=average) for path in (stopped, whole)
        )
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
def test_rows_of_4096_come_in_a_third_phase(
    tmp_path: Path, one_device: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Documents are as long, and the model has windows and no position table."""
    generator = np.random.default_rng(3)
    vocabulary = [*SPECIAL, *(f"word{number}" for number in range(2 * WORDS))]
    splits = {
        split: [
            generator.integers(len(SPECIAL), len(vocabulary), size=(600, 10)).tolist()
            for _ in range(documents)
        ]
        for split, documents in (("train", 30), ("validation", 3))
    }
    corpus = tmp_path / "corpus"
    write_corpus(corpus, splits, WordPieceTokenizer(vocabulary))
    phases = [
        PhaseConfig(num_steps, length, max_predictions_per_seq=length // 8, global_batch_size=rows)
        for num_steps, length, rows in ((6, 128, 16), (3, 512, 4))
    ]
    config = make_experiment(
        corpus, num_train_steps=11, log_every=1, evaluation_pairs=2, evaluation_batch_size=1
    )
    windows = {"attention_window": 64, "rotary_base": 160_000.0, "num_hidden_layers": 4}
    config = with_part(config, "model", position_encoding="rotary", **windows)
    config = with_part(config, "data", max_seq_length=4096, max_predictions_per_seq=600)
    config = dataclasses.replace(config, global_batch_size=2, phases=PhasesConfig(*phases))
    assert pretrain(config, tmp_path / "run") is ExitCode.DONE
    said = capsys.readouterr().err
    assert "attention: blocked" in said
    for length in (128, 512, 4096):
        assert f"an epoch of rows of {length} reads " in said
    steps = [entry for entry in read_metrics(tmp_path / "run") if entry["split"] == "train"]
    rows = [round(one["rows_per_second"] * one["seconds_per_step"]) for one in steps]
    assert rows == [16] * 6 + [4] * 3 + [2] * 2
    assert all(np.isfinite(one["loss"]) and one["loss"] > 1 for one in steps)
