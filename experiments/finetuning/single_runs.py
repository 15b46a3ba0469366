"""The single runs of a fine-tuning with several seeds and rates, their results and spread."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.tasks.config import FinetuneConfig
from experiments.tasks.task_settings import RateSearch


@dataclasses.dataclass(frozen=True)
class RunReport:
    """The result of one run.

    Attributes:
        learning_rate, seed: they distinguish the runs of one workdir.
        value: the deciding metric of the best checkpoint; None if there is none.
        baseline: the value of the best constant answer.
        failed: why the run counts as failed; None if it does not.
        step: step of the best checkpoint.
    """

    learning_rate: float
    seed: int
    value: float | None
    baseline: float | None
    failed: str | None
    step: int | None


def failed_run(config: FinetuneConfig, reason: str) -> RunReport:
    """Return the report of a run that ended without a result."""
    return RunReport(config.optimizer.learning_rate, config.seed, None, None, reason, None)


def next_runs(
    config: FinetuneConfig, reports: Mapping[str, RunReport]
) -> dict[str, FinetuneConfig]:
    """Return the runs that can be started now, by the names of their directories.

    Example: two rates and two seeds give `rate_1e-05_seed_1`, `rate_1e-05_seed_2`,
    `rate_2e-05_seed_1` and `rate_2e-05_seed_2`; without rates, they give `seed_1` and `seed_2`. If
    the first seed chooses the rate, the two runs of `seed_1` come first, and then, for example,
    `rate_2e-05_seed_2`.

    Args:
        config: the settings of all runs.
        reports: the results of the runs that are done.
    """
    rates = config.run.rates or (config.optimizer.learning_rate,)
    seeds = range(config.seed, config.seed + config.run.seeds)
    if config.run.rate_search is RateSearch.FIRST_SEED:
        tried = {one.learning_rate for one in reports.values() if one.seed == config.seed}
        if tried < set(rates):
            seeds = seeds[:1]
        else:
            best = chosen_rate(config, reports.values())
            rates = () if best is None else (best,)
    run = dataclasses.replace(config.run, seeds=1, learning_rates=None)
    singles = {}
    for rate in rates:
        for seed in seeds:
            name = f"rate_{rate:g}_seed_{seed}" if config.run.rates else f"seed_{seed}"
            optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
            if name not in reports:
                singles[name] = dataclasses.replace(config, run=run, optimizer=optimizer, seed=seed)
    return singles


def chosen_rate(config: FinetuneConfig, reports: Iterable[RunReport]) -> float | None:
    """Return the rate with which the first seed has its best value; None if it has no value."""
    scored = [one for one in reports if one.seed == config.seed and one.value is not None]
    return max(scored, key=lambda one: one.value or 0.0).learning_rate if scored else None


def summarize_rates(config: FinetuneConfig, reports: Sequence[RunReport]) -> dict[str, Any]:
    """Return the median and spread of each learning rate, the best or the chosen one first.

    Returns:
        The entries `learning_rates` and, if the first seed chose the rate, `rate_search`: that
        seed, its score with each rate, and the median of the other seeds with the chosen rate,
        which the choice does not bias.
    """
    by_rate: dict[float, list[RunReport]] = {}
    for report in reports:
        by_rate.setdefault(report.learning_rate, []).append(report)
    rates = [{"learning_rate": rate, **summarize_runs(runs)} for rate, runs in by_rate.items()]
    rates.sort(key=lambda entry: math.inf if entry["median"] is None else -entry["median"])
    if config.run.rate_search is not RateSearch.FIRST_SEED or not config.run.rates:
        return {"learning_rates": rates}
    chosen = chosen_rate(config, reports)
    rates.sort(key=lambda entry: entry["learning_rate"] != chosen)
    others = [one for one in by_rate.get(chosen or 0, ()) if one.seed != config.seed]
    return {
        "learning_rates": rates,
        "rate_search": {
            "seed": config.seed,
            "values": {
                f"{one.learning_rate:g}": one.value for one in reports if one.seed == config.seed
            },
            "median_of_other_seeds": summarize_runs(others)["median"],
        },
    }


def summarize_runs(runs: Sequence[RunReport]) -> dict[str, Any]:
    """Compute the median and spread over seeds; runs without a value only count as failed.

    Example: the values 0.8, 0.7 and 0.9 give the median 0.8, the least 0.7, the greatest 0.9, the
    standard deviation 0.1 and the standard error of the mean 0.0577.
    """
    values = [run.value for run in runs if run.value is not None]
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {
        "runs": len(runs),
        "failed": sum(run.failed is not None for run in runs),
        "median": statistics.median(values) if values else None,
        "mean": statistics.fmean(values) if values else None,
        "least": min(values, default=None),
        "greatest": max(values, default=None),
        "standard_deviation": deviation,
        "standard_error": None if deviation is None else deviation / math.sqrt(len(values)),
    }
