"""Early stopping, failed runs, medians and spreads."""

import dataclasses
import json
import math
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from etils import epath
from html_pages import Outline

from albert_jax.config import HeadConfig
from data_pipeline.finetuning.examples import ChoiceExample, TextExample
from experiments.finetuning import report
from experiments.finetuning.report import write_summary_report
from experiments.finetuning.report_format import describe_rate_search
from experiments.finetuning.single_runs import (
    RunReport,
    failed_run,
    next_runs,
    summarize_rates,
    summarize_runs,
)
from experiments.run.stopping import EarlyStopping
from experiments.tasks.choice import score_choices
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig
from experiments.tasks.task import Outputs
from experiments.tasks.task_settings import RateSearch, TaskName
from experiments.tasks.text import predict_labels, score_texts
from experiments.tasks.text_examples import TextData


@pytest.mark.parametrize(
    ("values", "patience", "stalled"),
    [
        ([], 1, False),
        ([0.7, 0.9, 0.9, 0.8], 2, True),
        ([0.7, 0.9, 0.9], 2, False),
        ([0.7, 0.9, 0.8, 0.91], 2, False),
        ([0.7, 0.7], 1, True),
        ([math.nan, 0.5, 0.4], 2, False),
        ([0.5, math.nan, 0.4], 2, True),
        ([math.nan, math.nan, 0.4], 2, False),
        ([0.7, 0.6, 0.5, 0.4], None, False),
    ],
)
def test_a_run_has_stalled_without_improvement(
    values: list[float], patience: int | None, stalled: bool
) -> None:
    for split in range(len(values) + 1):  # before and after it was taken up again
        past = [{"step": s, "split": "validation", "f1": v} for s, v in enumerate(values[:split])]
        past.append({"step": 0, "split": "train", "f1": 99.0})
        progress = EarlyStopping("f1", patience, past)
        for value in values[split:]:
            progress.add({"f1": value, "loss": 1.0})
        assert progress.stalled() is stalled


def test_medians_and_spreads() -> None:
    values = [0.8, 0.7, 0.9, 0.75]
    runs = [RunReport(1e-5, seed, value, 0.7, None, 10) for seed, value in enumerate(values)]
    runs[1] = RunReport(1e-5, 1, 0.7, 0.7, "no better", 10)
    runs.append(RunReport(1e-5, 9, None, None, "not finite", None))
    summary = summarize_runs(runs)
    assert (summary["runs"], summary["failed"]) == (5, 2)
    assert summary["median"] == pytest.approx(0.775)
    assert (summary["least"], summary["greatest"]) == (0.7, 0.9)
    assert summary["standard_deviation"] == pytest.approx(statistics.stdev(values))
    assert summary["standard_error"] == pytest.approx(np.std(values, ddof=1) / 2)
    alone = summarize_runs(runs[:1])
    assert (alone["median"], alone["standard_error"]) == (0.8, None)
    assert summarize_runs(runs[-1:])["median"] is None


def test_the_best_rate_comes_first_and_failed_runs_are_marked(tmp_path: Path) -> None:
    config = FinetuneConfig(task=TaskName.RTE, run=FinetuneRunConfig(learning_rates="1e-5,1e-3"))
    reports = {
        "a": failed_run(config, "step 3 is not finite"),
        "b": RunReport(1e-3, 1, 0.61, 0.53, None, 40),
        "c": RunReport(1e-3, 2, 0.53, 0.53, "no better than a constant answer", 20),
    }
    for name, rise in {"a": 0, "b": 2, "c": 1}.items():
        (tmp_path / name).mkdir()
        entries = (
            {"step": step, "split": split, metric: rise * step}
            for step in (20, 40)
            for split, metric in (("train", "loss"), ("validation", "accuracy"))
        )
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        (tmp_path / name / "metrics.jsonl").write_text(lines)
    task: Any = SimpleNamespace(
        metrics=("accuracy",), panels=[("loss", "loss"), ("accuracy", "accuracy")]
    )
    write_summary_report(config, task, reports, epath.Path(tmp_path))
    content = json.loads((tmp_path / "report.json").read_text())
    assert [entry["learning_rate"] for entry in content["learning_rates"]] == [1e-3, 2e-5]
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert lines[0] == "# rte: median accuracy 0.5700"
    assert "| a |  |  |  | FAILED: step 3 is not finite |" in lines
    assert "| b | 0.6100 | 0.5300 | 40 |  |" in lines
    assert lines[-1].endswith("| FAILED: no better than a constant answer |")
    assert (tmp_path / "scores.png").stat().st_size
    outline = Outline((tmp_path / "report.html").read_text())
    best = "The best run is b: accuracy 0.6100 at step 40."
    assert best in lines and best in outline.text
    assert "0.001210.5700" in outline.text  # rate, runs, failed, median
    titles = [e["aria-label"] for tag, e in outline.elements if tag == "svg"]
    assert titles == ["loss, train", "accuracy, validation"]
    curves = json.loads(outline.scripts[1])["lines"]
    assert {one["label"]: one["points"][1] for one in curves} == {
        "a": [40, 0],
        "b": [40, 80],
        "c": [40, 40],
    }
    assert curves[0]["color"] != curves[1]["color"] == curves[2]["color"]  # one for each rate
    assert "run.learning_rates1e-5,1e-3" in outline.text


