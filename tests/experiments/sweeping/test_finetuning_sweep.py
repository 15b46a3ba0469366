"""Sweeps whose points are fine-tunings: planned, refused, run, resumed and reported."""

import dataclasses
import functools
import json
import math
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_tasks
from commands import ROOT, start_sweep
from random_inputs import parameter_shapes

from albert_jax.devices.mesh import make_mesh
from data_pipeline.errors import InputError
from experiments.cli.exit_codes import ExitCode
from experiments.finetune import finetune
from experiments.metrics.curves import save_figure
from experiments.run import execution
from experiments.run import training as training_run
from experiments.run.config import ExperimentConfig
from experiments.sweep import check_flags, format_plan
from experiments.sweeping.finetuning import FINETUNING
from experiments.sweeping.plan import find_kind, plan_points
from experiments.sweeping.point_kind import PlannedPoint
from experiments.sweeping.points import expand
from experiments.sweeping.report import write_report
from experiments.sweeping.results import read_results
from experiments.sweeping.sweep import Place, Size, Sweep, SweepRow, load_sweep
from experiments.tasks.config import FinetuneConfig

# ml_collections loads a config file in a way that Python wants to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

ROWS = tuple(
    SweepRow(f"{rate:g}", {"optimizer.learning_rate": rate}, place=Place("rate", rate, "a line"))
    for rate in (5e-3, 1e-12)
)


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny model from random parameters, on texts whose label one word decides."""
    directory = tmp_path_factory.mktemp("texts")
    tokenizer = tiny_tasks.write_tokenizer(directory)
    files = tiny_tasks.write_texts(directory, {"good": "pos", "bad": "neg"})
    config = tiny_tasks.make_finetuning(FinetuneConfig().task, tokenizer, data=files)
    model = {
        f"model.{name}": getattr(config.model, name)
        for name in ("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers")
    }
    return {
        **model,
        "model.num_attention_heads": 2,
        "model.intermediate_size": 64,
        "model.initializer_range": 0.2,
        "model.max_position_embeddings": 64,
        **{f"data.{name}": path for name, path in files.items()},
        "data.tokenizer": str(tokenizer),
        "data.num_lengths": 1,
        "data.num_epochs": 3,
        "run.log_every": 10,
        "run.evaluate_every": 10,
        "run.evaluation_batch_size": 16,
        "global_batch_size": 16,
        "optimizer.schedule": "poly",
    }


def plan(
    directory: Path, overrides: dict[str, Any], rows: tuple[SweepRow, ...] = ROWS, **sweep: Any
) -> list[PlannedPoint]:
    made = Sweep("finetune/text", rows, **{"seeds": (1, 2)} | sweep)
    points = expand(made, directory, overrides)
    return plan_points(points, made, task_dirs={}, task_overrides={})


def test_a_config_file_decides_the_kind_of_points() -> None:
    assert find_kind("finetune/mnli").config is FinetuneConfig
    assert find_kind("albert_base").config is ExperimentConfig
    assert find_kind(f"{ROOT}/tests/experiments/echo_config.py").config is ExperimentConfig


def test_points_are_planned_as_fine_tunings(tmp_path: Path, overrides: dict[str, Any]) -> None:
    planned = plan(tmp_path, overrides)
    shapes = parameter_shapes(planned[0].config.model).items()
    encoder = sum(math.prod(shape) for name, shape in shapes if name[0] == "albert")
    for number, one in enumerate(planned):
        assert isinstance(one.config, FinetuneConfig)
        assert one.config.optimizer.learning_rate == (5e-3, 5e-3, 1e-12, 1e-12)[number]
        assert one.config.seed == (1, 2)[number % 2]
        assert one.parameters == one.backbone == encoder
        (command,) = one.commands
        assert command.argv[:4] == (
            "python",
            "-m",
            "experiments.finetune",
            "--config=finetune/text",
        )
        assert command.product == one.point.workdir / "report.json"
    lines = format_plan(planned).splitlines()
    size = f"{encoder:,} parameters ({encoder:,} in the backbone), 3 epochs; "
    assert lines[0] == f"  0  0.005, seed 1: {size}optimizer.learning_rate=0.005"
    counted = plan(tmp_path, overrides | {"data.num_epochs": None, "optimizer.num_train_steps": 50})
    assert "backbone), 50 steps; " in format_plan(counted)
    assert counted[0].config.optimizer.num_warmup_steps == 5  # follows


def test_decoders_of_the_sharing_sweep_have_their_parameters(
    tmp_path: Path, overrides: dict[str, Any]
) -> None:
    """Beside a base encoder, by hand: D wide, two attentions A and a feed-forward half F a layer,
    tables of words and positions."""
    base = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
    vocabulary = {"model.vocab_size": overrides["model.vocab_size"]}
    vocabulary |= {f"model.{name}": size for name, size in base.items()}
    tokenizer = {"data.tokenizer": overrides["data.tokenizer"]}
    width = 768
    attention, feed_forward = 4 * width**2 + 6 * width, 8 * width**2 + 7 * width
    halves = {
        "none": 12 * (2 * attention + feed_forward),
        "all": 2 * attention + feed_forward,
        "attention": 2 * attention + 12 * feed_forward,
        "ffn": 12 * 2 * attention + feed_forward,
        "tied": 12 * attention,
    }
    for size, (words, positions), seeds in (
        (Size.PAPER, (8000, 128), 1),
        (Size.SMALL, (4000, 64), 2),
    ):
        sweep, _ = load_sweep("decoder_sharing", size)
        points = expand(sweep, tmp_path, vocabulary | tokenizer)
        planned = plan_points(points, sweep, task_dirs={}, task_overrides={})
        assert len(planned) == len(halves) * seeds
        for one in planned:
            tables = (words + positions) * width + 2 * width
            decoder = one.parameters - one.backbone
            assert decoder == halves[one.point.row.name] + tables, one.point.name
    wider = {"decoder.n_embd": 512}
    with pytest.raises(
        InputError, match=r"^point 8 \(tied, seed .*--config.decoder.n_embd must be"
    ):
        plan_points(
            expand(sweep, tmp_path, vocabulary | tokenizer | wider)[8:],
            sweep,
            task_dirs={},
            task_overrides={},
        )


def test_numbers_of_labels_are_the_same_from_both_starts(
    tmp_path: Path, overrides: dict[str, Any]
) -> None:
    sweep, _ = load_sweep("sst2_labels", Size.SMALL)
    model = {name: value for name, value in overrides.items() if name.startswith("model.")}
    points = expand(sweep, tmp_path, model | {"data.tokenizer": overrides["data.tokenizer"]})
    assert len(points) == 2 * 4 * 3
    planned = plan_points(points[::3], sweep, task_dirs={}, task_overrides={})  # of one seed
    for one, other in zip(planned[:4], planned[4:], strict=True):
        assert one.config.run.init_weights and not other.config.run.init_weights
        weights = dataclasses.replace(other.config.run, init_weights=True)
        assert dataclasses.replace(other.config, run=weights) == one.config
    labels = [one.config.data.max_train_examples for one in planned[:4]]
    assert labels == [one.point.row.place.value for one in planned[:4] if one.point.row.place]
    assert labels == [1_000, 4_000, 16_000, 67_349]


def test_what_is_of_pre_training_only_is_refused(tmp_path: Path, overrides: dict[str, Any]) -> None:
    nothing: dict[str, Any] = {"corpus_dir": "", "task_dir": [], "task_override": []}
    check_flags(FINETUNING, nothing)
    for flag, value in (("corpus_dir", "c"), ("task_dir", ["a=b"]), ("task_override", ["seed=1"])):
        with pytest.raises(InputError, match=rf"^--{flag}: the points of this sweep are fine-"):
            check_flags(FINETUNING, nothing | {flag: value})
    with pytest.raises(InputError, match="have neither tasks nor probes"):
        plan(tmp_path, overrides, probes=True)
    with pytest.raises(InputError, match=r"row 'b' cannot start from row 'a'"):
        plan(tmp_path, overrides, (SweepRow("a", {}), SweepRow("b", {}, starts_from="a")))
    for override, message in (
        ({"run.seeds": 3}, r"--config.run.seeds must be 1 in a sweep, .* got 3"),
        ({"run.learning_rates": "1e-5"}, r"--config.run.learning_rates must be none in a sweep"),
        ({"data.tokenizer": None}, r"--config.run.init_from is missing"),
        ({"data.ngram": 1}, r"there is no flag --config.data.ngram"),
    ):
        with pytest.raises(InputError, match=rf"^point 0 \(0.005, seed 1\): {message}"):
            plan(tmp_path, overrides | override)
    for override, message in (
        ({"data.train_file": None}, "--override=data.train_file=FILE is missing"),
        ({"data.dev_file": "nowhere"}, "--override=data.dev_file=nowhere: there is no such file"),
    ):
        with pytest.raises(InputError, match=message):
            FINETUNING.check_inputs([one.config for one in plan(tmp_path, overrides | override)])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One device, and none of the runs' own pictures."""
    monkeypatch.setattr(execution, "make_mesh", lambda **_: make_mesh(devices=jax.devices()[:1]))
    monkeypatch.setattr(training_run, "draw_run", lambda *_: None)
    monkeypatch.setattr("experiments.finetuning.report._plot", lambda *_, **__: None)
    yield


