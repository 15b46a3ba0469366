"""The picture of an accelerator's measurements: where steps spend their time, and rates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.terminal import say
from experiments.benchmarks.accelerator.ceilings import PRODUCT, largest_rate
from experiments.benchmarks.timing import UNKNOWN

PICTURE_FILE = "accelerator.png"
_MOST_BARS = 24

Rows = Sequence[Mapping[str, Any]]


def draw(rows: Rows, directory: Path, title: str) -> Path | None:
    """Draw the rows into `PICTURE_FILE`; return its path, or None if nothing was drawn.

    Without Matplotlib, print a line instead.

    Args:
        rows: the measurements of a journal.
        directory: where the picture is written.
        title: title above the whole picture.
    """
    steps = [row for row in rows if row["kind"] == "step"][:_MOST_BARS]
    profiles = [row for row in rows if row["kind"] == "profile"]
    if not steps and not profiles:
        return None
    try:
        from matplotlib.figure import Figure

        from experiments.metrics.curves import save_figure
    except ImportError as error:
        if not (error.name or "").startswith("matplotlib"):
            raise
        say("no picture: matplotlib is not installed")
        return None
    figure = Figure(layout="constrained", figsize=(13, 2 + 0.3 * max(12, len(steps))))
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    _draw_parts(left, profiles[:1])
    _draw_rates(right, steps, largest_rate(rows, PRODUCT))
    path = directory / PICTURE_FILE
    save_figure(figure, path)
    return path


def _draw_parts(axes: Any, profiles: Rows) -> None:
    """Draw the parts of a step as two stacked bars: measured times, and bounds."""
    axes.set_title("where a step's time goes")
    axes.set_ylabel("milliseconds")
    if not profiles:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        return
    (row,) = profiles
    bottoms = [0.0, 0.0]
    parts = {
        name: (part["milliseconds"], part["bound_milliseconds"] or 0.0)
        for name, part in row["parts"].items()
    }
    if row["idle_milliseconds"]:
        parts["between kernels"] = (row["idle_milliseconds"], 0.0)
    labels = [f"kernels of {row['counted']}", "bound"]
    for name, values in parts.items():
        if any(values):
            label = f"{name}: {values[0]:,.1f}, bound {values[1]:,.1f}"
            axes.bar(labels, values, bottom=bottoms, width=0.6, label=label)
            bottoms = [bottom + value for bottom, value in zip(bottoms, values, strict=True)]
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], fontsize="small", loc="upper right")
    axes.set_xlim(-0.5, 3.6)  # room for the legend


def _draw_rates(axes: Any, steps: Rows, ceiling: float | None) -> None:
    """Draw the rate of each step as a fraction of the device's peak, or of the measured ceiling."""
    known = all(row["share_of_peak"] != UNKNOWN for row in steps)
    axes.set_title("rates of steps")
    axes.set_xlabel("fraction of the device's peak" if known else "fraction of a large product's")
    names, values = [], []
    for row in steps[::-1]:
        values.append(_fraction(row, known, ceiling))
        variant = "" if row["variant"] == "default" else f", {row['variant']}"
        system = f"{row['system']}, " if row["system"] != "albert-jax" else ""
        names.append(
            f"{system}{row['size']}, {row['rows']} x {row['length']} {row['packing']}{variant}"
        )
    bars = axes.barh(range(len(names)), values, color="C0")
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.bar_label(bars, [f"{value:.1%}" for value in values], fontsize="small", padding=2)
    axes.set_xlim(0, max(1.0, *values, 0))


def _fraction(row: Mapping[str, Any], known: bool, ceiling: float | None) -> float:
    if known:
        return float(row["share_of_peak"])
    return 1e9 * row["gflops_per_second"] / ceiling if ceiling else 0.0
