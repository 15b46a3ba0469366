"""The page of a run: its metrics, curves, samples, scores, corpora and settings."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from albert_jax.input_files import read_json_object
from data_pipeline.errors import InputError
from experiments.cli.dataclass_forms import flatten
from experiments.goodput.ledger import read_attempts
from experiments.metrics.curves import CURVES_FILE, SPLITS, Panel, plot_curves
from experiments.metrics.metrics_file import metrics_of, points_of, read_metrics
from experiments.pages.charts import Chart, Line, format_charts
from experiments.pages.document import PAGE_FILE, Section, escape, format_table, write_page
from experiments.pages.goodput import format_goodput
from experiments.pages.samples import format_samples, read_samples

# Curves of training besides the panels of the task; those without data are left out.
_OF_TRAINING = (
    ("learning_rate", "learning rate"),
    ("grad_norm", "norm of the gradients"),
    ("rows_per_second", "rows a second"),
)
_MOST_EVALUATIONS = 200  # in the table of evaluations
_FILES = ("config.json", "report.json")


def draw_run(workdir: epath.Path, step: int, panels: Sequence[Panel]) -> None:
    """Draw a run as it is after a step: a picture of its curves, and its page."""
    entries = read_metrics(workdir)
    title = f"{workdir.name}, step {step}"
    plot_curves(entries, workdir / CURVES_FILE, panels, title=title)
    write_run_page(workdir, entries, panels)


def write_run_page(
    workdir: epath.Path, entries: Sequence[Mapping[str, Any]], panels: Sequence[Panel]
) -> None:
    """Write a run's ``report.html`` from the files of its workdir; the same files give the same.

    Args:
        workdir: the run's directory.
        entries: entries of its metrics file.
        panels: the task's metrics to plot.
    """
    config, report = (_read(workdir / name) for name in _FILES)
    last = max((entry["step"] for entry in entries), default=0)
    write_page(
        workdir / PAGE_FILE,
        f"{workdir.name}, step {last:,}",
        [
            Section("Scores of the best checkpoint", format_table(*_scores(report))),
            Section("Corpora", format_table(*_corpora(workdir, config))),
            Section("Goodput", format_goodput(read_attempts(workdir))),
            Section("Curves", format_charts(_charts(entries, [*panels, *_OF_TRAINING]))),
            Section("Filled gaps", format_samples(*read_samples(workdir))),
            Section("Texts", _texts(report)),
            Section("Metrics", format_table(*summarize_metrics(entries))),
            Section("Evaluations", format_table(*_evaluations(entries)), folded=True),
            Section("Settings", format_table(("setting", "value"), settings_rows(config)), True),
        ],
    )


def summarize_metrics(
    entries: Sequence[Mapping[str, Any]],
) -> tuple[Sequence[str], list[Sequence[Any]]]:
    """Return headings and rows of a table with the last value and the range of each metric.

    There is a row for each metric of each split; only finite values count.

    Example: a loss of 9 at step 10 and of 7 at step 20 gives the row ``train, loss, 7.0, 7.0, 20,
    9.0, 10``.
    """
    found: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for entry in entries:
        for name, value in metrics_of(entry).items():
            if math.isfinite(value):
                found.setdefault((entry["split"], name), []).append((float(value), entry["step"]))
    order = {split: number for number, split in enumerate(reversed(SPLITS))}
    rows: list[Sequence[Any]] = [
        (*key, values[-1][0], *min(values), *max(values))
        for key, values in sorted(found.items(), key=lambda item: order.get(item[0][0], 9))
    ]
    return ("split", "metric", "last", "lowest", "at step", "highest", "at step"), rows


def settings_rows(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a row for each setting: its dotted name and its value as a flag takes it."""
    for name, value in flatten(config).items():
        yield name, value if isinstance(value, str) else json.dumps(value).replace("null", "none")


def _charts(entries: Sequence[Mapping[str, Any]], panels: Sequence[Panel]) -> Iterator[Chart]:
    for name, title in panels:
        yield Chart(
            title,
            [
                Line(split, points_of(entries, split, name), color)
                for color, split in enumerate(SPLITS)
            ],
        )


def _evaluations(
    entries: Sequence[Mapping[str, Any]],
) -> tuple[Sequence[str], Iterator[Sequence[Any]]]:
    evaluations = [entry for entry in entries if entry["split"] == "validation"]
    names = list(dict.fromkeys(n for e in evaluations for n in metrics_of(e)))
    shown = evaluations[-_MOST_EVALUATIONS:]
    rows = ((entry["step"], *(entry.get(name) for name in names)) for entry in shown)
    return ("step", *names), rows


def _scores(report: Mapping[str, Any]) -> tuple[Sequence[str], Iterator[Sequence[Any]]]:
    rows = (
        (split, name, float(value), found["baseline"].get(name))
        for split, found in report.get("splits", {}).items()
        for name, value in found["figures"].items()
    )
    return ("split", "metric", "value", "constant answer"), rows


def _corpora(
    workdir: epath.Path, config: Mapping[str, Any]
) -> tuple[Sequence[str], list[Sequence[Any]]]:
    """Return headings and rows of a table, which has rows only if the decay has its own corpus."""
    first, decay = (_read(workdir / f"{name}.json") for name in ("corpus", "decay_corpus"))
    rows: list[Sequence[Any]] = []
    if decay:
        begin, last = decay["first_step"], config["optimizer"]["num_train_steps"]
        rows = [(f"1 to {begin:,}", first["path"]), (f"{begin + 1:,} to {last:,}", decay["path"])]
    return ("steps", "corpus"), rows


def _texts(report: Mapping[str, Any]) -> str:
    """Return the samples of each split as HTML: sources, references and generated texts."""
    return "".join(
        f"<p>{escape(split)}</p>{format_table(list(rows[0]), (list(row.values()) for row in rows))}"
        for split, found in report.get("splits", {}).items()
        if (rows := found.get("samples"))
    )


def _read(path: epath.Path) -> dict[str, Any]:
    return dict(read_json_object(path, error=InputError)) if path.exists() else {}
