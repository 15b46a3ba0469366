"""Plots of a run's metrics."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import matplotlib
from etils import epath
from matplotlib.figure import Figure

from experiments.metrics.metrics_file import replace

matplotlib.use("Agg")

CURVES_FILE = "curves.png"
Panel = tuple[str, str]  # name and title of a metric


def plot_curves(
    entries: Sequence[dict[str, Any]],
    path: epath.PathLike,
    panels: Sequence[Panel],
    *,
    title: str,
) -> None:
    """Plot metrics over steps: one panel a metric, one line a split.

    Args:
        entries: step, split and metrics, as `read_metrics` gives them.
        path: the PNG to write.
        panels: up to four metrics.
        title: above all panels.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(title)
    for axes, (name, label) in zip(figure.subplots(2, 2).flat, panels, strict=False):
        for split in ("train", "validation"):
            points = [(e["step"], e[name]) for e in entries if e["split"] == split and name in e]
            if points:
                axes.plot(*zip(*points, strict=True), label=split, marker="." * (len(points) < 30))
        axes.set_xlabel("step")
        axes.set_title(label)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    save_figure(figure, path)


def save_figure(figure: Figure, path: epath.PathLike) -> None:
    """Save a figure as a PNG, which replaces the one before as a whole."""
    image = BytesIO()
    figure.savefig(image, format="png", dpi=110)
    replace(epath.Path(path), image.getvalue())
