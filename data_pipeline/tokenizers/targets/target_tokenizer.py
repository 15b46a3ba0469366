"""The interface of vocabularies of targets: lines to ids, ids to text, and files."""

import abc
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int32, Integer

from albert_jax.durable_files import new_file, write_atomically
from data_pipeline.errors import InputError

SETTINGS_FILE = "target_tokenizer.json"
# Bounds the number of lines whose ids are held as Python integers.
_LINES_AT_ONCE = 10_000


class TargetTokenizer(abc.ABC):
    """Vocabulary of the texts that a decoder writes.

    Case and accents are kept. Special tokens are never recognized in a text: `</s>` in a text is
    encoded as ordinary characters. Ids are those of the vocabulary's own library.

    Attributes:
        vocab_size: number of tokens.
        bos_id: id of the token with which the decoder begins.
        eos_id: id of the token that ends a target; it may equal `bos_id`.
        pad_id: id of the token after the end; it differs from the other two.
        pad_token: the padding token as text.
    """

    KIND: ClassVar[str]

    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int
    pad_token: str

    @classmethod
    @abc.abstractmethod
    def from_files(cls, directory: Path, settings: Mapping[str, Any]) -> "TargetTokenizer":
        """Read the files that `save` has written.

        Args:
            directory: the directory of the files.
            settings: content of `target_tokenizer.json`.

        Raises:
            InputError: a file is missing or is not a vocabulary of this kind.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """The kind, the number of tokens and the ids of special tokens, as stored."""
        return {
            "kind": self.KIND,
            "vocab_size": self.vocab_size,
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
            "pad_id": self.pad_id,
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that determines how text is encoded and decoded."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode())
        for name, content in sorted(self.vocabulary_files().items()):
            digest.update(f"\n{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    def encode_lines(
        self, lines: Sequence[str]
    ) -> tuple[Int32[np.ndarray, " tokens"], Int32[np.ndarray, " lines"]]:
        """Return the concatenated ids of many texts, and the number of ids of each text.

        The ids include no special tokens. A text may contain line ends.
        """
        ids, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
        for start in range(0, len(lines), _LINES_AT_ONCE):
            encoded = self._encode(list(lines[start : start + _LINES_AT_ONCE]))
            lengths.append(np.fromiter(map(len, encoded), np.int32, len(encoded)))
            ids.append(np.fromiter(itertools.chain.from_iterable(encoded), np.int32))
        return np.concatenate(ids), np.concatenate(lengths)

    def decode(self, ids: Sequence[int] | Integer[np.ndarray, " tokens"]) -> str:
        """Return the text up to the end token, without the begin token and padding.

        Bytes that are not valid UTF-8, which an untrained decoder writes, become U+FFFD.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        row = np.asarray(ids, np.int64)
        if row.size and row[0] == self.bos_id:
            row = row[1:]  # before searching for the end token, which has the same id in GPT-2
        row = row[: np.argmax(np.append(row == self.eos_id, True))]
        row = row[(row != self.bos_id) & (row != self.pad_id)]
        if row.size and not 0 <= row.min() <= row.max() < self.vocab_size:
            raise ValueError(
                f"ids from {row.min()} to {row.max()} in a vocabulary of {self.vocab_size} tokens"
            )
        return self._decode(row.tolist())

    def save(self, directory: Path) -> None:
        """Write the vocabulary and `target_tokenizer.json`, which `load_target_tokenizer` reads."""
        for name, content in self.vocabulary_files().items():
            with new_file(directory / name) as partial:
                partial.write_bytes(content)
        write_atomically(directory / SETTINGS_FILE, json.dumps(self.settings, indent=1) + "\n")

    def save_huggingface(self, directory: Path) -> None:
        """Write what `save` writes, and the files with which transformers produces the same ids.

        In transformers, a special token is recognized in a text that spells it, and no special
        tokens are added to a text.

        Raises:
            InputError: transformers does not support the vocabulary.
        """
        described, config = self._describe_huggingface()
        self.save(directory)
        for name, content in (("tokenizer.json", described), ("tokenizer_config.json", config)):
            text = json.dumps(content, indent=1, ensure_ascii=False)
            write_atomically(directory / name, text + "\n")

    @abc.abstractmethod
    def vocabulary_files(self) -> dict[str, bytes]:
        """Return the contents of the vocabulary's files, by name."""

    @abc.abstractmethod
    def _encode(self, lines: list[str]) -> list[list[int]]: ...

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str: ...

    @abc.abstractmethod
    def _describe_huggingface(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the contents of tokenizer.json and tokenizer_config.json."""

    def _require_separate_padding(self) -> None:
        if self.pad_id in (self.bos_id, self.eos_id):
            raise InputError(
                f"it pads with {self.pad_token!r}, which also begins or ends a target; padding "
                "must be a token of its own"
            )
