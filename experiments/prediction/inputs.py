"""The texts that a command is given: flags, a line each of a file, or JSON objects."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.errors import InputError


class RawInput(NamedTuple):
    """One thing to predict.

    Attributes:
        fields: `text`, and what else its task needs, by the names of the flags.
        source: where it stands, for messages.
    """

    fields: Mapping[str, Any]
    source: str

    def text(self, name: str = "text") -> str:
        """The text of a field.

        Raises:
            InputError: there is none, or it is empty.
        """
        value = self.fields.get(name)
        if not isinstance(value, str):
            found = "is missing" if value is None else f"must be a text, got {value!r}"
            raise InputError(f"{self.source}: {name} {found}")
        if not value.strip():
            raise InputError(f"{self.source}: {name} is empty")
        return value


def inputs_from_flags(fields: Mapping[str, Sequence[Any]]) -> list[RawInput]:
    """Examples whose fields are flags that may be repeated; unused flags are empty.

    Example: `{"text": ["a", "b"], "text_pair": ["c", "d"]}` are two examples.

    Raises:
        InputError: the flags are not equally many.
    """
    used = {name: values for name, values in fields.items() if values}
    counts = {name: len(values) for name, values in used.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"--{name} {count} times" for name, count in counts.items())
        raise InputError(f"flags that belong together must be given equally often, got {listed}")
    return [
        RawInput(dict(zip(used, values, strict=True)), f"example {number + 1}")
        for number, values in enumerate(zip(*used.values(), strict=True))
    ]


def read_inputs(path: Path) -> list[RawInput]:
    """A text a line, or a JSON object a line where the name ends in `.jsonl`.

    Raises:
        InputError: there is no such file, it is empty, or a line is none of these.
    """
    try:
        # Only line feeds end a line: texts may hold the other marks that Python splits at.
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise InputError(f"--input={path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"--input={path} is not UTF-8: {error.reason}") from None
    if lines == [""]:
        raise InputError(f"--input={path} is empty")
    sources = [f"--input={path}, line {number + 1}" for number in range(len(lines))]
    if path.suffix == ".jsonl":
        pairs = zip(lines, sources, strict=True)
        return [RawInput(_json_object(line, source), source) for line, source in pairs]
    if path.suffix == ".txt":
        pairs = zip(lines, sources, strict=True)
        return [RawInput({"text": line.removesuffix("\r")}, source) for line, source in pairs]
    raise InputError(f"--input={path} must end in .txt or .jsonl")


def _json_object(line: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{source} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{source} must be a JSON object, got {line[:40]}")
    return value
