"""The journal of a build, from which an interrupted build is resumed."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_jax.durable_files import write_atomically
from albert_jax.input_files import read_json_object, require_fields
from data_pipeline.building.selection.filters import Rejections, add_rejections
from data_pipeline.building.splits.held_out import REMOVED
from data_pipeline.errors import InputError
from data_pipeline.sources.text_files import FAULTS

JOURNAL_FILE = "journal.json"
_FIELDS = {"settings": dict, "has_tokenizer": bool, "blocks": int, "positions": dict}


@dataclasses.dataclass
class Journal:
    """A state of a build to which a later run can return.

    Logs only grow, so their lengths define a state. Anything beyond them was written after the
    journal and is cut off. Files of later blocks are written again.

    Attributes:
        settings: all that the result depends on; a build with other settings starts over.
        has_tokenizer: True once the tokenizer is saved.
        blocks: number of blocks of documents that are in files of their own.
        positions: log name -> its `position`.
        duplicates: number of duplicate documents dropped so far.
        faults: counts of lines and documents that could not be read unchanged.
        rejected: filter -> reason -> documents rejected so far.
        signed_blocks: number of blocks of documents that are in the files of signatures.
        near_duplicates: number of clusters, once they are found, and of the documents and
            characters dropped so far.
    """

    settings: Mapping[str, Any]
    has_tokenizer: bool = False
    blocks: int = 0
    positions: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    duplicates: int = 0
    faults: dict[str, int] = dataclasses.field(default_factory=dict)
    rejected: Rejections = dataclasses.field(default_factory=dict)
    signed_blocks: int = 0
    near_duplicates: dict[str, int] = dataclasses.field(default_factory=dict)

    def count(
        self, rejected: Rejections, near_duplicates: Mapping[str, int], faults: Mapping[str, int]
    ) -> None:
        """Add the counts of a block."""
        add_rejections(self.rejected, rejected)
        for total, more in ((self.near_duplicates, near_duplicates), (self.faults, faults)):
            for name, count in more.items():
                total[name] = total.get(name, 0) + count

    def report(self, removed: Mapping[str, int], *, near_duplicates: bool) -> dict[str, Any]:
        """Return the counts in the form used by the metadata of a corpus.

        Args:
            removed: counts of held-out text that was removed.
            near_duplicates: True if the build searched for near-duplicates.
        """
        return {
            "duplicate_documents": self.duplicates,
            **({"rejected": self.rejected} if self.rejected else {}),
            **({"near_duplicates": self.near_duplicates} if near_duplicates else {}),
            **{name: removed.get(name, 0) for name in REMOVED},
            **{name: self.faults.get(name, 0) for name in FAULTS},
        }

    def save(self, directory: Path) -> None:
        """Write the journal; the files that it names must already be synced to the disk."""
        write_atomically(directory / JOURNAL_FILE, json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def load(cls, directory: Path) -> "Journal | None":
        """Read the journal of an earlier run, or return None if there is no readable one."""
        file = directory / JOURNAL_FILE
        try:
            fields = read_json_object(file, error=InputError)
            require_fields(fields, _FIELDS, str(file), error=InputError)
            for name, position in fields["positions"].items():
                kinds = dict.fromkeys(position, int)
                require_fields(position, kinds, f"{file}: {name}", error=InputError)
            return cls(**fields)
        except (InputError, TypeError, AttributeError):
            return None


def differing_setting(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Describe the first setting that differs, or return None.

    Example: `differing_setting({"seed": 1}, {"seed": 2})` is `"seed was 1 and is 2"`.
    """
    for name in [*new, *old]:
        if old.get(name) != new.get(name):
            was, now = (_shorten(settings.get(name)) for settings in (old, new))
            return f"{name} was {was} and is {now}" if was != now else f"{name} changed"
    return None


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
