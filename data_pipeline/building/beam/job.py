"""What all workers of a build have to know, and the versions that they must agree on."""

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

# Records of so many parts, or shards, share a file.
PARTS_PER_FILE, SHARDS_PER_FILE = 1000, 100

# What of `albert_jax` the text goes through; all of `data_pipeline` does.
_SHARED_FILES = ("settings.py", "durable_files.py", "input_files.py")


@dataclasses.dataclass(frozen=True)
class BuildJob:
    """A build as its workers see it, sent to them with each job.

    Attributes:
        work: directory of everything that is no part of the corpus.
        corpus: directory of the corpus.
        sources: of the build.
        selection: of documents.
        splitter: of sentences.
        held_out: fraction of the documents.
        fingerprint: of the tokenizer, once there is one.
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
        """Return a path in the directory of work."""
        return open_path("/".join((self.work, *names)))

    def block(self, part: int, number: int, in_training: HashFile | None = None) -> BlockReference:
        """Return a block of a part."""
        path = self.path("blocks", f"{part // PARTS_PER_FILE:06d}", f"{part:09d}-{number:06d}")
        return BlockReference(path, self.held_out, None, in_training)

    def plan(self, part: int) -> epath.Path:
        """Return the file that says which documents of a part are duplicates."""
        return self.path("plans", f"{part // PARTS_PER_FILE:06d}", f"{part:09d}")

    def records(self, kind: str, number: int) -> epath.Path:
        """Return a file of records."""
        return self.path(kind, f"{number:06d}")

    def require_same_versions(self) -> None:
        """Compare the versions of this process with those of the build.

        Raises:
            InputError: one differs.
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
    """Write objects of this program to a file, which only its own workers read."""
    with new_binary_file(path) as file:
        pickle.dump(list(records), file)


def read_records(path: epath.Path) -> Iterator[Any]:
    """Read the objects of a file."""
    with path.open("rb") as file:
        yield from pickle.load(file)
