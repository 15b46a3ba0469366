"""Sweeps that have run: reported, and resumed after a kill."""

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, start_sweep
from echoes import make_experiment, write_echoes

from data_pipeline.errors import InputError
from experiments.cli.exit_codes import ExitCode
from experiments.sweeping.point_kind import PlannedPoint
from experiments.sweeping.points import Point
from experiments.sweeping.pretraining import PRETRAINING, task_workdir
from experiments.sweeping.report import write_report
from experiments.sweeping.results import Ordering, compare_orders, read_results
from experiments.sweeping.sweep import SweepRow


def make_point(directory: Path, number: int, **row: Any) -> PlannedPoint:
    """A point without commands."""
    point = Point(
        number,
        SweepRow(f"row{number}", {}, **row),
        7,
        directory / f"points/row{number}/seed_7",
        "base.py",
        {},
        None,
    )
    config = make_experiment(Path("corpus"), num_train_steps=60)
    return PlannedPoint(point, config, 1000, 900, 5 * 10**9, ("sst2",), (), PRETRAINING)


def write_results(
    planned: PlannedPoint, step: int, accuracy: float, gap: float, task: float | None
) -> None:
    """Write the files of a run and of its fine-tuning."""
    planned.point.workdir.mkdir(parents=True)
    speeds = ((25, 10.0), (15, 50.0), (10, 60.0))  # the first steps are slower
    entries: list[dict[str, Any]] = [
        {"step": step - before, "split": "train", "rows_per_second": rate}
        for before, rate in speeds
    ]
    for at, fraction in ((step - 30, 0.5), (step, 1.0)):
        metrics = {"masked_lm_accuracy": fraction * accuracy, "masked_lm_loss": 4.0}
        entries.append({"step": at, "split": "validation", "context_gap": gap} | metrics)
    lines = [json.dumps(entry) + "\n" for entry in entries]
    (planned.point.workdir / "metrics.jsonl").write_text("".join(lines))
    if task is not None:
        directory = task_workdir(planned.point, "sst2")
        directory.mkdir()
        report = {"task": "sst2", "value": task}
        (directory / "report.json").write_text(json.dumps(report))


def with_seed(planned: PlannedPoint, seed: int) -> PlannedPoint:
    workdir = planned.point.workdir.with_name(f"seed_{seed}")
    return planned._replace(point=planned.point._replace(seed=seed, workdir=workdir))


def test_a_report_has_medians_spreads_and_the_paper_s_order(tmp_path: Path) -> None:
    """Rows 0 to 2 have 80, 81 and 82 in the paper and 20, 30 (29 to 31) and 30.5 here: the first
    differs from both, the other two are undecided. Row 3 never left the plateau; one seed of row 4
    is not done, the other has not run."""
    papers: list[dict[str, float]] = [
        {"average": 80.0, "sst2": 90.0},
        {"average": 81.0, "sst2": 91.0},
        {"average": 82.0},
        {"average": 70.0},
        {},
    ]
    rows = [make_point(tmp_path, number, paper=paper) for number, paper in enumerate(papers)]
    points = [with_seed(row, seed) for row in rows for seed in (1, 2)]
    for point, accuracy, gap, task in zip(
        points[:8],
        (0.2, 0.2, 0.29, 0.31, 0.305, 0.305, 0.05, 0.06),
        (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.1, 0.9),
        (0.9, 0.9, 0.8, 0.8, None, None, None, None),
        strict=True,
    ):
        write_results(point, 60, accuracy, gap, task)
    write_results(points[8], 40, 0.1, 0.5, None)

    results = read_results(points)
    assert compare_orders(results) == [
        Ordering("average", "masked_lm_accuracy", agree=2, disagree=0, undecided=1),
        Ordering("sst2", "sst2", agree=0, disagree=1, undecided=0),
    ]
    path = write_report(tmp_path, "Does it matter?\n\nRows  five", "the command", results)
    text = path.read_text()
    assert text.startswith("# Does it matter?\n\n```\nRows  five\n```\n")
    cells = ["row1", "1,000", "900", "5.00", "60", "2", "30.00 (29.00 to 31.00)"]
    assert "| " + " | ".join(cells) + " | 4.000 (4.000 to 4.000)" in text
    assert "row3 did not leave the plateau" in text
    assert "row4, seed 1: step 40 of 60, left out above" in text
    assert "row4, seed 2: not run, left out above" in text
    assert "average, compared with our masked_lm_accuracy: 2 agree, 0 disagree, 1 undecided" in text
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["rows"][1]["figures"]["masked_lm_accuracy"]["median"] == pytest.approx(30)
    assert content["rows"][1]["figures"]["rows_per_second"]["median"] == 50
    assert content["rows"][0]["figures"]["sst2"]["seeds"] == 2
    assert content["rows"][4]["figures"] == {}
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figure>") == 3  # metrics that some point has
    assert page.count("<polyline") == 3 * 9  # points that have run
    assert page.count("</i>row1</span>") == 3
    assert "<td>row4, seed 1</td><td>step 40 of 60</td>" in page


