"""The goodput of a run as HTML: a stacked bar of its whole life, and a table."""

from collections.abc import Sequence

from data_pipeline.terminal import format_seconds
from experiments.goodput.attempts import Attempt, spell, summarize
from experiments.pages.document import escape, format_table

# Steps that count are green; among the others, the brighter, the more avoidable.
_COLORS = {
    "stepping": "#009e73",
    "evaluating": "#0072b2",
    "saving": "#56b4e9",
    "waiting_for_data": "#e69f00",
    "compiling": "#cc79a7",
    "restoring": "#8c6bb1",
    "opening_data": "#a6761d",
    "start_up": "#f0e442",
    "logging": "#66a61e",
    "other": "#888888",
    "lost": "#d55e00",
    "down": "#222222",
}


def format_goodput(attempts: Sequence[Attempt]) -> str:
    """Return the bar and the table of a run's attempts; empty if there are none."""
    if not attempts:
        return ""
    goodput = summarize(attempts)
    wall = max(goodput.wall_seconds, 1e-9)
    parts, rows = [], []
    for kind, seconds in goodput.seconds.items():
        share, label = seconds / wall, f"{spell(kind)}: {format_seconds(seconds)}"
        if share > 0:
            style = f"width:{share:.3%};background:{_COLORS[kind]}"
            parts.append(f'<span style="{style}" title="{escape(label)}, {share:.1%}"></span>')
        rows.append((spell(kind), round(seconds, 1), f"{share:.1%}"))
    legend = "".join(
        f'<span><i style="background:{_COLORS[kind]}"></i>{escape(spell(kind))}</span>'
        for kind, seconds in goodput.seconds.items()
        if seconds > 0
    )
    line, _, _ = goodput.format().partition(": ")
    return (
        f"<p>{escape(line)}</p>\n"
        f'<div class="bar" role="img" aria-label="{escape(goodput.format())}">{"".join(parts)}'
        f'</div>\n<div class="legend">{legend}</div>\n'
        f"{format_table(('what', 'seconds', 'share'), rows)}"
    )
