"""Metadata of a corpus: `metadata.json`, with names, counts, hashes and seals of its content."""

import dataclasses
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.durable_files import hash_text, write_atomically
from data_pipeline.corpus.splits import (
    SHARD_FILES,
    TRAIN,
    VALIDATION,
    ShardSize,
    read_shard_size,
    shard_name,
)
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY
from data_pipeline.verification import (
    SEALS,
    DamageError,
    Files,
    check_file_records,
    is_count,
    parse_json_object,
    seal,
    unseal,
)

FORMAT_VERSION = 3
# Older versions that can still be read: from before plans by shard, and from before seals, when the
# fingerprint covered only the files.
_WHOLE_PLAN_VERSION, _UNSEALED_VERSION = 2, 1
_VERSIONS = (_UNSEALED_VERSION, _WHOLE_PLAN_VERSION, FORMAT_VERSION)
METADATA_FILE = "metadata.json"

COUNTED = ("documents", "sentences", "tokens")
_TOKENIZER_FILE = re.compile(rf"{TOKENIZER_DIRECTORY}/[^/.][^/]*")


class CorpusError(InputError):
    """A directory that holds no corpus, or one that is incomplete, damaged or incompatible."""


@dataclasses.dataclass(frozen=True)
class SourceMetadata:
    """One source of a corpus, and the text kept from it."""

    name: str
    weight: float  # how often its training text is read, relative to the other sources
    counts: Mapping[str, Mapping[str, int]]  # split -> documents, sentences, tokens


