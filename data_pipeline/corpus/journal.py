"""How far the building of a corpus has come, so that a run that was killed goes on from there."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from albert_jax.durable_files import sync, write_atomically
from data_pipeline.errors import InputError

JOURNAL_FILE = "journal.json"
_HASHES_AT_ONCE = 1 << 20


@dataclasses.dataclass
class Journal:
    """A state of a build to which a later run can return.

    Everything that a build writes only grows, so lengths name a state: what lies beyond them was
    written after the journal and is cut off.

    Attributes:
        settings: all that the result depends on; a build with others starts over.
        tokenizer: whether the tokenizer is in place.
        chunks: how many chunks of the input are in the files.
        positions: file or split -> what its writer's `position` returned.
        duplicates: documents dropped so far because they came before.
    """

    settings: Mapping[str, Any]
    tokenizer: bool = False
    chunks: int = 0
    positions: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    duplicates: int = 0

    def save(self, directory: Path) -> None:
        """Writes the journal; what it names must be on the disk already."""
        write_atomically(directory / JOURNAL_FILE, json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def load(cls, directory: Path) -> "Journal | None":
        """The journal of a build that was begun, or None if there is none that can be read."""
        try:
            return cls(**json.loads((directory / JOURNAL_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def differing_setting(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """The first setting that differs, in words, or None.

    Example: `differing_setting({"seed": 1}, {"seed": 2})` is `"seed was 1 and is 2"`.
    """
    for name in [*new, *old]:
        if old.get(name) != new.get(name):
            was, now = (_short(settings.get(name)) for settings in (old, new))
            return f"{name} was {was} and is {now}" if was != now else f"{name} changed"
    return None


class HashLog:
    """A file of 64-bit hashes that only grows."""

    def __init__(self, path: Path, position: Mapping[str, int] | None = None) -> None:
        """Starts the file, or continues it from what an earlier log's `position` returned."""
        self.path = path
        length = (position or {"bytes": 0})["bytes"]
        self._file = path.open("ab")
        if self._file.tell() < length:
            raise InputError(f"{path} is shorter than when it was last saved: remove it")
        self._file.truncate(length)

    def append(self, hashes: np.ndarray) -> None:
        """Adds hashes."""
        self._file.write(hashes.astype("<u8").tobytes())

    def position(self) -> dict[str, int]:
        """Puts everything on the disk and says how much there is."""
        self._file.flush()
        sync(self.path)
        return {"bytes": self.path.stat().st_size}

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_hashes(path: Path) -> Iterator[UInt64[np.ndarray, " n"]]:
    """The hashes of a log, a block at a time."""
    with path.open("rb") as file:
        while data := file.read(8 * _HASHES_AT_ONCE):
            yield np.frombuffer(data, "<u8").astype(np.uint64)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