def test_a_class_may_be_named_like_a_formula(tmp_path: Path) -> None:
    bars = {"$x^$": 0.5, "$": 0.25, "under $10": 0.125}
    report._plot(bars, epath.Path(tmp_path), title="text: F1 of each class", highest=1.0)
    assert (tmp_path / "scores.png").stat().st_size


def test_the_first_seed_chooses_the_rate_of_the_others() -> None:
    """The second rate is the best of seed 1; it stays so when others do worse with it."""
    run = FinetuneRunConfig(
        learning_rates="1e-5,2e-5,3e-5", rate_search=RateSearch.FIRST_SEED, seeds=3
    )
    config = FinetuneConfig(task=TaskName.RTE, run=run, seed=1)
    values = iter([0.6, 0.7, None, 0.5, 0.4])
    reports: dict[str, RunReport] = {}
    while runs := next_runs(config, reports):
        name, single = next(iter(runs.items()))
        rate, seed = single.optimizer.learning_rate, single.seed
        assert single.run.seeds == 1 and not single.run.rates
        reports[name] = RunReport(rate, seed, next(values), 0.3, None, 10)
    first = ["rate_1e-05_seed_1", "rate_2e-05_seed_1", "rate_3e-05_seed_1"]
    assert list(reports) == [*first, "rate_2e-05_seed_2", "rate_2e-05_seed_3"]
    content = summarize_rates(config, [*reports.values()])
    assert [one["median"] for one in content["learning_rates"]] == [0.5, 0.6, None]
    tried = {"1e-05": 0.6, "2e-05": 0.7, "3e-05": None}
    assert content["rate_search"] == {
        "seed": 1,
        "values": tried,
        "median_of_other_seeds": pytest.approx(0.45),
    }
    assert describe_rate_search(content) == (
        "The learning rate was chosen by seed 1 (1e-05: 0.6000, 2e-05: 0.7000, 3e-05: ), which "
        "favors that seed: the median of the others is 0.4500."
    )
    every = dataclasses.replace(run, rate_search=RateSearch.EVERY_SEED)
    grid = next_runs(dataclasses.replace(config, run=every), {})
    assert list(grid) == [
        f"rate_{rate}e-05_seed_{seed}" for rate in (1, 2, 3) for seed in (1, 2, 3)
    ]
    nothing = {name: dataclasses.replace(reports[name], value=None) for name in first}
    assert next_runs(config, nothing) == {}


def test_a_constant_answer_is_the_baseline() -> None:
    labels = [0, 1, 1, 1]
    examples = [TextExample(str(n), "x", None, label) for n, label in enumerate(labels)]
    texts = TextData(("no", "yes"), ("accuracy", "f1"), examples, {"dev": examples}, {})
    outputs: Outputs = [{"logits": np.array([0.0, 1.0])}] * 4
    scores = score_texts(texts, examples, predict_labels(HeadConfig(("no", "yes")), outputs))
    assert scores.metrics == scores.baseline == {"accuracy": 0.75, "f1": pytest.approx(6 / 7)}
    assert scores.confusion is not None
    assert scores.confusion.tolist() == [[0, 1], [0, 3]]


def test_the_best_constant_option_is_the_baseline_of_each_school() -> None:
    """Of middle school D is right twice in three, of high school B always; of all five B is, and D
    is as often."""
    labels = {"middle": [3, 3, 0], "high": [1, 1]}
    examples = [
        ChoiceExample(f"{group}{n}", "C", "Q", ("a", "b", "c", "d"), label, group)
        for group, several in labels.items()
        for n, label in enumerate(several)
    ]
    outputs: Outputs = [{"logits": np.eye(4)[option]} for option in (3, 0, 0, 1, 2)]
    scores = score_choices(examples, outputs)
    assert scores.metrics == {
        "accuracy": 0.6,
        "middle_accuracy": pytest.approx(2 / 3),
        "high_accuracy": 0.5,
    }
    assert scores.baseline == {
        "accuracy": 0.4,
        "middle_accuracy": pytest.approx(2 / 3),
        "high_accuracy": 1,
    }