@dataclasses.dataclass(frozen=True)
class CorpusMetadata:
    """The content of `metadata.json`.

    Attributes:
        format_version: version of the directory's layout.
        fingerprint: SHA-256 over all that batches are made of; see `fingerprint_content`.
        vocab_size: number of tokens in the vocabulary.
        sources: where the documents came from; `Shard.document_sources` indexes them.
        splits: split -> shards, documents, sentences, tokens.
        files: path within the corpus -> bytes and sha256.
        settings: settings of the build.
        report: statistics of the build: dropped documents, unknown rate, and so on.
        versions: versions of Python and the libraries that affect the text.
    """

    format_version: int
    fingerprint: str
    vocab_size: int
    sources: tuple[SourceMetadata, ...]
    splits: Mapping[str, Mapping[str, int]]
    files: Files
    settings: Mapping[str, Any]
    report: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def cuts_long_sentences(self) -> bool:
        """True if plans cut sentences that are longer than a row, so that all their text is read.

        Plans of an older corpus leave such sentences whole and truncate them, so that the batches
        of a run on it stay the same.
        """
        return self.format_version > _UNSEALED_VERSION

    @property
    def plans_by_shard(self) -> bool:
        """True if each shard has its own rows, and epochs read them window by window.

        The rows of an older corpus mix all of its text, so that the batches of a run on it stay the
        same.
        """
        return self.format_version > _WHOLE_PLAN_VERSION

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each source, in source order."""
        return {source.name: source.weight for source in self.sources}

    @property
    def unsealed_fingerprint(self) -> str | None:
        """The fingerprint formerly used for a corpus without seals; None for other corpora."""
        return _hash_files(self.files) if self.format_version == _UNSEALED_VERSION else None

    def shard_sizes(self, split: str) -> list[ShardSize]:
        """Return the amount of text in each shard of a split, derived from its file sizes."""
        return [
            read_shard_size(self.files, f"{split}/{shard_name(number)}", self.vocab_size)
            for number in range(self.splits[split]["shards"])
        ]

    def to_json(self) -> str:
        """Return the text of `metadata.json`."""
        return json.dumps(seal(dataclasses.asdict(self)), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "CorpusMetadata":
        """Parse and check the text of `metadata.json`.

        Raises:
            CorpusError: the format version is not supported, or the text is not the metadata of a
                corpus, or it was changed after it was written.
        """
        try:
            fields = parse_json_object(text)
        except DamageError as error:
            raise CorpusError(f"it is not the metadata of a corpus: {error}") from None
        version = fields.get("format_version")
        if not is_count(version) or version not in _VERSIONS:
            raise CorpusError(
                f"it has format version {version!r}, and this program reads "
                f"{_VERSIONS[0]} to {_VERSIONS[-1]}: build the corpus again"
            )
        try:
            return cls._from_fields(fields)
        except DamageError as error:
            raise CorpusError(f"it is damaged: {error}") from None

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> "CorpusMetadata":
        is_sealed = fields["format_version"] > _UNSEALED_VERSION
        _check_forms({name: value for name, value in fields.items() if name != SEALS})
        _check_weights(fields["sources"], fields["settings"])
        if is_sealed:
            fields = unseal(fields)
        elif SEALS in fields:
            raise DamageError(f"format version {_UNSEALED_VERSION} has no {SEALS}")
        sources = tuple(SourceMetadata(**source) for source in fields["sources"])
        metadata = cls(**fields | {"sources": sources})
        _check_counts(metadata)
        content = fingerprint_content(
            metadata.files, metadata.weights, format_version=metadata.format_version
        )
        if metadata.fingerprint != (metadata.unsealed_fingerprint or content):
            raise DamageError("fingerprint is not the one of its files and weights")
        return dataclasses.replace(metadata, fingerprint=content)

    def save(self, directory: Path) -> None:
        """Write `metadata.json`, which makes the directory a corpus."""
        write_atomically(directory / METADATA_FILE, self.to_json())


def fingerprint_content(
    files: Files, weights: Mapping[str, float], *, format_version: int = FORMAT_VERSION
) -> str:
    """Return the SHA-256 over all that batches are made of.

    It covers the format, the names and hashes of all files, and the weights of the sources. For
    corpora without seals it used to cover only the files, so for those the weights are included
    only if they have an effect.
    """
    if format_version == _UNSEALED_VERSION and len(set(weights.values())) <= 1:
        return _hash_files(files)
    listed = "".join(f"{float(weight)!r}\n" for weight in weights.values())
    return hash_text(f"format {format_version}\n{_hash_files(files)}\n{listed}")


def _hash_files(files: Files) -> str:
    names = sorted(files, key=lambda name: name.split("/"))
    return hash_text("".join(f"{files[name]['sha256']} {name}\n" for name in names))


def _check_forms(fields: dict[str, Any]) -> None:
    """Check that the parsed fields have the types of `CorpusMetadata`."""
    names = [field.name for field in dataclasses.fields(CorpusMetadata)]
    for name in (*names, *fields):
        if name not in fields or name not in names:
            raise DamageError(f"{name} {'is missing' if name in names else 'is no field of it'}")
    check_file_records(fields["files"])
    for name in ("settings", "report", "versions"):
        if not isinstance(fields[name], dict):
            raise DamageError(f"{name} is no object")
    if not isinstance(fields["fingerprint"], str):
        raise DamageError("fingerprint is no text")
    if not is_count(fields["vocab_size"], at_least=1):
        raise DamageError("vocab_size is no positive number")
    _check_split_counts(fields["splits"], "splits", ("shards", *COUNTED))
    sources = fields["sources"]
    if not isinstance(sources, list) or not sources:
        raise DamageError("sources is no list of sources")
    for source in sources:
        if not isinstance(source, dict) or set(source) != {"name", "weight", "counts"}:
            raise DamageError("a source has not a name, a weight and counts")
        name, weight = source["name"], source["weight"]
        if not isinstance(name, str):
            raise DamageError("the name of a source is no text")
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 < weight <= sys.float_info.max:
            raise DamageError(f"the weight of source {name} is {weight!r}, not a positive number")
        _check_split_counts(source["counts"], f"the counts of source {name}", COUNTED)
    if len({source["name"] for source in sources}) < len(sources):
        raise DamageError("two sources have one name")


def _check_split_counts(splits: Any, what: str, names: Sequence[str]) -> None:
    if not isinstance(splits, dict) or set(splits) != {TRAIN, VALIDATION}:
        raise DamageError(f"{what} must be of {TRAIN} and {VALIDATION}")
    for split, counts in splits.items():
        if not isinstance(counts, dict) or set(counts) != set(names):
            raise DamageError(f"{what} must have {', '.join(names)} of {split}")
        for name in names:
            if not is_count(counts[name]):
                raise DamageError(f"{what} have no number of {split} {name}")


def _check_weights(sources: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    """Compare the sources with those of the build's settings, if these name any."""
    given = settings.get("sources")
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        return
    if [one.get("name") for one in given] != [source["name"] for source in sources]:
        raise DamageError("sources are not those of the build, which its settings name")
    for source, built in zip(sources, given, strict=True):
        if source["weight"] != built.get("weight"):
            raise DamageError(
                f"the weight of source {source['name']} is {source['weight']}, and it was built "
                f"with {built.get('weight')}; to change a weight, build the corpus again"
            )


def _check_counts(metadata: CorpusMetadata) -> None:
    """Compare the counts with each other, and with the names and sizes of the files."""
    shards = sum(counts["shards"] for counts in metadata.splits.values())
    others = [name for name in metadata.files if not _TOKENIZER_FILE.fullmatch(name)]
    if len(others) != shards * len(SHARD_FILES):
        raise DamageError(f"it names {len(others)} files of text for {shards} shards")
    if len(others) == len(metadata.files):
        raise DamageError("it names no files of a tokenizer")
    for split, counts in metadata.splits.items():
        sizes = metadata.shard_sizes(split)
        for name in COUNTED:
            total = sum(getattr(size, name) for size in sizes)
            by_source = sum(source.counts[split][name] for source in metadata.sources)
            if not counts[name] == total == by_source:
                raise DamageError(
                    f"it counts {counts[name]:,} {split} {name} and {by_source:,} of all sources, "
                    f"and its files hold {total:,}"
                )
