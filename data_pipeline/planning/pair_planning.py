"""Pair planning: all pairs of a corpus split in the order of its text, one block at a time."""

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
from data_pipeline.corpus.splits import TRAIN, SentenceIndex, Shard
from data_pipeline.planning.pairs import PAIR, borrow_sentences, count_read, is_splittable
from data_pipeline.planning.random_documents import RandomDocumentSampler

_BLOCK = 1 << 16  # documents that are cut together, which bounds the memory
_PAIRS_PER_READ = 1 << 16


class _Block(NamedTuple):
    """Some documents of a shard; sentences are numbered from the block's first."""

    offsets: Int64[np.ndarray, " sentences+1"]  # token offset in the shard of each sentence
    firsts: Int64[np.ndarray, " documents"]  # the first sentence of each document
    ends: Int64[np.ndarray, " documents"]
    documents: Int64[np.ndarray, " documents"]  # number in the split; repeated if read again
    readings: Int64[np.ndarray, " documents"]  # which reading of the document this is
    first_sentence: int  # number in the split of the block's first sentence
    first_token: int  # address of the shard's first token


def generate_pairs(
    corpus: Corpus, split: str, config: DataConfig, variant: int
) -> Iterator[np.ndarray]:
    """Yield records of type `PAIR`, without the pairs that are too short to be split.

    A training epoch reads each document of the source of smallest weight once, those of one with
    twice that weight twice, each time cut differently, and where the ratio is not an integer, a
    random selection of them once more.

    Args:
        corpus: the corpus.
        split: the name of the split.
        config: how documents are cut.
        variant: index of the plan's variant, which selects the random numbers.
    """
    part = corpus.splits[split]
    key = _plan_key(variant)
    sampler = RandomDocumentSampler(
        SentenceIndex(part), part.num_documents, key=randomness.derive_key("foreign text", variant)
    )
    cutter = None
    if corpus.metadata.cuts_long_sentences:
        cutter = LongSentenceCutter(corpus.load_tokenizer, config.max_num_tokens)
    for shard, block in _read_blocks(corpus, split, key):
        units = (
            cutter.cut(shard.tokens, block.offsets) if cutter else whole_sentences(block.offsets)
        )
        yield _cut_block(block, units, config, key, sampler)


def measure_coverage(
    corpus: Corpus, split: str, config: DataConfig, planned: Sequence[np.ndarray]
) -> float:
    """Return the fraction of a split's tokens that an epoch reads, on average over variants.

    The tokens of a document that is read twice count twice, those of random second segments not.

    Args:
        corpus: the corpus.
        split: the name of the split.
        config: how documents are cut.
        planned: of each variant, the pairs in the rows of an epoch.
    """
    read = tokens = 0
    for variant, pairs in enumerate(planned):
        for first in range(0, len(pairs), _PAIRS_PER_READ):
            window = pairs[first : first + _PAIRS_PER_READ]
            read += int(count_read(window, config.max_num_tokens).sum())
        for _, block in _read_blocks(corpus, split, _plan_key(variant)):
            tokens += int((block.offsets[block.ends] - block.offsets[block.firsts]).sum())
    return read / tokens


def _plan_key(variant: int) -> int:
    return randomness.derive_key("plan", variant)


def _read_blocks(corpus: Corpus, split: str, key: int) -> Iterator[tuple[Shard, _Block]]:
    part = corpus.splits[split]
    weights = np.array([source.weight for source in corpus.metadata.sources], np.float64)
    passes = weights / weights.min() if split == TRAIN else np.ones(len(weights))
    document = sentence = 0
    for number, shard in enumerate(part.shards):
        for lowest in range(0, len(shard.document_offsets) - 1, _BLOCK):
            highest = min(lowest + _BLOCK, len(shard.document_offsets) - 1)
            block = _read_block(shard, lowest, highest, passes, key, document + lowest)
            yield (
                shard,
                block._replace(
                    first_sentence=sentence + block.first_sentence,
                    first_token=int(part.token_starts[number]),
                ),
            )
        document += len(shard.document_offsets) - 1
        sentence += len(shard.sentence_offsets) - 1


def _read_block(
    shard: Shard, lowest: int, highest: int, passes: np.ndarray, key: int, first_document: int
) -> _Block:
    boundaries = shard.document_offsets[lowest : highest + 1].astype(np.int64)
    first, last = boundaries[0], boundaries[-1]
    numbers = first_document + np.arange(highest - lowest)
    wanted = passes[shard.document_sources[lowest:highest]]
    uniform = randomness.random_bits(key, numbers, 0, 1)[:, 0] / 2**32
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

    That is what fits in a row, or, with probability `short_seq_prob`, an integer from 2 to that,
    all equally likely, for the whole document.
    """
    bits = randomness.random_bits(key, documents, readings, 0)
    short = bits[:, 0] / 2**32 < config.short_seq_prob
    shorter = 2 + randomness.scale_bits(bits[:, 1], config.max_num_tokens - 1)
    return np.where(short, shorter, config.max_num_tokens)
