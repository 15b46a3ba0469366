"""Small corpora in which no token occurs twice, so that a token identifies its address."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipeline.building.report import describe_corpus
from data_pipeline.building.splits.blocks import DocumentSizes, EncodedDocuments
from data_pipeline.building.splits.measurement import SplitReport, report_shard, sum_reports
from data_pipeline.building.splits.shards import MAX_SHARD_BYTES, cut_shards, write_shard
from data_pipeline.corpus.metadata import CorpusMetadata, fingerprint_content
from data_pipeline.corpus.reader import Corpus, list_files, open_corpus
from data_pipeline.corpus.splits import TRAIN, VALIDATION, ShardSize, shard_name
from data_pipeline.planning.pairs import PlannedPairs
from data_pipeline.planning.plan import Plan
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY, Tokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer
from data_pipeline.verification import describe_files

Document = Sequence[Sequence[int]]  # ids of each sentence

FIRST_ID = 5  # after the special tokens

Lengths = Sequence[Sequence[int]]  # tokens of each sentence of each document


def encode_documents(documents: Sequence[Document]) -> EncodedDocuments:
    """Lay documents of one source end to end."""
    sentences = list(itertools.chain.from_iterable(documents))
    return EncodedDocuments(
        np.array(list(itertools.chain.from_iterable(sentences)), np.int64),
        np.array(list(map(len, sentences)), np.int64),
        np.array(list(map(len, documents)), np.int64),
        np.zeros(len(documents), np.int64),
    )


def write_corpus(
    path: Path,
    splits: Mapping[str, Sequence[Document]],
    tokenizer: Tokenizer,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> CorpusMetadata:
    """Write a corpus from ids in memory.

    Example: `write_corpus(path, {"train": [[[5, 6], [7]]], "validation": [[[8], [9]]]}, tokenizer)`
    has one document of two sentences in each split.
    """
    path.mkdir(parents=True)
    tokenizer.save(path / TOKENIZER_DIRECTORY)
    reports = {
        split: write_split(
            path / split,
            [encode_documents(splits.get(split, ()))],
            tokenizer,
            max_shard_bytes=max_shard_bytes,
        )
        for split in (TRAIN, VALIDATION)
    }
    metadata = describe_corpus(
        describe_files(path, list_files(path, (TOKENIZER_DIRECTORY,))),
        reports,
        vocab_size=tokenizer.vocab_size,
        sources={"memory": 1.0},
        settings={},
        versions={},
        report={},
    )
    metadata.save(path)
    return metadata


def write_split(
    path: Path, blocks: Sequence[EncodedDocuments], tokenizer: Tokenizer, *, max_shard_bytes: int
) -> SplitReport:
    """Write the shards of a split from blocks in memory."""
    sizes = [
        DocumentSizes(
            np.array([part.sentence_lengths.sum() for part in parts], np.int64),
            block.sentence_counts,
        )
        for block in blocks
        for parts in [[block.slice(d, d + 1) for d in range(len(block.sources))]]
    ]
    totals = [ShardSize(int(s.tokens.sum()), int(s.sentences.sum()), len(s.tokens)) for s in sizes]
    shards = cut_shards(
        totals, sizes.__getitem__, tokenizer.vocab_size, max_shard_bytes=max_shard_bytes
    )
    path.mkdir()
    reports = []
    for number, pieces in enumerate(shards):
        shard = path / shard_name(number)
        documents = (blocks[piece.block].slice(piece.first, piece.last) for piece in pieces)
        files = write_shard(shard, documents, tokenizer.vocab_size)
        reports.append(report_shard(shard, files, 1, tokenizer))
    return sum_reports(path.name, reports, 1, tokenizer.vocab_size)


def make_corpus(
    path: Path,
    train: Lengths,
    validation: Lengths = ((4, 5, 6),),
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Corpus:
    """Make a corpus of documents with sentences of these lengths, its tokens numbered in order.

    Training text comes first, so the token at address a of the training text is `FIRST_ID + a`.
    """
    counter = itertools.count(FIRST_ID)
    splits = {
        name: [
            [list(itertools.islice(counter, length)) for length in document]
            for document in documents
        ]
        for name, documents in (("train", train), ("validation", validation))
    }
    size = next(counter)
    # Every third token continues a word.
    words = (f"##{number}" if number % 3 == 0 else f"w{number}" for number in range(FIRST_ID, size))
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])
    write_corpus(path, splits, tokenizer, max_shard_bytes=max_shard_bytes)
    return open_corpus(path)


def as_format(corpus: Corpus, version: int) -> Corpus:
    """Return a corpus as one of an earlier format, whose plans and batches differ."""
    metadata = corpus.metadata
    content = fingerprint_content(metadata.files, metadata.weights, format_version=version)
    metadata = dataclasses.replace(metadata, format_version=version, fingerprint=content)
    return corpus._replace(metadata=metadata)


def pairs_of_epoch(plan: Plan, epoch: int = 0) -> PlannedPairs:
    """Return all pairs that an epoch reads, in the order of the plan."""
    found = plan.find_pairs(epoch * plan.num_rows + np.arange(plan.num_rows), seed=0)
    order = np.argsort(found.numbers, kind="stable")
    return PlannedPairs(*(field[order] for field in found))


def random_lengths(
    num_documents: int, *, seed: int, mean_sentences: int = 12, mean_tokens: int = 9
) -> list[list[int]]:
    """Sample sentence lengths of documents as uneven as real ones."""
    generator = np.random.default_rng(seed)
    return [
        (1 + generator.poisson(mean_tokens, generator.geometric(1 / mean_sentences))).tolist()
        for _ in range(num_documents)
    ]
