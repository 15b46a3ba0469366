"""JSON objects in text, with errors that name the file and the line."""

from pathlib import Path
from typing import Any

from albert_jax.input_files import parse_json, shorten
from data_pipeline.errors import InputError
from data_pipeline.sources.text_files import decode_lines, find_file


def parse_object(text: str, name: str, line: int) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        text: the JSON text.
        name: the name of the file that holds it.
        line: the line of the file where it begins.

    Raises:
        InputError: the text is not JSON, or not an object.
    """
    record = parse_json(text, name, error=InputError, line=line)
    if not isinstance(record, dict):
        raise InputError(f"{name}:{line}: expected a JSON object, got {shorten(text.strip(), 40)}")
    return record


def read_text(path: Path) -> str:
    """Read the whole text of a file, plain or compressed.

    Raises:
        InputError: the file does not exist, or is empty, damaged or not UTF-8.
    """
    return "".join(line for _, line in decode_lines(find_file(path)))
