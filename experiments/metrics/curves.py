"""Plots of a run's metrics."""

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from etils import epath

from experiments.metrics.metrics_file import points_of, replace

if TYPE_CHECKING:  # otherwise importing takes a second before a command starts
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

CURVES_FILE = "curves.png"
SPLITS = ("train", "validation")  # splits whose metrics are plotted
Panel = tuple[str, str]  # name and title of a metric


def plot_curves(
    entries: Sequence[Mapping[str, Any]],
    path: epath.PathLike,
    panels: Sequence[Panel],
    *,
    title: str,
) -> None:
    """Plot metrics over steps: one panel a metric that has values, one line a split.

    Args:
        entries: step, split and metrics, as `read_metrics` gives them.
        path: the PNG to write.
        panels: the metrics.
        title: text above all panels.
    """
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    figure.suptitle(title)
    for axes, name in add_panels(figure, panels_with_data(panels, entries)):
        for color, split in enumerate(SPLITS):
            points = points_of(entries, split, name)
            if points:
                style = f"C{color}.-" if len(points) < 30 else f"C{color}-"
                axes.plot(*zip(*points, strict=True), style, label=split)
        axes.legend()
    save_figure(figure, path)


def panels_with_data(
    panels: Iterable[Panel],
    entries: Sequence[Mapping[str, Any]],
    splits: Sequence[str] = SPLITS,
) -> list[Panel]:
    """Return those panels whose metric is in an entry of one of the splits."""
    return [
        panel for panel in panels if any(e["split"] in splits and panel[0] in e for e in entries)
    ]


def add_panels(
    figure: "Figure", panels: Sequence[Panel], *, unit: str = "step", width: float = 5.0
) -> "list[tuple[Axes, str]]":
    """Add axes for metrics over steps, two a row, and set the figure's size.

    Args:
        figure: an empty figure.
        panels: the metrics.
        unit: label of the horizontal axis, which has whole numbers.
        width: width of a panel, in inches.

    Returns:
        The axes of each metric, and its name.
    """
    columns, rows = min(2, max(1, len(panels))), max(1, -(-len(panels) // 2))
    figure.set_size_inches(columns * width, rows * 3.5)
    added = []
    for place, (name, label) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_title(label)
        axes.set_xlabel(unit)
        axes.xaxis.set_major_locator(step_locator())
        axes.grid(alpha=0.3)
        added.append((axes, name))
    return added


def step_locator() -> "MaxNLocator":
    """Return the tick locator of an axis of steps, which picks whole and round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10])


def save_figure(figure: "Figure", path: epath.PathLike) -> None:
    """Save a figure as a PNG, which replaces an earlier one atomically."""
    image = BytesIO()
    figure.savefig(image, format="png", dpi=110)
    replace(epath.Path(path), image.getvalue())
