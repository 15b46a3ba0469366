"""Pages in HTML as a parser and as a browser see them."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest


class Outline(HTMLParser):
    """The elements of a page, its texts outside of scripts, and the content of its scripts."""

    VOID = frozenset({"meta", "link", "path", "circle", "polyline", "line", "img"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.text = list[str](), ""
        self.elements, self.scripts = list[tuple[str, dict[str, str | None]]](), list[str]()
        self.feed(page)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open += [] if tag in self.VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.open[-1:] != ["style"]:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Moves the pointer over every chart, and notes what went wrong.
PROBE = """<script>
for (const svg of document.querySelectorAll("svg")) {
  const box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", {
    clientX: box.left + 0.7 * box.width, clientY: box.top + box.height / 2, bubbles: true}));
}
</script>"""


def show(path: Path, profile: Path) -> tuple[str, list[str]]:
    """Return the document of a page, once its scripts have run, and the messages of its console."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            *("--disable-sync", f"--user-data-dir={profile}", "--window-size=1200,2000"),
            *("--enable-logging=stderr", "--dump-dom", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, re.findall(r".*CONSOLE.*", done.stderr)
