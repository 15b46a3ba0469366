"""Pair planning: all pairs of a corpus split in text order, one block of documents at a time."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from data_pipeline import randomness
from data_pipeline.config import DataConfig, SingleSentence
from data_pipeline.corpus.chunks import (
    Chunks,
    LongSentenceCutter,
    Units,
    cut_documents,
    whole_sentences,
)
from data_pipeline.corpus.reader import Corpus
from data_pipeline.corpus.sentence_index import SentenceIndex
from data_pipeline.corpus.splits import TRAIN, Shard
from data_pipeline.planning.pairs import PAIR, borrow_sentences, count_read, is_splittable
from data_pipeline.planning.random_documents import RandomDocumentSampler

_BLOCK = 1 << 16  # documents cut together, which bounds the memory
_PAIRS_PER_READ = 1 << 16


class _Block(NamedTuple):
    """Some documents of a shard; sentences are numbered from the first one of the block."""

    offsets: Int64[np.ndarray, " sentences+1"]  # token offset of each sentence in the shard
    firsts: Int64[np.ndarray, " documents"]  # the first sentence of each document
    ends: Int64[np.ndarray, " documents"]
    documents: Int64[np.ndarray, " documents"]  # number in the split; repeated for each reading
    readings: Int64[np.ndarray, " documents"]  # which reading of the document this is
    first_sentence: int  # number of the block's first sentence in the text
    first_token: int  # address of the shard's first token

    @property
    def num_tokens(self) -> int:
        """Number of tokens in the documents, counted once per reading."""
        return int((self.offsets[self.ends] - self.offsets[self.firsts]).sum())


class PairPlanner:
    """Cuts all documents of a text into pairs, in text order.

    A training epoch reads each document of the source with the smallest weight once, and those of a
    source with twice that weight twice, cut differently each time. If the ratio is not an integer,
    a random selection of the documents is read once more.

    Args:
        corpus: the corpus.
        split: the name of the split.
        config: how documents are cut.
        variant: index of the plan's variant, which selects the random numbers.
        shard: the number of a shard if the text is that shard alone. Addresses and sentence numbers
            of pairs are then relative to the shard, and random segments come from its other
            documents. Except for the random segments, its pairs are the same as in the whole split.

    Attributes:
        num_tokens: tokens of the documents that `generate` has cut, counted once per reading.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        config: DataConfig,
        variant: int,
        *,
        shard: int | None = None,
    ) -> None:
        whole = corpus.splits[split]
        self._text = whole if shard is None else whole.alone(shard)
        self._first_document = 0 if shard is None else int(whole.document_starts[shard])
        weights = np.array([source.weight for source in corpus.metadata.sources], np.float64)
        self._passes = weights / weights.min() if split == TRAIN else np.ones(len(weights))
        self._config = config
        self._key = randomness.derive_key("plan", variant)
        stream = ("foreign text", variant) if shard is None else ("foreign text", variant, shard)
        self._sampler = RandomDocumentSampler(
            SentenceIndex(self._text),
            self._text.num_documents,
            first_document=self._first_document,
            key=randomness.derive_key(*stream),
        )
        self._cutter = None
        if corpus.metadata.cuts_long_sentences:
            self._cutter = LongSentenceCutter(corpus.load_tokenizer, config.max_num_tokens)
        self.num_tokens = 0

    def generate(self) -> Iterator[np.ndarray]:
        """Yield records of type `PAIR`, except for pairs that are too short to split."""
        for shard, block in self._read_blocks():
            units = whole_sentences(block.offsets)
            longest = np.diff(block.offsets).max(initial=0)
            if self._cutter and longest > self._config.max_num_tokens:
                units = self._cutter.cut(shard.tokens, block.offsets)
            self.num_tokens += block.num_tokens
            yield _cut_block(block, units, self._config, self._key, self._sampler)

    def count_tokens(self) -> int:
        """Count the tokens of all documents, once per reading."""
        return sum(block.num_tokens for _, block in self._read_blocks())

    def _read_blocks(self) -> Iterator[tuple[Shard, _Block]]:
        for number, shard in enumerate(self._text.shards):
            for lowest in range(0, len(shard.document_offsets) - 1, _BLOCK):
                before = self._first_document + int(self._text.document_starts[number])
                block = self._read_block(shard, lowest, before)
                first_sentence = self._text.sentence_starts[number] + block.first_sentence
                yield (
                    shard,
                    block._replace(
                        first_sentence=int(first_sentence),
                        first_token=int(self._text.token_starts[number]),
                    ),
                )

    def _read_block(self, shard: Shard, lowest: int, documents_before: int) -> _Block:
        boundaries = shard.document_offsets[lowest : lowest + _BLOCK + 1].astype(np.int64)
        first, last = boundaries[0], boundaries[-1]
        numbers = documents_before + lowest + np.arange(len(boundaries) - 1)
        wanted = self._passes[shard.document_sources[lowest : lowest + _BLOCK]]
        uniform = randomness.random_bits(self._key, numbers, 0, 1)[:, 0] / 2**32
        readings = np.floor(wanted + uniform).astype(np.int64)
        local = np.repeat(np.arange(len(readings)), readings)
        return _Block(
            offsets=shard.sentence_offsets[first : last + 1].astype(np.int64),
            firsts=boundaries[local] - first,
            ends=boundaries[local + 1] - first,
            documents=numbers[local],
            readings=np.arange(len(local)) - np.repeat(np.cumsum(readings) - readings, readings),
            first_sentence=int(first),
            first_token=0,
        )


