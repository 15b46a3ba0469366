"""Files that are read whole, above all JSON, with errors that name the file.

All readers of such files use this module, so that each handles whatever may be in place of a file:
a directory, a loop of links, a device, text that is not UTF-8, JSON nested a hundred thousand deep
or with numbers of thousands of digits, values of the wrong type. This module imports neither flags
nor JAX, so all packages can use it.
"""

import itertools
import json
import os
import re
import stat
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

BYTE_ORDER_MARK = "\ufeff"

# No JSON or vocabulary is larger, and a larger file would be held in memory.
_MAX_BYTES = 1 << 30
# Nesting of JSON. Python's own limit differs between versions, and between reading and writing.
_MAX_DEPTH = 100
_LARGEST = (1 << 63) - 1  # of whole numbers
_SURROGATE = re.compile("[\ud800-\udfff]")

_KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


@runtime_checkable
class ReadablePath(Protocol):
    """A path, local or remote."""

    def __fspath__(self) -> str: ...

    def read_bytes(self) -> bytes:
        """Return the content of the file."""


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return True if a path names a store rather than this machine's file system."""
    return "://" in os.fspath(path)


def read_bytes(file: ReadablePath, *, error: type[Exception], name: str | None = None) -> bytes:
    """Read a file whole.

    Args:
        file: local or remote.
        error: the exception to raise.
        name: the file's name in messages; its path by default.

    Raises:
        error: there is no such file, it cannot be read, or it is a directory or a device.
    """
    path, name = os.fspath(file), name or os.fspath(file)
    try:
        if is_remote(path):
            return file.read_bytes()
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise error(f"{name} is a directory, expected a file")
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{name} is not a regular file")
        if found.st_size > _MAX_BYTES:
            raise error(f"{name} has {found.st_size:,} bytes, and may have {_MAX_BYTES:,}")
        return file.read_bytes()
    except FileNotFoundError:
        raise error(f"{name} does not exist") from None
    except OSError as fault:
        raise error(f"{name} cannot be read: {fault.strerror or fault}") from None


def read_text(file: ReadablePath, *, error: type[Exception], name: str | None = None) -> str:
    """Read a file of UTF-8, without its byte order mark.

    Raises:
        error: it is not UTF-8; see also `read_bytes`.
    """
    content = read_bytes(file, error=error, name=name)
    try:
        return content.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        byte = f"line {line}, byte 0x{content[fault.start]:02x}"
        raise error(f"{name or os.fspath(file)} is not UTF-8: {byte}") from None


def read_json_object(
    file: ReadablePath,
    *,
    error: type[Exception],
    name: str | None = None,
    drop_nulls: bool = False,
) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        file: local or remote.
        error: the exception to raise.
        name: the file's name in messages; its path by default.
        drop_nulls: leave out nulls at any depth: in a model's files they count as absent.

    Raises:
        error: it is not a JSON object, or a text in it is not Unicode; see also `read_text`.
    """
    content = parse_json(
        read_text(file, error=error, name=name), name or os.fspath(file), error=error
    )
    if not isinstance(content, dict):
        raise error(f"{name or os.fspath(file)} must be a JSON object, got {shorten(content)}")
    require_unicode(content, name or os.fspath(file), error=error)
    return _without_nulls(content) if drop_nulls else content


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value


def parse_json(text: str, name: str, *, error: type[Exception], line: int | None = None) -> Any:
    """Parse JSON.

    Args:
        text: JSON.
        name: name of the file that holds it.
        error: the exception to raise.
        line: line of the file at which it begins, for messages; None for a whole file.

    Raises:
        error: it is not JSON, is nested too deeply or has a number of too many digits.
    """
    place = name if line is None else f"{name}:{line}"
    try:
        content = json.loads(text.removeprefix(BYTE_ORDER_MARK))
    except json.JSONDecodeError as fault:
        if line is not None:
            place = f"{name}:{line + fault.lineno - 1}"
        raise error(f"{place}: this is not JSON: {fault}") from None
    except RecursionError:
        raise error(f"{place}: this JSON is nested more than {_MAX_DEPTH} deep") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise error(f"{place}: this JSON has a number of too many digits") from None
    if text.count("[") + text.count("{") > _MAX_DEPTH and _is_deep(content):
        raise error(f"{place}: this JSON is nested more than {_MAX_DEPTH} deep")
    return content


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        inside = (
            one.values() if isinstance(one, dict) else one
            for one in level
            if isinstance(one, dict | list)
        )
        level = list(itertools.chain.from_iterable(inside))
    return bool(level)


def require_unicode(content: Any, place: str, *, error: type[Exception]) -> None:
    """Check that all texts of a JSON value can be written as UTF-8.

    JSON can spell out halves of surrogate pairs, which UTF-8 cannot hold.

    Raises:
        error: one of them cannot; the message begins with the place.
    """
    if surrogate := _SURROGATE.search(json.dumps(content, ensure_ascii=False)):
        raise error(f"{place}: {surrogate[0]!a} is not Unicode text")


def require_fields(
    content: Any, kinds: Mapping[str, type], place: str, *, error: type[Exception]
) -> None:
    """Check that a JSON value is an object with fields of these types.

    Args:
        content: the value; it may have further fields.
        kinds: name -> `str`, `int` (not negative), `float` (finite or not), `bool`, `list`, `dict`.
        place: its name in messages.
        error: the exception to raise.

    Raises:
        error: a field is missing or of another type.

    Example: ``require_fields({"rows": "7"}, {"rows": int}, "a.json", error=ValueError)`` raises
    ``a.json: rows must be a whole number, got '7'``.
    """
    if not isinstance(content, dict):
        raise error(f"{place} must be an object, got {shorten(content)}")
    for name, kind in kinds.items():
        if name not in content:
            raise error(f"{place}: {name} is missing")
        value = content[name]
        accepted = (int, float) if kind is float else kind
        fits = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
        if fits and kind in (int, float) and isinstance(value, int):
            fits = (0 if kind is int else -_LARGEST) <= value <= _LARGEST
        if not fits:
            raise error(f"{place}: {name} must be {_KINDS[kind]}, got {shorten(value)}")


def shorten(value: Any, width: int = 60) -> str:
    """Return a value as messages show it, in one line that is not too long.

    Example: a list of a thousand numbers is ``[1, 2, 3, 4, …``.
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= width else f"{text[: width - 1]}…"
