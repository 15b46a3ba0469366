"""The tokenizer interface, and word-by-word encoding, as both kinds of vocabulary need it."""

import abc
import dataclasses
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
from data_pipeline.tokenizers.added_tokens import AddedToken, AddedTokens
from data_pipeline.tokenizers.alignment import AlignedText

SETTINGS_FILE = "tokenizer.json"
# Where a corpus and a workdir keep their tokenizer.
TOKENIZER_DIRECTORY = "tokenizer"

# Maximum number of words in the cache, which takes about 200 bytes per word, 500 with offsets.
_MAX_CACHED_WORDS = 500_000

# Ids, and the start and end of each token in the text.
EncodedText = tuple[Int32[np.ndarray, " _"], Int32[np.ndarray, "_ 2"]]


class Tokenizer(abc.ABC):
    """Encodes text without special tokens, word by word.

    In both kinds of vocabulary, no token spans white space. So the ids of a sentence are those of
    its words, one after the other, and a word is encoded only once. An added token splits the text:
    the text before it and the text after it are encoded separately.

    Attributes:
        tokens: the vocabulary in the order of its ids, with added tokens at its end.
        added_tokens: words that stay whole, including some that are tokens of the vocabulary.
        pad_id, unk_id, cls_id, sep_id, mask_id: ids of the special tokens.
        lower_case, keep_accents: how text is normalized.
    """

    KIND: ClassVar[str]
    VOCABULARY_FILE: ClassVar[str]

    tokens: tuple[str, ...]
    added_tokens: AddedTokens
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    def __init__(self, *, lower_case: bool, keep_accents: bool) -> None:
        self.lower_case = lower_case
        self.keep_accents = keep_accents
        # Cached words: the number of each, and where its ids start and how many there are.
        self._word_numbers: dict[str, int] = {}
        self._word_starts = np.zeros(0, np.int64)
        self._word_lengths = np.zeros(0, np.int64)
        self._word_ids = np.zeros(0, np.int32)
        self._words_with_offsets: dict[str, EncodedText] = {}

    def _add_tokens(self, added: Sequence[AddedToken]) -> None:
        """Add tokens to the vocabulary, as the last step of a constructor."""
        self.added_tokens = AddedTokens(added, self.tokens, self._normalize_word)
        self.tokens = (*self.tokens, *self.added_tokens.new)

    @classmethod
    @abc.abstractmethod
    def from_bytes(
        cls,
        vocabulary: bytes,
        *,
        lower_case: bool = True,
        keep_accents: bool = False,
        added_tokens: Sequence[AddedToken] = (),
    ) -> "Tokenizer":
        """Make a tokenizer from the content of a vocabulary file.

        Raises:
            InputError: it is not a vocabulary of this kind, or lacks a special token.
        """

    @property
    def vocab_size(self) -> int:
        """The number of tokens in the vocabulary."""
        return len(self.tokens)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that determines how text is encoded."""
        settings = f"{self.KIND} {self.lower_case} {self.keep_accents}\n".encode()
        if added := self._describe_added_tokens():
            settings += json.dumps(added).encode()
        return hashlib.sha256(settings + self.vocabulary_bytes()).hexdigest()

    @property
    def special_ids(self) -> Int32[np.ndarray, " specials"]:
        """The ids of padding, unknown, [CLS], [SEP] and [MASK]."""
        ids = [self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id]
        return np.array(ids, np.int32)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens.

        Text never becomes a special token, except for unknown and added tokens: a literal "[MASK]"
        is encoded like any other text.
        """
        ids, _ = self.encode_lines([text])
        return ids.tolist()

    def encode_lines(
        self, lines: Sequence[str]
    ) -> tuple[Int32[np.ndarray, " tokens"], Int32[np.ndarray, " lines"]]:
        """Return the concatenated ids of many texts, and the number of ids of each text.

        Example: with the released vocabulary, `encode_lines(["the", "", "The the"])` is
        `([14, 14, 14], [1, 0, 2])`.
        """
        if not lines:
            return np.zeros(0, np.int32), np.zeros(0, np.int32)
        lines = [self.added_tokens.separate(line) for line in lines]
        # Arrow splits and numbers words several times faster than code on Python objects.
        split = pyarrow.compute.split_pattern(pyarrow.array(lines, pyarrow.string()), " ")
        words = split.flatten().dictionary_encode()
        numbers = self._number_words(words.dictionary.to_pylist())[words.indices.to_numpy()]
        lengths = self._word_lengths[numbers]
        ends = np.cumsum(lengths)
        # Token k of a word that begins at token t is at index t + k here, start + k in the cache.
        shifts = np.repeat(self._word_starts[numbers] - (ends - lengths), lengths)
        ids = self._word_ids[shifts + np.arange(len(shifts))]
        totals = np.concatenate([[0], ends])[split.offsets.to_numpy()]
        return ids, np.diff(totals).astype(np.int32)

    def encode_with_offsets(self, text: str) -> EncodedText:
        """Return the ids of `encode`, and the span of characters of each token.

        Offsets are where a token begins and ends in the text, excluding the white space before it.
        Both are nondecreasing along the text. Tokens that share a character, such as those of "½",
        share its span; a token that only marks the start of a word has an empty span.

        Example: with the released vocabulary, `encode_with_offsets("Thé  ½")` returns the ids of
        `▁the ▁1 ⁄ 2` and `[[0, 3], [5, 6], [5, 6], [5, 6]]`.
        """
        words = self.added_tokens.split_text(text)
        encoded = [(self._encode_cached(word), start) for word, start in words]
        ids, offsets = zip(*((ids, spans + start) for (ids, spans), start in encoded), strict=True)
        return np.concatenate(ids), np.concatenate(offsets)

    def word_starts(self, rule: WordStartRule) -> Bool[np.ndarray, " vocabulary"]:
        """Return a mask of the tokens that start a word, for whole-word and n-gram masking."""
        added = self.added_tokens.by_id
        return np.array(
            [id in added or self._starts_word(token, rule) for id, token in enumerate(self.tokens)]
        )

    def save(self, directory: Path) -> None:
        """Write the vocabulary and `tokenizer.json`, which `load_tokenizer` reads."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / self.VOCABULARY_FILE).write_bytes(self.vocabulary_bytes())
        settings = {
            "kind": self.KIND,
            "lower_case": self.lower_case,
            "keep_accents": self.keep_accents,
            "vocab_size": self.vocab_size,
        }
        if added := self._describe_added_tokens():
            settings["added_tokens"] = added
        write_atomically(directory / SETTINGS_FILE, json.dumps(settings, indent=1) + "\n")

    def _describe_added_tokens(self) -> list[dict[str, object]]:
        return [dataclasses.asdict(token) for token in self.added_tokens.tokens]

    def decode(self, ids: Sequence[int]) -> str:
        """Return readable text, without special tokens except for unknown."""
        added = self.added_tokens.by_id
        texts = []
        for id, group in itertools.groupby(ids, lambda id: id if id in added else None):
            if id is None:
                texts.append(self._decode(list(group)))
            elif not added[id].special:
                texts += [added[id].content for _ in group]
        return " ".join(filter(None, texts))

    def surface_form(self, id: int) -> tuple[str, bool]:
        """Return the text of a token, and True if white space precedes it.

        Example: `▁the` gives ("the", True); `ing` and `##ing` give ("ing", False).
        """
        added = self.added_tokens.by_id.get(id)
        return self._surface_form(id) if added is None else (added.content, True)

    @abc.abstractmethod
    def vocabulary_bytes(self) -> bytes:
        """Return the content of the vocabulary file, which has no added tokens."""

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str: ...

    @abc.abstractmethod
    def _surface_form(self, id: int) -> tuple[str, bool]: ...

    @abc.abstractmethod
    def _normalize_word(self, word: str) -> AlignedText:
        """Normalize a word as encoding does before it looks up tokens."""

    @abc.abstractmethod
    def _encode_words(self, words: list[str]) -> list[list[int]]:
        """Encode each word; a word may contain white space other than spaces, or be empty."""

    @abc.abstractmethod
    def _encode_word_with_offsets(self, word: str) -> list[tuple[int, int, int]]:
        """Return the ids of a word as `_encode_words` does, each with its start and end."""

    @abc.abstractmethod
    def _starts_word(self, token: str, rule: WordStartRule) -> bool: ...

    def _number_words(self, words: list[str]) -> Int64[np.ndarray, " words"]:
        """Return the number of each word in the cache, adding new words to it."""
        known = self._word_numbers
        if len(known) > _MAX_CACHED_WORDS:
            known.clear()
            self._word_starts = self._word_lengths = np.zeros(0, np.int64)
            self._word_ids = np.zeros(0, np.int32)
        numbers = np.fromiter(map(known.get, words, itertools.repeat(-1)), np.int64, len(words))
        places = np.flatnonzero(numbers < 0)
        new = [words[place] for place in places.tolist()]
        encoded = self.added_tokens.encode_words(new, self._encode_words)
        lengths = np.fromiter(map(len, encoded), np.int64, len(new))
        ids = np.fromiter(itertools.chain.from_iterable(encoded), np.int32)
        starts = len(self._word_ids) + np.cumsum(lengths) - lengths
        self._word_ids = np.concatenate([self._word_ids, ids])
        self._word_starts = np.concatenate([self._word_starts, starts])
        self._word_lengths = np.concatenate([self._word_lengths, lengths])
        numbers[places] = len(known) + np.arange(len(new))
        known.update(zip(new, itertools.count(len(known)), strict=False))
        return numbers

    def _encode_cached(self, word: str) -> EncodedText:
        encoded = self._words_with_offsets.get(word)
        if encoded is None:
            if len(self._words_with_offsets) > _MAX_CACHED_WORDS:
                self._words_with_offsets.clear()
            tokens = self.added_tokens.encode_word(word, self._encode_word_with_offsets)
            rows = np.array(tokens, np.int32).reshape(-1, 3)
            encoded = self._words_with_offsets[word] = rows[:, 0].copy(), rows[:, 1:].copy()
        return encoded
