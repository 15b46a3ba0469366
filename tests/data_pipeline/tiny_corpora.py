"""Small corpora in which no piece occurs twice, so that every piece tells where it came from."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipeline.corpus.reader import Corpus, open_corpus
from data_pipeline.corpus.writer import write_corpus
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

FIRST_ID = 5  # after the special pieces

Lengths = Sequence[Sequence[int]]  # tokens of each sentence of each document


def make_corpus(
    path: Path,
    train: Lengths,
    validation: Lengths = ((4, 5, 6),),
    *,
    max_shard_bytes: int = 256 * 10**6,
) -> Corpus:
    """A corpus of documents with sentences of these lengths; its pieces are numbered through,
    training text first, so the piece at address a of the training text is `FIRST_ID + a`."""
    counter = itertools.count(FIRST_ID)
    splits = {
        name: [
            [list(itertools.islice(counter, length)) for length in document]
            for document in documents
        ]
        for name, documents in (("train", train), ("validation", validation))
    }
    size = next(counter)
    # Every third piece continues a word.
    words = (f"##{number}" if number % 3 == 0 else f"w{number}" for number in range(FIRST_ID, size))
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])
    write_corpus(path, splits, tokenizer, max_shard_bytes=max_shard_bytes)
    return open_corpus(path)


def draw_lengths(
    num_documents: int, *, seed: int, mean_sentences: int = 12, mean_tokens: int = 9
) -> list[list[int]]:
    """Sentence lengths of documents as uneven as real ones."""
    generator = np.random.default_rng(seed)
    return [
        (1 + generator.poisson(mean_tokens, generator.geometric(1 / mean_sentences))).tolist()
        for _ in range(num_documents)
    ]
