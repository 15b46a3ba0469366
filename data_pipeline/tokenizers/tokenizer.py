"""Text to piece ids and back: what both kinds of vocabulary share, and loading either."""

import abc
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow
import pyarrow.compute
from jaxtyping import Bool, Int32, Int64

from albert_jax.durable_files import write_atomically
from data_pipeline.config import WordStartRule

SETTINGS_FILE = "tokenizer.json"

# Encoded words are remembered, about 200 bytes each, 500 with offsets.
_MAX_REMEMBERED_WORDS = 500_000

_AlignedIds = tuple[Int32[np.ndarray, " tokens"], Int32[np.ndarray, "tokens 2"]]


class Tokenizer(abc.ABC):
    """Encodes text without special tokens, word by word.

    No piece of either kind of vocabulary reaches across white space, so a sentence's ids are those
    of its words one after the other, and a word is encoded only when it is new.

    Attributes:
        tokens: what each id stands for.
        pad_id, unk_id, cls_id, sep_id, mask_id: the special pieces.
        lower_case, keep_accents: how text is normalized.
    """

    KIND: ClassVar[str]
    VOCABULARY_FILE: ClassVar[str]

    tokens: tuple[str, ...]
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    def __init__(self, *, lower_case: bool, keep_accents: bool) -> None:
        self.lower_case = lower_case
        self.keep_accents = keep_accents
        # Words that were encoded: their numbers, and where the ids of each begin, and how many.
        self._word_numbers: dict[str, int] = {}
        self._word_starts = np.zeros(0, np.int64)
        self._word_lengths = np.zeros(0, np.int64)
        self._word_ids = np.zeros(0, np.int32)
        self._aligned_words: dict[str, _AlignedIds] = {}

    @property
    def vocab_size(self) -> int:
        """The number of pieces."""
        return len(self.tokens)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides how text is encoded."""
        settings = f"{self.KIND} {self.lower_case} {self.keep_accents}\n".encode()
        return hashlib.sha256(settings + self.vocabulary_bytes()).hexdigest()

    @property
    def special_ids(self) -> Int32[np.ndarray, " specials"]:
        """Padding, unknown, [CLS], [SEP], [MASK]."""
        ids = [self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id]
        return np.array(ids, np.int32)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens.

        Text never becomes a special piece other than unknown: a literal "[MASK]" is the pieces of
        its characters.
        """
        ids, _ = self.encode_lines([text])
        return ids.tolist()

    def encode_lines(
        self, lines: Sequence[str]
    ) -> tuple[Int32[np.ndarray, " tokens"], Int32[np.ndarray, " lines"]]:
        """The ids of many texts end to end, and how many ids each has.

        Example: with the released vocabulary `encode_lines(["the", "", "The the"])` is
        `([14, 14, 14], [1, 0, 2])`.
        """
        if not lines:
            return np.zeros(0, np.int32), np.zeros(0, np.int32)
        # Arrow splits and numbers the words of a chunk several times as fast as Python objects.
        split = pyarrow.compute.split_pattern(pyarrow.array(lines, pyarrow.string()), " ")
        words = split.flatten().dictionary_encode()
        numbers = self._number_words(words.dictionary.to_pylist())[words.indices.to_numpy()]
        lengths = self._word_lengths[numbers]
        ends = np.cumsum(lengths)
        # Place k of a word that begins at token t is place k + t here and k + start in the table.
        shifts = np.repeat(self._word_starts[numbers] - (ends - lengths), lengths)
        ids = self._word_ids[shifts + np.arange(len(shifts))]
        totals = np.concatenate([[0], ends])[split.offsets.to_numpy()]
        return ids, np.diff(totals).astype(np.int32)

    def encode_with_offsets(
        self, text: str
    ) -> tuple[Int32[np.ndarray, " tokens"], Int32[np.ndarray, "tokens 2"]]:
        """The ids that `encode` gives, and which characters of the text each came from.

        Offsets are where a piece begins and ends in the text, without the white space before it.
        Both rise along the text. Pieces that share a character, as those of "½" do, share its span;
        a piece that is only the mark of a word has an empty one.

        Example: with the released vocabulary `encode_with_offsets("Thé  ½")` is the ids of
        `▁the ▁1 ⁄ 2` and `[[0, 3], [5, 6], [5, 6], [5, 6]]`.
        """
        words = text.split(" ")
        encoded = [self._align_word(word) for word in words]
        starts = itertools.accumulate((len(word) + 1 for word in words), initial=0)
        offsets = [spans + start for (_, spans), start in zip(encoded, starts, strict=False)]
        return np.concatenate([ids for ids, _ in encoded]), np.concatenate(offsets)

    def word_starts(self, rule: WordStartRule) -> Bool[np.ndarray, " vocabulary"]:
        """Whether each piece opens a word, for whole-word and n-gram masks."""
        return np.array([self._starts_word(token, rule) for token in self.tokens])

    def save(self, directory: Path) -> None:
        """Writes the vocabulary and `tokenizer.json`, from which `load_tokenizer` reads it."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / self.VOCABULARY_FILE).write_bytes(self.vocabulary_bytes())
        settings = {
            "kind": self.KIND,
            "lower_case": self.lower_case,
            "keep_accents": self.keep_accents,
            "vocab_size": self.vocab_size,
        }
        write_atomically(directory / SETTINGS_FILE, json.dumps(settings, indent=1) + "\n")

    @abc.abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Readable text; special pieces other than unknown vanish."""

    @abc.abstractmethod
    def surface_form(self, id: int) -> tuple[str, bool]:
        """A piece as it stands in a text, and whether it stands apart from what is before it.

        Example: `▁the` is ("the", True), `ing` and `##ing` are ("ing", False).
        """

    @abc.abstractmethod
    def _encode_words(self, words: list[str]) -> list[list[int]]:
        """The ids of each word; a word may hold white space of any kind, or nothing."""

    @abc.abstractmethod
    def _encode_aligned(self, word: str) -> list[tuple[int, int, int]]:
        """The ids of a word, as `_encode_words` gives them, and where each begins and ends."""

    @abc.abstractmethod
    def _starts_word(self, piece: str, rule: WordStartRule) -> bool: ...

    @abc.abstractmethod
    def vocabulary_bytes(self) -> bytes:
        """The content of the vocabulary's file."""

    def _number_words(self, words: list[str]) -> Int64[np.ndarray, " words"]:
        """Where each word stands in the table of encoded words, into which new ones are put."""
        known = self._word_numbers
        if len(known) > _MAX_REMEMBERED_WORDS:
            known.clear()
            self._word_starts = self._word_lengths = np.zeros(0, np.int64)
            self._word_ids = np.zeros(0, np.int32)
        new = [word for word in words if word not in known]
        encoded = self._encode_words(new)
        lengths = np.fromiter(map(len, encoded), np.int64, len(new))
        ids = np.fromiter(itertools.chain.from_iterable(encoded), np.int32)
        starts = len(self._word_ids) + np.cumsum(lengths) - lengths
        self._word_ids = np.concatenate([self._word_ids, ids])
        self._word_starts = np.concatenate([self._word_starts, starts])
        self._word_lengths = np.concatenate([self._word_lengths, lengths])
        known.update(zip(new, itertools.count(len(known)), strict=False))
        return np.fromiter(map(known.__getitem__, words), np.int64, len(words))

    def _align_word(self, word: str) -> "_AlignedIds":
        known = self._aligned_words.get(word)
        if known is None:
            if len(self._aligned_words) > _MAX_REMEMBERED_WORDS:
                self._aligned_words.clear()
            rows = np.array(self._encode_aligned(word), np.int32).reshape(-1, 3)
            known = self._aligned_words[word] = rows[:, 0].copy(), rows[:, 1:].copy()
        return known
