"""A run's curves as a picture."""

from collections.abc import Sequence
from typing import Any

import matplotlib
from etils import epath
from matplotlib.figure import Figure

matplotlib.use("Agg")

CURVES_FILE = "curves.png"
Panel = tuple[str, str]  # a figure's name, and the title above its curves


def plot_curves(
    entries: Sequence[dict[str, Any]],
    path: epath.PathLike,
    panels: Sequence[Panel],
    *,
    title: str,
) -> None:
    """Draws what `run_log.read_metrics` gives: one panel a figure, one line a split.

    Args:
        entries: step, split and figures.
        path: the PNG to write.
        panels: up to four figures.
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
    with epath.Path(path).open("wb") as file:
        figure.savefig(file, format="png", dpi=110)
