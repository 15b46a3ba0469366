"""An HTML document in one file: sections, tables, style and script; it loads nothing else."""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, NamedTuple

from etils import epath

from experiments.metrics.metrics_file import replace

PAGE_FILE = "report.html"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
<script>
{script}</script>
</body>
</html>
"""


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        heading: plain text.
        content: HTML; a section without any is left out.
        folded: True to show the content only after a click.
    """

    heading: str
    content: str
    folded: bool = False


def write_page(path: epath.Path, title: str, sections: Iterable[Section]) -> None:
    """Write a page, which replaces an earlier one atomically."""
    replace(path, format_page(title, sections).encode())


def format_page(title: str, sections: Iterable[Section]) -> str:
    """Return the text of a page."""
    folder = resources.files("experiments.pages")
    style, script = (folder.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    body = "\n".join(_format_section(section) for section in sections if section.content)
    return _PAGE.format(title=escape(title), style=style, script=script, body=body)


def escape(value: Any) -> str:
    """Return any value as HTML text, with markup escaped and forbidden characters replaced."""
    text = html.escape(str(value))
    return re.sub(
        r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text
    )


def format_number(value: float) -> str:
    """Return a number with at most six digits. Examples: ``0.152344``, ``1117``, ``2.5e-06``."""
    return f"{value:.6g}"


def format_table(headings: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table, with shortened floats; empty without rows."""
    lines = ["".join(f"<td>{_cell(value)}</td>" for value in row) for row in rows]
    if not lines:
        return ""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def format_picture(png: bytes, description: str) -> str:
    """Return a picture that is embedded in the page.

    Args:
        png: content of the file.
        description: what it shows, for readers who cannot see it.
    """
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{data}">'


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return escape(format_number(value) if isinstance(value, float) else value)


def _format_section(section: Section) -> str:
    heading = escape(section.heading)
    if section.folded:
        summary = f"<summary><h2>{heading}</h2></summary>"
        return f"<details>{summary}\n{section.content}\n</details>"
    return f"<section><h2>{heading}</h2>\n{section.content}\n</section>"
