"""Configuration of a corpus build, and everything else that its result depends on."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Sequence
from typing import Any

from albert_jax.durable_files import hash_text
from albert_jax.settings import FieldError, check_settings, own_settings, setting
from data_pipeline.building.selection.filters import DocumentFilter, check_filter_names
from data_pipeline.building.selection.minhash import (
    MINHASH_LIBRARY,
    MinHash,
    NearDuplicates,
    require_library,
)
from data_pipeline.sources.documents import Source
from data_pipeline.sources.sentences import LONGEST_SENTENCE
from data_pipeline.sources.text_files import InputFile
from data_pipeline.tokenizers.tokenizer import Tokenizer

# Libraries that process the text; with other versions the corpus may differ.
_LIBRARIES = ("sentencepiece", "sentencex", "numpy")


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """Configuration of a corpus build. All settings but `sources` are flags of
    `data_pipeline.build_corpus`.

    Raises:
        FieldError: a value is not allowed.
    """

    sources: tuple[Source, ...]
    output_dir: str = setting(dataclasses.MISSING, "Directory of the new corpus; may be remote.")
    vocab_size: int = setting(
        30_000, "Tokens of a vocabulary to train.", at_least=14, at_most=10_000_000
    )
    tokenizer: str | None = setting(
        None,
        "An existing vocabulary: a SentencePiece .model, a WordPiece .txt, or the tokenizer of a "
        "corpus. Without it a SentencePiece vocabulary is trained.",
    )
    language: str = setting("en", "ISO code of the language, by which sentences are split.")
    lower_case: bool | None = setting(
        None,
        "Drop case, as the released English models do. By default what --tokenizer says, else "
        "true.",
    )
    keep_accents: bool | None = setting(
        None,
        "Keep accents, which the released English models drop. By default what --tokenizer says, "
        "else false.",
    )
    held_out: float = setting(
        0.01,
        "Fraction of the documents, chosen by a hash of their text, that are kept for validation.",
        at_least=0,
        below=1,
    )
    filter: tuple[str, ...] = setting(
        (),
        "module:function, a quality filter: called with the text of a document and the name of its "
        "source, it returns True to keep the document, False or a reason to reject it. May be "
        "repeated; the module is on PYTHONPATH or in the working directory.",
    )
    near_duplicates: NearDuplicates = setting(
        NearDuplicates.NONE,
        "minhash: keep only the first of documents with similar sets of word n-grams. Needs "
        "pip install 'albert-jax[minhash]'.",
    )
    minhash_ngram: int = setting(5, "Words of an n-gram.", at_least=1, at_most=64)
    minhash_bands: int = setting(
        14,
        "Bands of a signature; two documents are near-duplicates if they share one.",
        at_least=1,
        at_most=128,
    )
    minhash_band_size: int = setting(8, "Hashes of a band.", at_least=1, at_most=128)
    minhash_seed: int = setting(1, "Seed of the hashes.", at_least=0, at_most=2**32 - 1)
    vocabulary_bytes: int = setting(
        1 << 30,
        "How much text to train a vocabulary on, in bytes: documents sampled at random beyond "
        "that. Training holds all of it in memory several times over.",
        at_least=1,
    )
    seed: int = setting(0, "Seed of the sentences that a vocabulary is trained on.")
    num_processes: int = setting(
        0,
        "Processes that split and encode; 0 means one per core. The corpus does not depend on it.",
        at_least=0,
        at_most=4096,
    )
    overwrite: bool = setting(
        False, "Replace a corpus at --output_dir once the new one is complete."
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if not re.fullmatch(r"[a-z]{2,3}(-\w+)?", self.language):
            raise FieldError("language", "an ISO code such as en", self.language)
        check_filter_names(self.filter)
        self._check_minhash()
        if not self.num_processes:
            object.__setattr__(self, "num_processes", _available_cores())

    def _check_minhash(self) -> None:
        if self.minhash is not None:
            require_library()
            return
        for one in own_settings(BuildConfig):
            value = getattr(self, one.name)
            if one.name.startswith(f"{NearDuplicates.MINHASH}_") and value != one.default:
                allowed = f"left out without --near_duplicates={NearDuplicates.MINHASH}"
                raise FieldError(one.name, allowed, value)

    @property
    def minhash(self) -> MinHash | None:
        """How near-duplicates are found; None if they are kept."""
        if self.near_duplicates is NearDuplicates.NONE:
            return None
        size = (self.minhash_bands, self.minhash_band_size)
        return MinHash(self.minhash_ngram, *size, self.minhash_seed)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of Python and of the libraries that process the text."""
        names = _LIBRARIES if self.minhash is None else (*_LIBRARIES, MINHASH_LIBRARY)
        versions = {name: importlib.metadata.version(name) for name in names}
        return {"python": platform.python_version(), **versions}

    def find_inputs(self) -> "tuple[BuildConfig, list[list[InputFile]]]":
        """Find the files of each source, and their text columns.

        Returns:
            The configuration with the columns, and the files.

        Raises:
            InputError: a source has no files, or its files have no text.
        """
        files = [source.find_inputs() for source in self.sources]
        sources = map(Source.with_text_column, self.sources, files)
        return dataclasses.replace(self, sources=tuple(sources)), files

    def describe(
        self, files: Sequence[Sequence[InputFile]], filters: Sequence[DocumentFilter] = ()
    ) -> dict[str, Any]:
        """Return the settings that the metadata of a corpus records, the same on every machine.

        Args:
            files: the files of each source.
            filters: the filters that `filter` names.
        """
        sources = [
            {
                **dataclasses.asdict(source),
                "files": len(inputs),
                "bytes": sum(file.size for file in inputs),
            }
            for source, inputs in zip(self.sources, files, strict=True)
        ]
        return {
            "sources": sources,
            "tokenizer": self.tokenizer,
            "vocab_size": None if self.tokenizer else self.vocab_size,
            "lower_case": self.lower_case,
            "keep_accents": self.keep_accents,
            "language": self.language,
            "held_out": self.held_out,
            "vocabulary_bytes": self.vocabulary_bytes,
            "seed": self.seed,
            "longest_sentence": LONGEST_SENTENCE,
            # Present only if used, so that the description of other corpora stays the same.
            **({"filters": [one._asdict() for one in filters]} if filters else {}),
            **({"near_duplicates": self.minhash.describe()} if self.minhash else {}),
        }

    def describe_exactly(
        self,
        files: Sequence[Sequence[InputFile]],
        tokenizer: Tokenizer | None,
        filters: Sequence[DocumentFilter] = (),
    ) -> dict[str, Any]:
        """Return these settings and everything else that must not change before a build resumes.

        That is the names, sizes and versions of the input files, the content of the given
        tokenizer, and the versions of the libraries. Writing the result as JSON and reading it back
        does not change it.
        """
        settings = {
            **self.describe(files, filters),
            "tokenizer content": tokenizer.fingerprint if tokenizer else None,
            "input files": hash_text(repr([[tuple(file) for file in part] for part in files])),
            "versions": self.versions,
        }
        return json.loads(json.dumps(settings))


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # missing on some systems
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
