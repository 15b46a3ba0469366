"""A run from beginning to end: it learns, it stops and goes on, it refuses what does not fit."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import assert_same_params, start, stopped_after
from echoes import WORDS, make_experiment, with_part, write_echoes
from etils import epath
from short_runs import draw_nothing, use_one_device

from albert_jax.devices.compile_cache import cache_counts
from albert_jax.devices.mesh import make_mesh
from albert_jax.model import AlbertForPreTraining, AlbertModel
from albert_jax.settings import FieldError
from albert_jax.training.checkpoint import restore_params
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.errors import InputError
from data_pipeline.locks import lock
from data_pipeline.pretraining.records import RecordDataset
from data_pipeline.pretraining.tfrecord import import_records
from experiments.cli.command import call
from experiments.cli.exit_codes import ExitCode
from experiments.export_records import export_records
from experiments.goodput import read_attempts, summarize
from experiments.metrics.metrics_file import METRICS_FILE, read_metrics
from experiments.pages.samples import read_samples
from experiments.pretrain import _initial_parameters, pretrain
from experiments.run import execution
from experiments.run import training as training_run
from experiments.run.config import ExperimentConfig, InitEmbeddings, InitGroups
from experiments.run.curriculum import Curriculum
from experiments.run.initial_parameters import open_initial_weights, read_initial_parameters
from experiments.run.resumption import DataIdentity
from experiments.run.workdir import open_pretraining_workdir

STEPS = 60


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_echoes(tmp_path_factory.mktemp("echoes") / "corpus")


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        use_one_device(patch)
        yield


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip pictures and samples, which take a while; `finished` is made before this applies."""
    draw_nothing(monkeypatch)


