"""Reports of fine-tuning as Markdown."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from experiments.tasks.config import FinetuneConfig
from experiments.tasks.task import FinetuningTask, Scores

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]  # headings and rows


def format_run(
    config: FinetuneConfig,
    task: FinetuningTask,
    scores: Mapping[str, Scores],
    content: Mapping[str, Any],
) -> Iterator[str]:
    """Format the report on one run.

    Args:
        config: the run.
        task: its task.
        scores: metrics of each labeled split.
        content: content of its `report.json`.
    """
    yield f"# {config.task}: {content['metric']} {content['value']:.4f}"
    yield ""
    if content["failed"]:
        yield f"A FAILED run: {content['failed']}."
        yield ""
    rows = [
        (split, name, f"{value:.4f}", _number(found.baseline.get(name)))
        for split, found in scores.items()
        for name, value in found.metrics.items()
    ]
    yield from format_table(("split", "metric", "value", "constant answer"), rows)
    for split, found in scores.items():
        yield from _format_classes(split, found)
        if found.samples[1]:
            yield f"Examples of {split}:"
            yield ""
            yield from format_table(*found.samples)
    start = "random parameters"
    if config.run.init_from is not None:
        start = f"{config.run.init_from}{'' if config.run.init_weights else ', its sizes only'}"
    yield f"- start: {start}"
    yield (
        f"- {content['training_examples']:,} examples, {content['steps']} steps of "
        f"{config.global_batch_size} in {content['training_seconds']:.0f} s; the best checkpoint "
        f"is step {content['step']}"
    )
    yield f"- learning rate {config.optimizer.learning_rate:g}, seed {config.seed}"
    metrics = [note for found in scores.values() for note in found.notes]
    yield from (f"- {note}" for note in [*content["files"], *task.notes, *dict.fromkeys(metrics)])


def _format_classes(split: str, scores: Scores) -> Iterator[str]:
    """Format the F1 of each class, with the confusion matrix if there is one."""
    f1 = [f"{score:.4f}" for score in scores.class_scores]
    if scores.confusion is not None:
        yield f"Examples of each class (row) in {split} by predicted class (column), and its F1:"
        yield ""
        rows = zip(scores.classes, scores.confusion.tolist(), f1, strict=True)
        yield from format_table(
            ["", *scores.classes, "F1"], [(name, *row, f) for name, row, f in rows]
        )
    elif scores.classes:
        yield from format_table((f"F1 in {split} of", ""), zip(scores.classes, f1, strict=True))


def format_summary(content: Mapping[str, Any]) -> Iterator[str]:
    """Format the report on several runs, from the content of their `report.json`."""
    median = content["learning_rates"][0]["median"]
    yield f"# {content['task']}: median {content['metric']} {_number(median)}"
    yield ""
    yield from format_table(*tabulate_rates(content))
    yield describe_best(content)
    yield ""
    yield from format_table(*tabulate_runs(content))


def describe_best(content: Mapping[str, Any]) -> str:
    """Describe in words which of several runs is best, and how its rate was chosen."""
    best = best_name(content)
    if best is None:
        return "No run has a score."
    run = content["runs"][best]
    text = (
        f"The best run is {best}: {content['metric']} {_number(run['value'])} at step "
        f"{run['step']:,}."
    )
    return f"{text} {describe_rate_search(content)}".rstrip()


def describe_rate_search(content: Mapping[str, Any]) -> str:
    """Describe in words how the first seed chose the rate; return "" if it did not.

    Example: `The learning rate was chosen by seed 1 (1e-05: 0.8000, 2e-05: 0.8200), which favors
    that seed: the median of the others is 0.8100.`
    """
    if (search := content.get("rate_search")) is None:
        return ""
    values = ", ".join(f"{rate}: {_number(value)}" for rate, value in search["values"].items())
    text = f"The learning rate was chosen by seed {search['seed']} ({values})"
    others = search["median_of_other_seeds"]
    if others is None:
        return f"{text}."
    return f"{text}, which favors that seed: the median of the others is {_number(others)}."


def best_name(content: Mapping[str, Any]) -> str | None:
    """Return the name of the best of several runs; None if none has a score."""
    scored = {name: run["value"] for name, run in content["runs"].items()}
    scored = {name: value for name, value in scored.items() if value is not None}
    return max(scored, key=scored.__getitem__) if scored else None


def tabulate_rates(content: Mapping[str, Any]) -> Table:
    """Return the median and the spread of each learning rate, in the order of the report."""
    names = ("median", "mean", "least", "greatest", "standard_error")
    headings = ("learning rate", "runs", "failed", *(name.replace("_", " ") for name in names))
    rows = [
        (
            f"{entry['learning_rate']:g}",
            *(entry["runs"], entry["failed"]),
            *(_number(entry[name]) for name in names),
        )
        for entry in content["learning_rates"]
    ]
    return headings, rows


def tabulate_runs(content: Mapping[str, Any]) -> Table:
    """Return the result of each run."""
    rows = [
        (
            name,
            _number(run["value"]),
            _number(run["baseline"]),
            "" if run["step"] is None else run["step"],
            f"FAILED: {run['failed']}" if run["failed"] else "",
        )
        for name, run in content["runs"].items()
    ]
    return ("run", content["metric"], "constant answer", "best step", ""), rows


def format_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Format a Markdown table, followed by an empty line."""
    yield f"| {' | '.join(map(_cell, headings))} |"
    yield "|---" * len(headings) + "|"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"
    yield ""


def _cell(value: Any) -> str:
    """Return a value as a table cell on one line; class names are free text."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
