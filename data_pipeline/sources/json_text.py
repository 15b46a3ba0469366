"""JSON objects in text, with errors that name file and line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.sources.text_files import decode_lines, find_file


def parse_object(text: str, name: str, line: int) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        text: JSON.
        name: of the file that holds it.
        line: where in the file it begins.

    Raises:
        InputError: it is not JSON, or not an object.
    """
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{name}:{line + error.lineno - 1}: this is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise InputError(f"{name}:{line}: expected a JSON object, got {text.strip()[:40]!r}")
    return record


def require_unicode(record: Mapping[str, Any], place: str) -> None:
    """Check that all texts in an object can be written as UTF-8.

    JSON can spell out halves of surrogate pairs, which UTF-8 cannot hold.

    Raises:
        InputError: one of them cannot.
    """
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        surrogate = error.object[error.start]
        raise InputError(f"{place}: {surrogate!a} is not Unicode text") from None


def read_text(path: Path) -> str:
    """Read the text of a whole file, plain or compressed.

    Raises:
        InputError: there is no such file, or it is empty, damaged or not UTF-8.
    """
    return "".join(line for _, line in decode_lines(find_file(path)))
