"""Documents as paragraphs, and the articles of WikiExtractor's files."""

import html
import re
from collections.abc import Callable, Iterator
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.sources.json_text import parse_object

# The paragraphs of a document, or its sentences in the sentences format; none is blank.
Document = list[str]

_TAG = re.compile(r'<doc id="[^"]*" .*title=".*">$')


def split_paragraphs(text: str) -> Document:
    """Split a text into its lines, dropping blank ones.

    Example: `split_paragraphs("One.  \\n\\nTwo.\\n")` is `["One.", "Two."]`.
    """
    return [stripped for line in text.split("\n") if (stripped := line.strip())]


def read_articles(
    lines: Iterator[tuple[int, str]], name: str, text_of: Callable[[dict[str, Any], int], str]
) -> Iterator[Document]:
    """Read articles without the first line, if it repeats the title in the tag.

    Args:
        lines: numbered lines, stripped of white space at both ends.
        name: the name of the file.
        text_of: returns the text of a JSON record, given the record and its line number.

    Raises:
        InputError: there is text between articles, or an article does not end.
    """
    document: Document | None = None
    title, opened = "", 0
    for number, line in lines:
        if document is not None and line == "</doc>":
            yield without_title(document, title)
            document = None
        elif document is not None:
            if _TAG.match(line):
                break
            if line:
                document.append(html.unescape(line))
        elif line.startswith("<doc "):
            match = re.search(r'title="(.*)"', line)
            title, opened = html.unescape(match[1]) if match else "", number
            document = []
        elif line.startswith("{"):
            record = parse_object(line, name, number)
            text = split_paragraphs(text_of(record, number))
            yield without_title(text, str(record.get("title", "")))
        elif line:
            raise InputError(
                f"{name}:{number}: expected <doc ...> or a JSON object, got {line[:40]!r}"
            )
    if document is not None:
        raise InputError(f"{name}:{opened}: this <doc> is not closed")


def without_title(document: Document, title: str) -> Document:
    """Drop the first paragraph of an article if it is the title."""
    return document[1:] if document and document[0] == title else document
