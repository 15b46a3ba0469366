"""Small corpora in which no token occurs twice, so that a token identifies its address."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipeline.building.report import describe_corpus
from data_pipeline.building.writer import MAX_SHARD_BYTES, EncodedDocuments, SplitWriter
from data_pipeline.corpus.metadata import CorpusMetadata
from data_pipeline.corpus.reader import Corpus, open_corpus
from data_pipeline.corpus.splits import TRAIN, VALIDATION
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY, Tokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

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
    for split in (TRAIN, VALIDATION):
        writer = SplitWriter(path / split, tokenizer.vocab_size, max_shard_bytes=max_shard_bytes)
        writer.append(encode_documents(splits.get(split, ())))
        writer.close()
    metadata = describe_corpus(
        path,
        vocab_size=tokenizer.vocab_size,
        sources={"memory": 1.0},
        settings={},
        versions={},
    )
    metadata.save(path)
    return metadata


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


def random_lengths(
    num_documents: int, *, seed: int, mean_sentences: int = 12, mean_tokens: int = 9
) -> list[list[int]]:
    """Sample sentence lengths of documents as uneven as real ones."""
    generator = np.random.default_rng(seed)
    return [
        (1 + generator.poisson(mean_tokens, generator.geometric(1 / mean_sentences))).tolist()
        for _ in range(num_documents)
    ]