def measure_coverage(
    corpus: Corpus, split: str, config: DataConfig, planned: Sequence[np.ndarray]
) -> float:
    """Return the fraction of a split's tokens that an epoch reads, averaged over variants.

    The tokens of a document that is read twice count twice; those of random second segments do not
    count.

    Args:
        corpus: the corpus.
        split: the name of the split.
        config: how documents are cut.
        planned: for each variant, the pairs in the rows of an epoch.
    """
    read = tokens = 0
    for variant, pairs in enumerate(planned):
        for first in range(0, len(pairs), _PAIRS_PER_READ):
            window = pairs[first : first + _PAIRS_PER_READ]
            read += int(count_read(window, config.max_num_tokens).sum())
        tokens += PairPlanner(corpus, split, config, variant).count_tokens()
    return read / tokens


def _cut_block(
    block: _Block, units: Units, config: DataConfig, key: int, sampler: RandomDocumentSampler
) -> np.ndarray:
    targets = sample_target_lengths(block.documents, block.readings, config, key=key)
    random_segments = config.sentence_objective.random_segments

    def split(chunks: Chunks) -> tuple[np.ndarray, np.ndarray]:
        sentences = units.sentences(chunks.firsts)
        is_random, kept = sampler.split(
            block.first_sentence + sentences,
            chunks.firsts - units.firsts[sentences],
            chunks.ends - chunks.firsts,
            block.readings[chunks.documents],
        )
        return is_random, np.where(is_random, chunks.firsts + kept, chunks.ends)

    def put_back(documents: np.ndarray, firsts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        return split(Chunks(documents, firsts, ends))[1]

    chunks = cut_documents(
        units,
        units.firsts[block.firsts],
        units.firsts[block.ends],
        targets,
        config.max_num_tokens,
        put_back if random_segments else None,
    )
    if random_segments:
        is_random, ends = split(chunks)
        chunks = chunks._replace(ends=ends)
    elif (
        config.single_sentence is SingleSentence.RANDOM_DOCUMENT and config.sentence_objective.swaps
    ):
        is_random = chunks.ends - chunks.firsts == 1
    else:
        chunks = borrow_sentences(chunks)
        is_random = np.zeros(len(chunks.firsts), bool)

    start = units.offsets[chunks.firsts]
    sentences = units.sentences(chunks.firsts)
    pairs = np.zeros(len(start), PAIR)
    pairs["start"] = block.first_token + start
    pairs["sentence"] = block.first_sentence + sentences
    pairs["length"] = units.offsets[chunks.ends] - start
    pairs["sentences"] = units.sentences(chunks.ends - 1) - sentences + 1
    attached = pairs[is_random]
    of = chunks.documents[is_random]
    parts = (chunks.firsts - units.firsts[sentences])[is_random]
    sampler.attach(attached, parts, block.documents[of], block.readings[of], targets[of])
    pairs[is_random] = attached
    return pairs[is_splittable(pairs)]


def sample_target_lengths(
    documents: Int64[np.ndarray, " documents"],
    readings: Int64[np.ndarray, " documents"],
    config: DataConfig,
    *,
    key: int,
) -> Int64[np.ndarray, " documents"]:
    """Sample how many tokens the chunks of each document should hold.

    That is the number that fits in a row. With probability `short_seq_prob`, it is instead an
    integer drawn uniformly from 2 to that number, once for the whole document.
    """
    bits = randomness.random_bits(key, documents, readings, 0)
    short = bits[:, 0] / 2**32 < config.short_seq_prob
    shorter = 2 + randomness.scale_bits(bits[:, 1], config.max_num_tokens - 1)
    return np.where(short, shorter, config.max_num_tokens)
