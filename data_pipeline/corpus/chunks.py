"""Documents cut into chunks: runs of whole sentences, or of parts of very long sentences."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from data_pipeline.config import WordStartRule
from data_pipeline.sources.sentences import CLAUSE_MARKS
from data_pipeline.tokenizers.tokenizer import Tokenizer

LOW_COVERAGE = 0.95  # fraction of the tokens; an epoch that reads less triggers a warning

# A long sentence is cut into parts of about this fraction of a row's text.
_PARTS_PER_ROW = 16
_MOST_PART_TOKENS = 16
_TOKENS_PER_READ = 1 << 20


class Units(NamedTuple):
    """The sentences of a text, with sentences that are longer than a row's text cut into parts.

    Example: for sentences of 3 and 9 tokens, the second in parts of 4 and 5, offsets is
    `[0, 3, 7, 12]` and firsts is `[0, 1, 3]`.
    """

    offsets: Int64[np.ndarray, " units+1"]  # token offset of each unit, and of the end
    firsts: Int64[np.ndarray, " sentences+1"]  # the first unit of each sentence, and the end

    def sentences(self, units: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Return the sentence that each unit is or belongs to."""
        if len(self.firsts) == len(self.offsets):  # no sentence is in parts
            return units
        return np.searchsorted(self.firsts, units, side="right") - 1

    def are_parts(self, units: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Return True for each unit that is not a whole sentence."""
        sentences = self.sentences(units)
        return self.firsts[sentences + 1] - self.firsts[sentences] > 1


def whole_sentences(offsets: Int64[np.ndarray, " boundaries"]) -> Units:
    """Return whole sentences as units."""
    return Units(offsets, np.arange(len(offsets)))


class LongSentenceCutter:
    """Cuts sentences that are longer than a row's text into parts of a few tokens.

    Args:
        load_tokenizer: loads the text's tokenizer; called only once a sentence is too long.
        max_num_tokens: maximum number of tokens in a row's text.
    """

    def __init__(self, load_tokenizer: Callable[[], Tokenizer], max_num_tokens: int) -> None:
        self._load_tokenizer = load_tokenizer
        self._max_num_tokens = max_num_tokens
        self._part_tokens = min(max(max_num_tokens // _PARTS_PER_ROW, 1), _MOST_PART_TOKENS)

    def cut(self, tokens: np.ndarray, offsets: Int64[np.ndarray, " boundaries"]) -> Units:
        """Cut long sentences after clause marks, else between words, else anywhere.

        In each stretch of a few tokens, a part begins at the best place: the first word after a
        clause mark, else the first word.

        Args:
            tokens: integers [tokens], the text that the offsets refer to.
            offsets: token offset of each sentence, and of the end.
        """
        lengths = np.diff(offsets)
        long = np.flatnonzero(lengths > self._max_num_tokens)
        if not len(long):
            return whole_sentences(offsets)
        counts = np.ones(len(lengths), np.int64)
        counts[long] = -(-lengths[long] // self._part_tokens)
        firsts = np.concatenate([[0], np.cumsum(counts)])
        cut = np.empty(firsts[-1] + 1, np.int64)
        cut[firsts] = offsets
        at_once = max(_TOKENS_PER_READ // self._part_tokens, 1)
        later = np.setdiff1d(np.arange(firsts[-1]), firsts, assume_unique=True)
        for begin in range(0, len(later), at_once):
            units = later[begin : begin + at_once]
            sentences = np.searchsorted(firsts, units, side="right") - 1
            starts = offsets[sentences] + (units - firsts[sentences]) * self._part_tokens
            cut[units] = starts + self._best(tokens, starts, offsets[sentences + 1])
        return Units(cut, firsts)

    @functools.cached_property
    def _token_kinds(self) -> tuple[np.ndarray, np.ndarray]:
        """Masks of the tokens that start a word, and of the tokens that end a clause."""
        tokenizer = self._load_tokenizer()
        ends_clause = np.array([token.endswith(CLAUSE_MARKS) for token in tokenizer.tokens])
        return tokenizer.word_starts(WordStartRule.SPACE), ends_clause

    def _best(self, tokens: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return, for each start, the offset of the token at which a part best begins."""
        positions = starts[:, None] + np.arange(self._part_tokens)
        inside = positions < ends[:, None]
        positions = np.minimum(positions, ends[:, None] - 1)
        starts_word, ends_clause = self._token_kinds
        begins_word = starts_word[tokens[positions]]
        after_clause = ends_clause[tokens[positions - 1]]
        rank: UInt8[np.ndarray, "units tokens"] = begins_word.astype(np.uint8)
        rank[begins_word & after_clause] = 2
        rank[~inside] = 0
        return rank.argmax(axis=1)


class Chunks(NamedTuple):
    """Runs of units, each within one document."""

    documents: Int64[np.ndarray, " chunks"]  # index of the document among those that were cut
    firsts: Int64[np.ndarray, " chunks"]  # number of the first unit
    ends: Int64[np.ndarray, " chunks"]  # number of the unit after the last


def cut_documents(
    units: Units,
    firsts: Int64[np.ndarray, " documents"],
    ends: Int64[np.ndarray, " documents"],
    targets: Int64[np.ndarray, " documents"],
    max_num_tokens: int,
    advance: Callable[..., np.ndarray] | None = None,
) -> Chunks:
    """Cut each document into chunks of whole sentences.

    Sentences are added until a chunk holds at least the document's target number of tokens, or the
    document ends. If the last sentence is in parts, only the parts that fit in a row are added.
    Each step cuts one chunk of every document.

    Args:
        units: the sentences.
        firsts: number of the first unit of each document.
        ends: number of the unit after the last one of each document.
        targets: number of tokens that the chunks of each document should hold.
        max_num_tokens: number of tokens that fit in a row.
        advance: `(documents, firsts, ends) -> units`, where the next chunks begin. By default, they
            begin where the previous ones end (the NSP generator puts unused sentences back).

    Returns:
        The chunks, in text order.

    Example: sentences of 5, 3, 4, 2 tokens and a target of 7 give the chunks `[0, 2)` and `[2, 4)`.
    """
    offsets = units.offsets
    documents = np.flatnonzero(firsts < ends)
    at = firsts[documents]
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    while len(documents):
        end = np.searchsorted(offsets, offsets[at] + targets[documents], side="left")
        end = np.minimum(end, ends[documents])
        too_long = (offsets[end] - offsets[at] > max_num_tokens) & (end - at > 1)
        if len(at_fault := np.flatnonzero(too_long)):
            end[at_fault] -= units.are_parts(end[at_fault] - 1)
        found.append((documents, at, end))
        at = end if advance is None else advance(documents, at, end)
        is_unfinished = at < ends[documents]
        documents, at = documents[is_unfinished], at[is_unfinished]
    if not found:
        return Chunks(*(np.zeros(0, np.int64) for _ in range(3)))
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    return Chunks(*(column[order] for column in columns))