def test_rows_that_differ_as_much_as_their_seeds_are_undecided(tmp_path: Path) -> None:
    """Rows 0 and 1 are equal, at a seed each; the seeds of row 2 differ by what it differs by."""
    rows = [make_point(tmp_path, number, paper={"average": 80.0 + number}) for number in range(3)]
    for row, accuracies in zip(rows, ((0.25,), (0.25,), (0.25, 0.5, 0.5)), strict=True):
        for seed, accuracy in enumerate(accuracies):
            write_results(with_seed(row, seed), 60, accuracy, 1.0, None)
    points = [
        with_seed(row, seed)
        for row, seeds in zip(rows, (1, 1, 3), strict=True)
        for seed in range(seeds)
    ]
    assert compare_orders(read_results(points)) == [
        Ordering("average", "masked_lm_accuracy", agree=0, disagree=0, undecided=3)
    ]


def test_a_report_needs_points_that_have_run(tmp_path: Path) -> None:
    points = [make_point(tmp_path, number) for number in range(3)]
    with pytest.raises(InputError, match="nothing to report: none of the 3 points under"):
        read_results(points)


def test_a_sweep_on_a_store_is_refused_before_it_makes_a_directory_called_gs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for module, flag, others in (
        ("sweep", "workdir", ["--sweep=dropout", "--size=small"]),
        ("glue", "workdir", ["--init_from=nowhere", "--data_dir=nowhere"]),
        ("benchmark", "output", ["--what=record_all", "--corpus_dir=nowhere"]),
    ):
        command = ["-m", f"experiments.{module}", f"--{flag}=gs://bucket/here", *others]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        ended = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=environment, check=False
        )
        assert ended.returncode == ExitCode.BAD_INPUT
        assert ended.stderr == (
            f"error: --{flag}=gs://bucket/here must be a directory of this machine's file system\n"
        )
    assert not list(tmp_path.iterdir())


STEMS = ("sentence_order", "next_sentence")
SWEEP = """'''Which order?'''
from experiments.sweeping.sweep import SweepRow, Size, Sweep

def get_sweep(size):
    base = "{root}/tests/experiments/echo_config.py"
    rows = (SweepRow("sop", {{}}), SweepRow("nsp", {{"data.sentence_objective": "nsp"}}),
            SweepRow("broken", {{"run.init_from": "nowhere"}}),
            SweepRow("deeper", {{"model.num_hidden_layers": 3}}, starts_from="sop"))
    return Sweep(base, rows, seeds=(3,), probes=True)
"""


@pytest.mark.slow
def test_a_killed_sweep_resumes(tmp_path: Path) -> None:
    corpus, directory = write_echoes(tmp_path / "corpus"), tmp_path / "sweep"
    (tmp_path / "mine.py").write_text(SWEEP.format(root=ROOT))

    given = (f"--corpus_dir={corpus}", "--override=data.ngram=2")
    start = functools.partial(start_sweep, tmp_path / "mine.py", directory, *given)
    process = start("--report")
    assert "there is nothing to report" in process.communicate(timeout=300)[1]
    assert process.returncode == ExitCode.BAD_INPUT

    process = start()
    first = directory / "points/sop/seed_3/checkpoints"
    while not list(first.glob("[1-9]*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    process = start()
    out, errors = process.communicate(timeout=900)
    assert process.returncode == ExitCode.FAILED_POINTS, errors
    assert "job 2 (broken, seed 3) failed with exit status 2" in errors
    assert "nowhere" in errors
    assert f"wrote {directory}/report.md" in out
    rows = {row["name"]: row for row in json.loads((directory / "report.json").read_text())["rows"]}
    for name in ("sop", "nsp", "deeper"):
        (point,) = rows[name]["points"]
        assert point["status"] == "done"
        probed = {f"{stem}_{kind}" for stem in STEMS for kind in ("probe", "untrained")}
        assert probed <= point["figures"].keys()
        trained = {"sentence_order_accuracy", "next_sentence_accuracy"} & point["figures"].keys()
        assert trained == {f"{'next_sentence' if name == 'nsp' else 'sentence_order'}_accuracy"}
    assert rows["broken"]["points"][0]["status"] == "not run"
    assert rows["sop"]["figures"]["sentence_order_probe"]["median"] > 80
