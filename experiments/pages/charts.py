"""Line charts as inline SVG, with the data that the page's script shows."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.metrics.curves import step_locator
from experiments.pages.document import escape, format_number

Point = tuple[int, float]

MOST_POINTS = 600  # per line, more than a screen can show

_WIDTH, _HEIGHT = 560, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 8, 40  # margins
# Okabe and Ito's colors, which color-blind readers can tell apart, without yellow, and three more.
_COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#888888"),
    *("#8c6bb1", "#a6761d", "#66a61e"),
)


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
        label: its name.
        points: pairs of step and value, with ascending steps.
        color: number of its color.
        group: its entry in the legend, which several lines may share; by default its label.
    """

    label: str
    points: Sequence[Point]
    color: int
    group: str = ""


class Chart(NamedTuple):
    """A chart of one metric over steps."""

    title: str
    lines: Sequence[Line]
    of: str = "step"  # the unit of the horizontal axis


class _Scale(NamedTuple):
    low: float
    high: float
    start: float  # pixels
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)


def format_charts(charts: Iterable[Chart]) -> str:
    """Return the charts that have points, side by side; empty if none has."""
    shown = [found for chart in charts if (found := _format_chart(chart))]
    return '<div class="charts">\n' + "\n".join(shown) + "\n</div>" if shown else ""


def thin_out(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return the finite points; if there are too many, the lowest and highest of each stretch.

    Example: ``[(1, 5), (2, 9), (3, 1), (4, 4)]`` with ``most=2`` gives ``[(2, 9), (3, 1)]``.
    """
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    if len(finite) <= most:
        return finite
    kept = set[Point]()
    for number in range(most // 2):
        stretch = finite[
            number * len(finite) // (most // 2) : (number + 1) * len(finite) // (most // 2)
        ]
        kept |= {min(stretch, key=_value), max(stretch, key=_value)}
    return sorted(kept)


def _value(point: Point) -> float:
    return point[1]


def _format_chart(chart: Chart) -> str:
    from matplotlib.ticker import MaxNLocator

    lines = [line._replace(points=thin_out(line.points)) for line in chart.lines]
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    steps = [step for line in lines for step, _ in line.points]
    values = [value for line in lines for _, value in line.points]
    x = _Scale(min(steps), max(steps), _LEFT, _WIDTH - _RIGHT)
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (0.05 * abs(low) or 1), high + (0.05 * abs(high) or 1)
    y_ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    y = _Scale(y_ticks[0], y_ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    parts = [*_grid(x, y, y_ticks, chart.of), *(_polyline(line, x, y) for line in lines)]
    svg = "\n".join(parts)
    title = escape(chart.title)
    return (
        f"<figure><figcaption>{title}</figcaption>\n"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">\n{svg}\n</svg>\n'
        f"{_legend(lines)}\n{_data(chart, lines, x)}\n</figure>"
    )


def _grid(x: _Scale, y: _Scale, y_ticks: Sequence[float], of: str) -> Iterable[str]:
    """Yield the lines of the ticks and their labels; steps are labeled with whole numbers."""
    for value in y_ticks:
        place = f"{y(value):.1f}"
        yield f'<path class="grid" d="M{_LEFT} {place}H{_WIDTH - _RIGHT}"/>'
        label = format_number(round(float(value), 12))
        yield f'<text x="{_LEFT - 6}" y="{place}" dy="4" text-anchor="end">{label}</text>'
    bottom = _HEIGHT - _BOTTOM
    for step in step_locator().tick_values(x.low, x.high):
        if x.low <= step <= x.high:
            yield f'<path class="grid" d="M{x(step):.1f} {bottom}v5"/>'
            place = f'x="{x(step):.1f}" y="{bottom + 18}" text-anchor="middle"'
            yield f"<text {place}>{int(step):,}</text>"
    middle = (x.start + x.end) / 2
    yield f'<text x="{middle:.1f}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(of)}</text>'
    yield f'<line class="cursor" y1="{_TOP}" y2="{bottom}" visibility="hidden"/>'


def _polyline(line: Line, x: _Scale, y: _Scale) -> str:
    color = _color(line)
    places = [(f"{x(step):.1f}", f"{y(value):.1f}") for step, value in line.points]
    path = " ".join(f"{left},{top}" for left, top in places)
    drawn = f'<polyline class="line" stroke="{color}" points="{path}"/>'
    if len(places) > 30:
        return drawn
    dots = (f'<circle cx="{left}" cy="{top}" r="2.5" fill="{color}"/>' for left, top in places)
    return "\n".join([drawn, *dots])


def _legend(lines: Sequence[Line]) -> str:
    entries = dict.fromkeys((_color(line), line.group or line.label) for line in lines)
    shown = (f'<span><i style="background:{c}"></i>{escape(label)}</span>' for c, label in entries)
    return f'<div class="legend">{"".join(shown)}</div>'


def _data(chart: Chart, lines: Sequence[Line], x: _Scale) -> str:
    content = {
        "of": chart.of,
        "x": x,
        "lines": [
            {
                "label": line.label,
                "color": _color(line),
                "points": [(step, float(format_number(value))) for step, value in line.points],
            }
            for line in lines
        ],
    }
    text = json.dumps(content, separators=(",", ":")).replace("<", r"\u003c")
    return f'<script type="application/json">{text}</script>'


def _color(line: Line) -> str:
    return _COLORS[line.color % len(_COLORS)]
