"""What all workers of a build need to know, and the versions that they must agree on."""

import dataclasses
import functools
import hashlib
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from etils import epath

from data_pipeline.building.selection.documents import Selection
from data_pipeline.building.splits.held_out import BlockReference, HashFile
from data_pipeline.errors import InputError
from data_pipeline.remote import new_binary_file, open_path
from data_pipeline.sources.documents import Source
from data_pipeline.sources.sentences import SentenceSplitter

# A file holds the records of this many parts or shards.
PARTS_PER_FILE, SHARDS_PER_FILE = 1000, 100

# The modules of `albert_jax` that process text; in `data_pipeline`, all do.
_SHARED_FILES = ("settings.py", "durable_files.py", "input_files.py")


@dataclasses.dataclass(frozen=True)
class BuildJob:
    """A build as its workers see it; sent to them with each job.

    Attributes:
        work: the directory of everything that is not part of the corpus.
        corpus: the directory of the corpus.
        sources: the sources of the build.
        selection: which documents to keep.
        splitter: the sentence splitter.
        held_out: the fraction of documents held out.
        fingerprint: the fingerprint of the tokenizer, once there is one.
        versions: of Python, the libraries and this program, on the machine that started the build.
    """

    work: str
    corpus: str
    sources: tuple[Source, ...]
    selection: Selection
    splitter: SentenceSplitter
    held_out: float
    fingerprint: str
    versions: tuple[tuple[str, str], ...]

    def path(self, *names: str) -> epath.Path:
        """Return a path in the work directory."""
        return open_path("/".join((self.work, *names)))

    def block(self, part: int, number: int, in_training: HashFile | None = None) -> BlockReference:
        """Return a block of a part."""
        path = self.path("blocks", f"{part // PARTS_PER_FILE:06d}", f"{part:09d}-{number:06d}")
        return BlockReference(path, self.held_out, None, in_training)

    def plan(self, part: int) -> epath.Path:
        """Return the file that records which documents of a part are duplicates."""
        return self.path("plans", f"{part // PARTS_PER_FILE:06d}", f"{part:09d}")

    def records(self, kind: str, number: int) -> epath.Path:
        """Return a file of records."""
        return self.path(kind, f"{number:06d}")

    def require_same_versions(self) -> None:
        """Compare the versions of this process with those of the build.

        Raises:
            InputError: a version differs.
        """
        own = dict(program_versions(tuple(name for name, _ in self.versions)))
        for name, version in self.versions:
            if own[name] != version:
                shown = (version[:16], own[name][:16])
                raise InputError(
                    f"a worker has another {name} ({shown[1]}) than the build was started with "
                    f"({shown[0]}): install the same on all machines"
                )


@functools.lru_cache(maxsize=1)
def program_versions(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the versions of libraries and of Python, and a digest of this program's files."""
    import importlib.metadata
    import platform

    special = {"python": platform.python_version(), "data_pipeline": _hash_program()}
    return tuple((name, special.get(name) or importlib.metadata.version(name)) for name in names)


def _hash_program() -> str:
    package = Path(__file__).parents[2]
    shared = [package.parent / "albert_jax" / name for name in _SHARED_FILES]
    digest = hashlib.sha256()
    for file in (*sorted(package.rglob("*.py")), *shared):
        digest.update(f"{file.relative_to(package.parent)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def write_records(path: epath.Path, records: Iterable[Any]) -> None:
    """Pickle objects of this program to a file that only its own workers read."""
    with new_binary_file(path) as file:
        pickle.dump(list(records), file)


def read_records(path: epath.Path) -> Iterator[Any]:
    """Read the objects of a file."""
    with path.open("rb") as file:
        yield from pickle.load(file)
