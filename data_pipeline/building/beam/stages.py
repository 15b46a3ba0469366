"""The jobs' work on one part, block or shard, without Beam.

Any of it may run twice, or in two workers at once. Therefore files appear only when complete, and
their names are determined by what they hold.
"""

import functools
import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

from data_pipeline.building.beam.job import BuildJob
from data_pipeline.building.encoding import Encoder, SamplingTask
from data_pipeline.building.finishing import ShardTask
from data_pipeline.building.parts import Part, read_part, take
from data_pipeline.building.selection.documents import SelectedDocuments, start_once
from data_pipeline.building.selection.filters import Rejections, add_rejections
from data_pipeline.building.splits.blocks import write_block
from data_pipeline.building.splits.measurement import ShardReport
from data_pipeline.corpus.splits import TRAIN, VALIDATION, ShardSize, shard_name
from data_pipeline.errors import InputError
from data_pipeline.remote import new_binary_file, open_path
from data_pipeline.sources.documents import SourceFormat
from data_pipeline.sources.text_files import ReadingProgress
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY, Tokenizer

_PLACE_BITS = 32  # for a document's number within its part
_DIGEST_BYTES = 32

NumberedPart = tuple[int, Part]


class DocumentCopies(NamedTuple):
    """What becomes of a document with duplicates: dropped, or kept and its copies counted.

    Attributes:
        part: the part of the document.
        place: the number of the document within the part.
        others: 0 if the document is dropped, else the number of documents dropped as its copies.
    """

    part: int
    place: int
    others: int


class PartSummary(NamedTuple):
    """A part that was encoded.

    Attributes:
        part: the number of the part.
        blocks: the amount of training text in each of its blocks.
        duplicates: number of documents dropped, in any part, whose first copy is in this part.
        rejected: the documents that filters rejected.
        near_duplicates: see `SelectedDocuments`.
        faults: the reading faults.
    """

    part: int
    blocks: list[ShardSize]
    duplicates: int
    rejected: Rejections
    near_duplicates: dict[str, int]
    faults: Counter[str]


class HeldOutSummary(NamedTuple):
    """The amount of held-out text in each block of a part, and what was removed from it."""

    part: int
    blocks: list[ShardSize]
    removed: Counter[str]


class PartReader:
    """Reads the selected documents of a part, in batches.

    Attributes:
        digest: digest of the hashes of all documents, once they are read.
        faults: the reading faults, once everything is read.
    """

    def __init__(self, job: BuildJob, part: Part) -> None:
        self._job, self._part = job, part
        self._digest = hashlib.sha256()
        self._progress = ReadingProgress()

    def __iter__(self) -> Iterator[SelectedDocuments]:
        self._require_unchanged()
        source, progress = self._job.sources[self._part.source], self._progress
        read = read_part(source, self._part, progress)
        placed = ((document, progress.file) for document in read)
        selector = start_once(self._job.selection)
        while batch := take(placed):
            texts, places = [text for text, _ in batch], [place for _, place in batch]
            selected = selector.select(texts, places, self._part.source)
            self._digest.update(selected.hashes.astype("<u8").tobytes())
            yield selected
        self._require_unchanged()

    @property
    def digest(self) -> bytes:
        return self._digest.digest()

    @property
    def faults(self) -> Counter[str]:
        return self._progress.faults()

    def _require_unchanged(self) -> None:
        format = self._job.sources[self._part.source].format
        # A data set name is not a file, and documentation of packages has no versions.
        if format not in (SourceFormat.TFDS, SourceFormat.DOCSTRINGS):
            for file in self._part.files:
                file.require_unchanged()


def sample_part(job: BuildJob, numbered: NumberedPart, task: SamplingTask) -> None:
    """Write the sentences of a part that the vocabulary is trained on."""
    number, part = numbered
    with new_binary_file(job.records("sample", number)) as file:
        for selected in PartReader(job, part):
            sentences = task.sample(selected, part.source)
            file.write("".join(f"{sentence}\n" for sentence in sentences).encode())


def hash_part(job: BuildJob, numbered: NumberedPart) -> Iterator[tuple[int, int] | bytes]:
    """Yield the hash of each document with its ordinal, and finally the digest of the part.

    Ordinals increase in reading order across all parts.
    """
    number, part = numbered
    reader = PartReader(job, part)
    ordinal = number << _PLACE_BITS
    for selected in reader:
        for hash in selected.hashes.view(np.int64).tolist():
            yield hash, ordinal
            ordinal += 1
    yield reader.digest


def find_duplicates(ordinals: Iterable[int]) -> Iterator[DocumentCopies]:
    """Yield what happens to each document with the same hash: only the first one is kept."""
    first, count = min(ordinals), 0
    for ordinal in ordinals:
        count += 1
        if ordinal != first:
            yield _copies(ordinal, 0)
    if count > 1:
        yield _copies(first, count - 1)