@pytest.mark.usefixtures("quick")
def test_reports_of_points_are_collected(
    tmp_path: Path, overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rate learns with both seeds; the second changes nothing, with one; 30 steps are
    three epochs of 160 texts."""
    planned = plan(tmp_path, overrides)
    for one in planned[:3]:
        assert finetune(one.config, one.point.workdir, rows_follow=True) is ExitCode.DONE
    again = plan(tmp_path, overrides)  # steps of epochs are in the workdirs now, and the same
    results = read_results(again)
    assert [point.status for row in results for point in row.points] == [*["done"] * 3, "not run"]
    figures: list[Any] = []

    def save(figure: Any, path: Path) -> None:
        figures.append(figure)
        save_figure(figure, path)

    monkeypatch.setattr("experiments.sweeping.report.save_figure", save)
    path = write_report(tmp_path, "Which rate?\n\nRows  two", "the command", results)

    reports = [json.loads((one.point.workdir / "report.json").read_text()) for one in planned[:3]]
    values = [report["value"] for report in reports]
    assert min(values[:2]) > values[2]
    content = json.loads((tmp_path / "report.json").read_text())["rows"][0]
    assert content["means"]["accuracy"] == pytest.approx(sum(values[:2]) / 2)
    assert content["means"]["steps"] == 30
    points = [point["figures"] for point in content["points"]]
    assert [point["accuracy"] for point in points] == values[:2]
    assert points[0]["seconds_per_step"] == pytest.approx(reports[0]["training_seconds"] / 30)
    rows = [line.split(" | ") for line in path.read_text().splitlines() if line.startswith("| ")]
    heading = ["| row", "parameters", "backbone", "seeds", "accuracy"]
    assert rows[0][:5] == heading and rows[0][-2:] == ["steps", "s/step |"]
    low, high = sorted(values[:2])
    cell = f"{sum(values[:2]) / 2:.4f}"
    assert rows[1][3:5] == ["2", cell if low == high else f"{cell} ({low:.4f} to {high:.4f})"]
    assert rows[2][3:5] == ["1", f"{values[2]:.4f}"]
    assert "- 1e-12, seed 2: not run, left out above." in path.read_text()
    if reports[2]["failed"]:
        assert (
            f"- 1e-12, seed 1 FAILED, counted as it is: {reports[2]['failed']}." in path.read_text()
        )
    page = (tmp_path / "report.html").read_text()
    assert "<figcaption>accuracy, validation</figcaption>" in page
    assert page.count("<figcaption>loss, train</figcaption>") == 1
    assert page.count("<polyline") == 3 * page.count("<figure>")
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert "![rows](rows.png)\n\n![curves](curves.png)" in path.read_text()
    assert b64encode((tmp_path / "rows.png").read_bytes()).decode() in page
    (axes,) = (axes for axes in figures[0].axes if axes.get_title() == "accuracy")
    (line,) = axes.get_lines()[:1]
    assert line.get_xydata().tolist() == [[1e-12, values[2]], [5e-3, np.median(values[:2])]]

    with pytest.raises(InputError, match=r"another experiment: .*num_epochs was 3.0 and is 4.0"):
        plan(tmp_path, overrides | {"data.num_epochs": 4})
    moved = overrides | {"data.dev_file": overrides["data.test_file"]}
    with pytest.raises(InputError, match=r"is done, with .*dev.tsv as --config.data.dev_file, not"):
        plan(tmp_path, moved)


SWEEP = """'''Which rate?'''
from experiments.sweeping.sweep import Size, Sweep, grid

def get_sweep(size):
    return Sweep("finetune/text", grid({{"optimizer.learning_rate": (5e-3, 1e-3)}}), {overrides})
"""


@pytest.mark.slow
def test_a_killed_sweep_of_fine_tunings_resumes(tmp_path: Path, overrides: dict[str, Any]) -> None:
    (tmp_path / "mine.py").write_text(SWEEP.format(overrides=overrides | {"data.num_epochs": 30}))
    directory = tmp_path / "sweep"

    start = functools.partial(start_sweep, tmp_path / "mine.py", directory)
    refused = start("--corpus_dir=corpora/wiki")
    assert "--corpus_dir: the points of this sweep" in refused.communicate(timeout=300)[1]
    assert refused.returncode == ExitCode.BAD_INPUT
    process = start()
    first = directory / "points/0.005/seed_12345/checkpoints"
    while not list(first.glob("[1-9]*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    process = start()
    out, errors = process.communicate(timeout=900)
    assert process.returncode == ExitCode.DONE, errors
    assert f"wrote {directory}/report.md" in out
    for row in json.loads((directory / "report.json").read_text())["rows"]:
        assert row["points"][0]["status"] == "done"
        assert row["means"]["steps"] == 300