def make_config(corpus: Path, **run: Any) -> ExperimentConfig:
    run = {"evaluate_every": 30, "checkpoint_every": 20} | run
    return make_experiment(corpus, num_train_steps=STEPS, **run)


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, whose workdir is named relative to the current directory."""
    runs = tmp_path_factory.mktemp("runs")
    with contextlib.chdir(runs):
        assert pretrain(make_config(corpus), "finished") is ExitCode.DONE
    return runs / "finished"


def test_a_run_learns_to_read(finished: Path) -> None:
    figures = [e for e in read_metrics(finished) if e["split"] == "validation"][-1]
    assert figures["masked_lm_accuracy"] > 0.5  # chance: 1 of 16
    assert figures["context_gap"] > 0.5
    assert figures["sentence_order_accuracy"] > 0.8


def test_a_workdir_holds_what_reading_it_takes(corpus: Path, finished: Path) -> None:
    files = ("config.json", "albert_config.json", "tokenizer/vocab.txt", "curves.png")
    for name in (*files, "report.html", "trackers.json"):
        assert (finished / name).stat().st_size, name
    assert list(finished.glob("events.out.tfevents.*"))
    assert json.loads((finished / "albert_config.json").read_text())["hidden_size"] == 32
    steps = sorted(int(path.name) for path in finished.glob("checkpoints/[0-9]*"))
    assert steps == [20, 40, 60]
    assert all((finished / f"checkpoints/{step}/manifest.json").exists() for step in steps)
    assert (finished / "checkpoints/best").read_text() == "60\n"
    told = [(e["step"], e["split"]) for e in read_metrics(finished)]
    assert told == [
        (step, split)
        for step in range(10, STEPS + 1, 10)
        for split in ("train", *(["validation", "goodput"] if step % 30 == 0 else []))
    ]
    (attempt,) = read_attempts(finished)
    assert (attempt.first_step, attempt.last_step, attempt.ended) == (0, STEPS, "done")
    assert attempt.seconds["other"] < 0.1 * attempt.wall_seconds
    assert all(attempt.seconds[name] > 0 for name in ("stepping", "compiling", "evaluating"))
    page = (finished / "report.html").read_text()
    assert 'class="bar"' in page and 'title="stepping: ' in page
    assert pretrain(make_config(corpus), finished) is ExitCode.DONE  # nothing is left to do
    assert read_attempts(finished) == [attempt]
    assert [(e["step"], e["split"]) for e in read_metrics(finished)] == told


def test_the_report_shows_gaps_that_the_model_fills(finished: Path) -> None:
    step, samples = read_samples(epath.Path(finished))
    assert (step, len(samples)) == (STEPS, 6)
    gaps = [token for sample in samples for token in sample if token.candidates]
    assert len(gaps) >= 12
    right = sum(gap.candidates[0][0] == gap.text for gap in gaps)
    assert right / len(gaps) > 0.5  # chance: 1 of 16
    for gap in gaps:
        chances = [chance for _, chance in gap.candidates]
        assert len(chances) == 4 and chances == sorted(chances, reverse=True)
    assert (finished / "report.html").read_text().count('class="gap ') == len(gaps)


def test_sigterm_saves_and_the_same_command_goes_on(
    corpus: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place_batch, placed = training_run.place_batch, []

    def place_and_signal(*args: Any) -> Any:
        placed.append(None)
        if len(placed) == 27:
            os.kill(os.getpid(), signal.SIGTERM)
        return place_batch(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "place_batch", place_and_signal)
        assert pretrain(make_config(corpus), tmp_path) is ExitCode.PREEMPTED
    stopped = max(int(path.name) for path in tmp_path.glob("checkpoints/[0-9]*"))
    assert 20 < stopped < 30
    assert (
        f"stopped and saved at step {stopped}; the same command resumes the run"
        in capsys.readouterr().err
    )
    assert pretrain(make_config(corpus, log_every=5), tmp_path) is ExitCode.DONE
    first, second = read_attempts(tmp_path)
    assert (first.ended, second.ended, second.first_step) == ("stopped", "done", stopped)
    assert summarize([first, second]).lost_steps == 0
    assert "changed since the last start: run.log_every from 10 to 5" in capsys.readouterr().err
    assert_same_params(tmp_path, finished)


def test_a_second_start_compiles_nothing(
    corpus: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jax.clear_caches()  # as in a process that has just started
    before = cache_counts()
    with stopped_after(3):
        assert pretrain(make_config(corpus), tmp_path) is ExitCode.PREEMPTED
    assert cache_counts().since(before).all_found
    assert re.search(r"compiled in [\d.]+ s \(from the cache\): ", capsys.readouterr().err)


def test_a_step_that_is_not_finite_stops_the_run(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(corpus, checkpoint_every=1)
    config = with_part(config, "optimizer", learning_rate=1e30, num_warmup_steps=0)
    assert call(lambda: pretrain(config, tmp_path)) is ExitCode.NON_FINITE
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line == (
        "error: step 2 has a loss or gradients that are not finite; "
        "the last good checkpoint is step 1"
    )
    saved = jax.tree.leaves(restore_params(tmp_path / "checkpoints"))
    assert all(np.isfinite(leaf).all() for leaf in saved)


def snapshot(directory: Path) -> dict[str, bytes]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("model", {"vocab_size": 99}, "has a vocabulary of 21 tokens, --config.model.vocab_size"),
        ("model", {"hidden_size": 64}, "holds another experiment: model.hidden_size was 32 and is"),
        ("run", {"fsdp": 16}, "run.fsdp (16) times run.tensor (1) must divide the 8 devices"),
        ("run", {"accumulation_steps": 4}, "batch of 4 rows must be a multiple of 8"),
        ("run", {"evaluation_batch_size": 9}, "evaluation_batch_size: the global batch of 9 rows"),
        ("data", {"corpus_dir": "nowhere"}, "nowhere is not a corpus"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line_and_changes_nothing(
    corpus: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    part: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(execution, "make_mesh", make_mesh)
    config = with_part(make_config(corpus), part, **changes)
    before = snapshot(finished)
    assert call(lambda: pretrain(config, finished)) is ExitCode.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert snapshot(finished) == before


def test_another_directory_and_another_corpus_are_refused(
    corpus: Path, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(FieldError, match=r"max_seq_length must be at most .*\(16\), got 32"):
        with_part(make_config(corpus), "model", max_position_embeddings=16)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        pretrain(make_config(corpus), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    other = write_echoes(tmp_path / "other", documents=500)
    with pytest.raises(InputError, match="was trained on another corpus"):
        pretrain(make_config(other), finished)


def test_a_run_killed_in_its_first_moments_is_taken_up(corpus: Path, tmp_path: Path) -> None:
    config = make_config(corpus, checkpoint_every=1, evaluate_every=1)
    opened = open_corpus(corpus)
    identity = DataIdentity("corpus", "--config.data.corpus_dir", str(corpus), "0" * 64)
    for left_behind in ([".config.json.x1y2"], ["config.json"], ["config.json", "corpus.json"]):
        workdir = tmp_path / str(len(list(tmp_path.iterdir())))
        with open_pretraining_workdir(workdir, config, opened, identity):
            pass
        (workdir / ".config.json.x1y2").touch()
        for path in set(workdir.iterdir()) - {workdir / name for name in left_behind}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with open_pretraining_workdir(workdir, config, opened, identity):
            pass
        assert (workdir / "tokenizer/vocab.txt").exists()


def copy_of(finished: Path, place: Path) -> Path:
    shutil.copytree(finished, place / "run")
    return place / "run"


def test_a_second_run_in_one_workdir_is_refused(
    corpus: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = copy_of(finished, tmp_path)
    with lock(workdir, "run"):
        before = snapshot(workdir)
        assert call(lambda: pretrain(make_config(corpus), workdir)) is ExitCode.BAD_INPUT
        assert snapshot(workdir) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{workdir} is in use by another run (host " in line
    assert f"process {os.getpid()}, since 20" in line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("corpus.json", b"", "corpus.json: this is not JSON: Expecting value"),
        ("corpus.json", b"\0" * 99, "restore it, or delete it if --config.data.corpus_dir="),
        ("corpus.json", b"\xff", "corpus.json is not UTF-8"),
        ("corpus.json", b"[1]", "corpus.json must be a JSON object, got [1]"),
        ("config.json", b"", "config.json: this is not JSON: Expecting value"),
        ("config.json", b"\0" * 99, "config.json: this is not JSON: Expecting value"),
        ("config.json", b"\xff\xfe", "config.json is not UTF-8"),
        ("config.json", b"[1]", "config.json"),
        ("config.json", b'{"model": 7}', "config.json"),
    ],
)
def test_a_damaged_small_file_is_named_in_one_line(
    corpus: Path,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes,
    message: str,
) -> None:
    workdir = copy_of(finished, tmp_path)
    (workdir / name).write_bytes(content)
    before = snapshot(workdir)
    assert call(lambda: pretrain(make_config(corpus), workdir)) is ExitCode.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert str(workdir / name) in line
    assert message in line
    assert snapshot(workdir) == before


def test_damaged_metrics_and_a_damaged_mark_of_the_best_do_not_stop_a_resume(
    corpus: Path, finished: Path, tmp_path: Path
) -> None:
    workdir = copy_of(finished, tmp_path)
    lines = (workdir / METRICS_FILE).read_bytes().splitlines(keepends=True)
    (workdir / METRICS_FILE).write_bytes(lines[0] + b"\0" * 512 + b"".join(lines[1:]))
    (workdir / "checkpoints/best").write_bytes(b"\xff")
    assert pretrain(make_config(corpus), workdir) is ExitCode.DONE
    assert (workdir / METRICS_FILE).read_bytes() == b"".join([lines[0], *lines[2:]])
    assert (workdir / "checkpoints/best").read_text() == "60\n"


def test_a_run_cannot_be_made_shorter_than_it_is(
    corpus: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(corpus, change_num_train_steps=True)
    config = with_part(config, "optimizer", num_train_steps=50)
    before = snapshot(finished)
    assert call(lambda: pretrain(config, finished)) is ExitCode.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert "was trained for 60 steps already, --config.optimizer.num_train_steps=50 are" in line
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    ("workdir", "message"),
    [
        ("/dev/null/run", "Not a directory: '/dev/null/run'"),
        ("/proc/run", "/proc/run"),
        ("foo://bucket/run", "foo://bucket/run cannot be reached: no file system for foo://"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_place_that_cannot_be_is_told_in_one_line(
    corpus: Path, capsys: pytest.CaptureFixture[str], workdir: str, message: str
) -> None:
    assert call(lambda: pretrain(make_config(corpus), workdir)) is ExitCode.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def warm_start(
    corpus: Path, init_from: Path, groups: InitGroups = InitGroups.SAME, **changes: Any
) -> Any:
    """The parameters for a model like that of the corpus's runs, with changes."""
    model = AlbertForPreTraining(with_part(make_config(corpus), "model", **changes).model)
    shapes = jax.eval_shape(model.initialize, jax.random.key(0))
    stored = open_initial_weights(str(init_from))
    params = read_initial_parameters(stored, model, seed=7, groups=groups)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    return params