def _copies(ordinal: int, others: int) -> DocumentCopies:
    return DocumentCopies(ordinal >> _PLACE_BITS, ordinal & ((1 << _PLACE_BITS) - 1), others)


def write_plan(
    job: BuildJob, part: int, digests: Iterable[bytes], copies: Iterable[DocumentCopies]
) -> None:
    """Write which documents of a part are dropped, and the digest of the documents read."""
    (digest,) = set(digests)
    rows = sorted({(one.place, one.others) for one in copies})
    with new_binary_file(job.plan(part)) as file:
        file.write(digest + np.array(rows, "<i8").tobytes())


def read_plan(job: BuildJob, part: int) -> tuple[bytes, Int64[np.ndarray, "copies 2"]]:
    """Read what `write_plan` wrote: the digest, and the place and others of each document."""
    data = job.plan(part).read_bytes()
    rows = np.frombuffer(data[_DIGEST_BYTES:], "<i8").reshape(-1, 2).astype(np.int64)
    return data[:_DIGEST_BYTES], rows


def encode_part(
    job: BuildJob, numbered: NumberedPart
) -> tuple[PartSummary, UInt64[np.ndarray, " hashes"]]:
    """Encode the documents of a part into blocks; also return the hashes of held-out sentences.

    Raises:
        InputError: the part has changed since its documents were hashed.
    """
    number, part = numbered
    digest, copies = read_plan(job, number)
    tokenizer = load_tokenizer_of(job)
    encoder, reader = Encoder(job.splitter, tokenizer), PartReader(job, part)
    summary = PartSummary(number, [], 0, {}, {}, Counter())
    near, held_out, duplicates, first = Counter[str](), [np.zeros(0, np.uint64)], 0, 0
    for selected in reader:
        here = copies[(copies[:, 0] >= first) & (copies[:, 0] < first + len(selected.hashes))]
        first += len(selected.hashes)
        places = here[:, 0] - (first - len(selected.hashes))
        is_kept = np.ones(len(selected.hashes), bool)
        is_kept[places[here[:, 1] == 0]] = False
        kept = [text for text, keep in zip(selected.documents, is_kept, strict=True) if keep]
        block = encoder.encode(kept, selected.hashes[is_kept], part.source)
        # Copies of a document without tokens do not count as dropped: it would not be kept anyway.
        is_counted = np.isin(selected.hashes[places], block.document_hashes)
        duplicates += int(here[is_counted, 1].sum())
        reference = job.block(number, len(summary.blocks))
        write_block(reference.path, block, tokenizer.vocab_size)
        splits = reference.splits(block)
        summary.blocks.append(splits.total(TRAIN))
        held_out.append(splits.hashes(VALIDATION))
        add_rejections(summary.rejected, selected.rejected)
        near.update(selected.near_duplicates)
    if reader.digest != digest:
        raise InputError(
            f"{part.files[0].name} has changed since its documents were hashed, or a filter "
            "answers otherwise: start the build again"
        )
    counted = summary._replace(
        duplicates=duplicates, near_duplicates=dict(near), faults=reader.faults
    )
    return counted, np.unique(np.concatenate(held_out))


def write_shard_of(job: BuildJob, task: ShardTask) -> ShardReport:
    """Write a shard into the corpus, and count its text."""
    corpus = open_path(job.corpus)
    with tempfile.TemporaryDirectory(prefix="albert-jax-shard-") as scratch:
        report = task.write(Path(scratch), len(job.sources), load_tokenizer_of(job))
        local = Path(scratch) / task.split / shard_name(task.number)
        for name in report.files:
            with (
                (local / name).open("rb") as written,
                new_binary_file(corpus / task.split / local.name / name) as file,
            ):
                shutil.copyfileobj(written, file, 1 << 22)
    return report


def load_tokenizer_of(job: BuildJob) -> Tokenizer:
    """Load the tokenizer of a build, once per process."""
    return _load_tokenizer(job.corpus, job.fingerprint)


@functools.lru_cache(maxsize=1)
def _load_tokenizer(corpus: str, fingerprint: str) -> Tokenizer:
    with tempfile.TemporaryDirectory(prefix="albert-jax-tokenizer-") as local:
        for file in open_path(f"{corpus}/{TOKENIZER_DIRECTORY}").iterdir():
            Path(local, file.name).write_bytes(file.read_bytes())
        tokenizer = load_tokenizer(local)
    if tokenizer.fingerprint != fingerprint:
        raise InputError(f"the tokenizer in {corpus} has changed: start the build again")
    return tokenizer
