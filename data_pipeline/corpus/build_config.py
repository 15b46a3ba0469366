"""What to build, and everything that the result depends on."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

from albert_jax.durable_files import hash_text
from data_pipeline.sources.documents import Source
from data_pipeline.sources.text_files import InputFile
from data_pipeline.tokenizers.tokenizer import Tokenizer

# What shapes the text; other versions may build another corpus.
_LIBRARIES = ("sentencepiece", "sentencex", "numpy")


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """What to build. Fields are described by the flags of `data_pipeline.build_corpus`."""

    sources: tuple[Source, ...]
    output_dir: str
    vocab_size: int = 30_000
    tokenizer: str | None = None
    language: str = "en"
    lower_case: bool | None = None
    keep_accents: bool | None = None
    held_out: float = 0.01
    vocabulary_bytes: int = 1 << 30
    seed: int = 0
    num_processes: int = 1
    overwrite: bool = False

    def describe(self, files: Sequence[Sequence[InputFile]]) -> dict[str, Any]:
        """The settings that a corpus's metadata tells, the same on every machine.

        Args:
            files: of each source.
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
        }

    def describe_exactly(
        self, files: Sequence[Sequence[InputFile]], tokenizer: Tokenizer | None
    ) -> dict[str, Any]:
        """The same and what else must not change while a build is interrupted: the input files and
        the given tokenizer by their content, the libraries by their versions."""
        return {
            **self.describe(files),
            "tokenizer content": tokenizer.fingerprint if tokenizer else None,
            "input files": hash_text(repr([[tuple(file) for file in part] for part in files])),
            "versions": library_versions(),
        }


def library_versions() -> dict[str, str]:
    """The versions of Python and of what shapes the text."""
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **versions}