def test_a_run_starts_from_another_s_parameters(corpus: Path, finished: Path) -> None:
    stored = restore_params(finished / "checkpoints")
    deeper = warm_start(corpus, finished, num_hidden_layers=5)
    jax.tree.map(np.testing.assert_array_equal, deeper, stored)
    early = warm_start(corpus, finished / "checkpoints/20")
    jax.tree.map(np.testing.assert_array_equal, early, restore_params(finished / "checkpoints", 20))
    filled = warm_start(corpus, finished, InitGroups.FROM_FIRST, num_hidden_groups=2)
    for params in (stored, filled):
        kernel = params["albert"]["encoder"]["layers"]["attention"]["query"]["kernel"]
        assert (
            kernel == stored["albert"]["encoder"]["layers"]["attention"]["query"]["kernel"]
        ).all()
    assert kernel.shape[0] == 2
    with pytest.raises(InputError, match=r"does not fit .* has shape \(1, 1, 32\), the model has"):
        warm_start(corpus, finished, num_hidden_groups=2)
    with pytest.raises(
        InputError, match=r"embedding_hidden_mapping_in/bias is not a parameter of the model"
    ):
        warm_start(corpus, finished, embedding_size=32)


def test_a_run_starts_from_any_stored_model(
    corpus: Path, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = restore_params(finished / "checkpoints")
    config = make_config(corpus).model
    AlbertForPreTraining(config).save_pretrained(tmp_path / "whole", stored)
    jax.tree.map(np.testing.assert_array_equal, warm_start(corpus, tmp_path / "whole"), stored)
    assert not caplog.records

    headless = {name: stored["albert"][name] for name in ("embeddings", "encoder", "pooler")}
    AlbertModel(config).save_pretrained(tmp_path / "encoder", headless)
    params = warm_start(corpus, tmp_path / "encoder")
    jax.tree.map(np.testing.assert_array_equal, params["albert"], stored["albert"])
    assert "seed 7: predictions/bias, predictions/dense/bias, " in caplog.text
    assert ", sop_classifier/kernel" in caplog.text
    fresh = jax.jit(AlbertForPreTraining(config).initialize)(jax.random.key(7))
    jax.tree.map(np.testing.assert_array_equal, params["predictions"], fresh["predictions"])

    with pytest.raises(InputError) as error:
        warm_start(
            corpus, tmp_path / "whole", num_attention_heads=1, hidden_act="relu", vocab_size=30
        )
    for fault in (
        f"--config.run.init_from={tmp_path}/whole does not fit the model: ",
        f"num_attention_heads is {config.num_attention_heads} there",
        "hidden_act is gelu there, model.hidden_act is relu",
        "word_embeddings/embedding has shape",
    ):
        assert fault in str(error.value)
    with pytest.raises(InputError, match=r"--config\.run\.init_from=.*: there is no .*nowhere"):
        warm_start(corpus, tmp_path / "nowhere")


def test_another_vocabulary_is_refused_or_initialized(
    corpus: Path, finished: Path, tmp_path: Path
) -> None:
    """The same tokens under other ids."""
    other = shutil.copytree(finished, tmp_path / "other")
    *first, last, before = (other / "tokenizer/vocab.txt").read_text().splitlines()
    (other / "tokenizer/vocab.txt").write_text("\n".join([*first, before, last]) + "\n")
    config = make_config(corpus, init_from=str(other))
    with pytest.raises(InputError, match=f"another vocabulary than corpus {corpus}: 2 of 21 ids"):
        pretrain(config, tmp_path / "run")
    config = with_part(config, "run", init_embeddings=InitEmbeddings.FRESH)
    read = _initial_parameters(config, AlbertForPreTraining(config.model), open_corpus(corpus))
    assert read is not None
    params, stored = read(), restore_params(finished / "checkpoints")
    embeddings = params["albert"]["embeddings"].pop("word_embeddings")["embedding"]
    assert not np.allclose(
        embeddings, stored["albert"]["embeddings"].pop("word_embeddings")["embedding"]
    )
    assert not params["predictions"].pop("bias").any()
    del stored["predictions"]["bias"]
    jax.tree.map(np.testing.assert_array_equal, params, stored)


def test_a_dry_run_prints_the_size_and_writes_nothing(
    corpus: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, lines = make_config(corpus), ["what followed"]
    assert pretrain(config, tmp_path / "run", lines, dry_run=True) is ExitCode.DONE
    said = capsys.readouterr().out.splitlines()
    leaves = jax.tree.leaves(restore_params(finished / "checkpoints"))
    parameters = sum(leaf.size for leaf in leaves)
    assert said[0] == "what followed" and said[1].startswith("attention: ")
    assert said[-1].startswith(f"{parameters:,} parameters, ")
    assert said[-1].endswith(" GFLOP a step, 60 steps; the last are of 16 rows of 32")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="holds another experiment: seed was"):
        pretrain(dataclasses.replace(config, seed=1), finished, dry_run=True)


def test_the_command_tells_a_mistake_in_one_line(corpus: Path, tmp_path: Path) -> None:
    process = start(corpus, tmp_path / "run", f"--config.model.vocab_size={WORDS}")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == ExitCode.BAD_INPUT
    assert errors.splitlines() == [  # TensorFlow is silent, too
        f"error: --config.data.corpus_dir={corpus} has a vocabulary of 21 tokens, "
        "--config.model.vocab_size is 8: leave it out, and the model has the corpus's"
    ]
    assert not (tmp_path / "run").exists()


def test_a_run_trains_on_imported_records(corpus: Path, tmp_path: Path) -> None:
    config = with_part(make_config(corpus), "optimizer", num_train_steps=4, num_warmup_steps=1)
    config = with_part(config, "data", packing="unpacked")
    export_records(config, [tmp_path / "a.tfrecord"], num_epochs=1)
    import_records([tmp_path / "a.tfrecord"], tmp_path / "records")
    records = with_part(config, "data", records_dir=str(tmp_path / "records"))
    workdir = tmp_path / "run"
    assert pretrain(records, workdir) is ExitCode.DONE
    assert [e["split"] for e in read_metrics(workdir)] == ["train", "validation", "goodput"]

    mesh = make_mesh(devices=jax.devices()[:1])
    batches = Curriculum(open_corpus(corpus), records, mesh)
    dataset = RecordDataset(
        tmp_path / "records",
        records.data,
        seed=records.seed,
        global_batch_size=records.global_batch_size,
    )
    expected = next(dataset.batches(start_step=3))
    batch = next(batches.batches(3))
    for name, array in expected.items():
        np.testing.assert_array_equal(getattr(batch, name), array)
    identity = {"path": str(tmp_path / "records"), "fingerprint": dataset.fingerprint}
    assert json.loads((workdir / "records.json").read_text()) == identity

    with pytest.raises(InputError, match=r"was trained on a records .*, not on --config"):
        pretrain(config, workdir)
    with pytest.raises(FieldError, match=r"data.max_seq_length must be 32, as in the records"):
        pretrain(with_part(records, "data", max_seq_length=16), tmp_path / "other")
    assert not (tmp_path / "other").exists()
