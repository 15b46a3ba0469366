"""Results on GLUE: scores of every seed, and a test of whether two starting points differ."""

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import scipy.stats

from data_pipeline.errors import InputError
from experiments.finetuning.glue.jobs import GlueRun, Start
from experiments.run.workdir import REPORT_FILE

# Dev scores in percent: ALBERT Table 2 by size, Table 9 (single model, 1.5 M steps) for xxlarge.
# The keys are the number of layers and the hidden size.
PAPER_SCORES = {
    (12, 768): ("base", {"mnli": 81.6, "sst-2": 90.3}),
    (24, 1024): ("large", {"mnli": 83.5, "sst-2": 91.7}),
    (24, 2048): ("xlarge", {"mnli": 86.4, "sst-2": 92.4}),
    (12, 4096): (
        "xxlarge",
        {
            "mnli": 90.8,
            "qnli": 95.3,
            "qqp": 92.2,
            "rte": 89.2,
            "sst-2": 96.9,
            "mrpc": 90.9,
            "cola": 71.4,
            "sts-b": 93.0,
        },
    ),
}

_MOST_EXACT = 10  # values of each start; twenty values divide into tens in 184,756 ways


class GlueResult(NamedTuple):
    """The scores of a task from one starting point.

    The learning rate is the one with the best median, or the one that the first seed chose.

    Attributes:
        run: the fine-tuning.
        metric: the official metric that decides.
        learning_rate: the rate.
        scores: scores in percent of the seeds that have one, by the names of their directories.
        failed: number of seeds that are no better than a constant answer, or have no score.
        baseline: the score of the best constant answer, in percent; None if there is none.
        config: the settings that the seeds have in common.
        tried: the first seed's score with each rate, in percent; empty if it did not choose.
        median_of_others: the median of the other seeds, in percent; None if the first seed did not
            choose the rate, or there are no others.
    """

    run: GlueRun
    metric: str
    learning_rate: float
    scores: dict[str, float]
    failed: int
    baseline: float | None
    config: Mapping[str, Any]
    tried: Mapping[str, float | None]
    median_of_others: float | None

    @property
    def median(self) -> float:
        """The median over the seeds."""
        return statistics.median(self.scores.values())

    @property
    def best(self) -> Path:
        """The directory of the best seed."""
        name = max(self.scores, key=self.scores.__getitem__)
        return self.run.workdir / name


def read_results(runs: Sequence[GlueRun]) -> list[GlueResult]:
    """Read the reports of the runs that are done, and return the results that have a score.

    Raises:
        InputError: no run is done.
    """
    results = [_read(run) for run in runs if (run.workdir / REPORT_FILE).exists()]
    if not results:
        raise InputError(
            f"there is nothing to report: no task under {runs[0].workdir.parent} is done"
        )
    return [result for result in results if result.scores]


def difference(results: Sequence[GlueResult], task: str) -> tuple[float, float] | None:
    """Return how much pre-training changes a task's median, and whether seeds could explain it.

    Returns:
        The difference of the medians in points, and the p-value of a two-sided Mann-Whitney test
        over the seeds; None unless both starts have scores.
    """
    by_start = {one.run.start: one for one in results if one.run.task == task}
    if by_start.keys() != {Start.PRETRAINED, Start.RANDOM}:
        return None
    ours, control = by_start[Start.PRETRAINED], by_start[Start.RANDOM]
    p_value = rank_sum_test([*ours.scores.values()], [*control.scores.values()])
    return ours.median - control.median, p_value


def rank_sum_test(ours: Sequence[float], others: Sequence[float]) -> float:
    """Return the two-sided p-value of the Mann-Whitney test, exact for up to ten values of each.

    The exact value considers all divisions of the values into two groups of these sizes. It is the
    share of divisions whose rank sum is at least as far from the middle. Equal values get their
    mean rank, so ties need no approximation.

    Example: for five values of each, all of ours above all of the others, 2 of 252 divisions are
    that far from the middle: 0.0079.
    """
    if max(len(ours), len(others)) > _MOST_EXACT:
        return float(scipy.stats.mannwhitneyu(ours, others).pvalue)
    ranks = scipy.stats.rankdata([*ours, *others])
    middle = len(ours) * (len(ranks) + 1) / 2
    found = abs(sum(ranks[: len(ours)]) - middle)
    sums = [sum(group) for group in itertools.combinations(ranks.tolist(), len(ours))]
    return sum(abs(one - middle) >= found for one in sums) / len(sums)


def average(results: Sequence[GlueResult], start: Start) -> float | None:
    """Return the mean of the tasks' medians from one start; None if a task lacks that start."""
    medians = [one.median for one in results if one.run.start is start]
    tasks = {one.run.task for one in results}
    return statistics.fmean(medians) if len(medians) == len(tasks) else None


def _read(run: GlueRun) -> GlueResult:
    content: dict[str, Any] = json.loads((run.workdir / REPORT_FILE).read_text(encoding="utf-8"))
    if "runs" not in content:  # the report of a single seed and rate
        content = {name: content[name] for name in ("metric", "config")} | {
            "runs": {".": content},
            "learning_rates": [{"learning_rate": content["learning_rate"]}],
        }
    rate = content["learning_rates"][0]["learning_rate"]
    reports = {k: v for k, v in content["runs"].items() if v["learning_rate"] == rate}
    scored = {name: one for name, one in reports.items() if one["value"] is not None}
    baselines = [one["baseline"] for one in scored.values() if one["baseline"] is not None]
    search = content.get("rate_search", {"values": {}, "median_of_other_seeds": None})
    others = search["median_of_other_seeds"]
    return GlueResult(
        run,
        content["metric"],
        rate,
        {name: 100 * one["value"] for name, one in scored.items()},
        sum(one["failed"] is not None for one in reports.values()),
        100 * baselines[0] if baselines else None,
        content["config"],
        {rate: None if v is None else 100 * v for rate, v in search["values"].items()},
        None if others is None else 100 * others,
    )
