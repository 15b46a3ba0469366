"""Code blocks, flags and links of Markdown pages."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAGES = sorted(
    [*map(Path, ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *Path("docs").glob("*.md")]
)
LANGUAGES = {"bash", "python", "text", "mermaid"}
_FENCED = re.compile(r"^( *)```(\S*)\n(.*?)^ *```$", re.M | re.S)


class Block(NamedTuple):
    """A fenced block of code."""

    page: Path
    line: int  # of its first line of code
    language: str
    code: str


class Command(NamedTuple):
    """A command of a shell block, or a line of flags, in one line."""

    page: Path
    line: int
    text: str

    @property
    def name(self) -> str:
        """Place of the command, as in ``docs/data.md:12``."""
        return f"{self.page}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, text[: match.start(3)].count("\n") + 1, match[2], match[3])
        for match in _FENCED.finditer(text)
    ]


def without_blocks(page: Path) -> str:
    return _FENCED.sub("", page.read_text())


def commands_of(block: Block) -> Iterator[Command]:
    """Yield the commands of a shell block, with continued lines joined.

    Example: ``make setup  # once\\npython -m a \\\\\\n  --b`` gives ``make setup`` and
    ``python -m a --b``.
    """
    joined, first = "", 0
    for number, line in enumerate(block.code.splitlines(), block.line):
        first = first if joined else number
        joined += re.sub(r"(^|\s+)# .*", "", line).strip()
        if joined.endswith("\\"):
            joined = joined[:-1].rstrip() + " "
        elif joined:
            yield Command(block.page, first, joined)
            joined = ""


def all_commands(pages: list[Path] = PAGES) -> list[Command]:
    """Return the commands of shell blocks, and those in backticks inside a sentence."""
    found = []
    for page in pages:
        for block in read_blocks(page):
            if block.language == "bash":
                found += commands_of(block)
        for match in re.finditer(r"`(python -m [^`]+)`", without_blocks(page)):
            found.append(Command(page, 0, " ".join(match[1].split())))
    return found
