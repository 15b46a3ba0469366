"""Raw inputs from flags, lines of a text file, or lines of JSON objects."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.input_files import read_text, require_unicode
from data_pipeline.errors import InputError
from data_pipeline.sources.json_text import parse_object
from experiments.tasks.raw_inputs import RawInput


def choose_inputs(fields: Mapping[str, Sequence[Any]], path: Path | None) -> list[RawInput]:
    """Return the inputs from either the flags or a file.

    Raises:
        InputError: both are given, or neither; see also `inputs_from_flags` and `read_inputs`.
    """
    if (path is not None) == any(fields.values()):
        raise InputError("give either --text, which may be repeated, or --input=FILE")
    return inputs_from_flags(fields) if path is None else read_inputs(path)


def inputs_from_flags(fields: Mapping[str, Sequence[Any]]) -> list[RawInput]:
    """Return inputs whose fields are repeated flags; unused flags are empty.

    Example: `{"text": ["a", "b"], "text_pair": ["c", "d"]}` gives two inputs.

    Raises:
        InputError: the flags are not given equally often.
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
    """Read a text per line of a `.txt`, or a JSON object per line of a `.jsonl`.

    Raises:
        InputError: the file is missing, empty or of another kind, or a line is malformed.
    """
    # Only line feeds end a line: texts may contain the other characters `splitlines` splits at.
    text = read_text(path, error=InputError, name=f"--input={path}")
    lines = text.removesuffix("\n").split("\n")
    if lines == [""]:
        raise InputError(f"--input={path} is empty")
    if path.suffix not in (".jsonl", ".txt"):
        raise InputError(f"--input={path} must end in .txt or .jsonl")
    inputs = []
    for number, line in enumerate(lines):
        source = f"--input={path}:{number + 1}"
        if path.suffix == ".jsonl":
            fields = parse_object(line, f"--input={path}", number + 1)
            require_unicode(fields, source, error=InputError)
        else:
            fields = {"text": line.removesuffix("\r")}
        inputs.append(RawInput(fields, source))
    return inputs
