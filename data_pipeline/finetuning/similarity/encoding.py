"""Encoding of texts that are alike: each a row of its own, with a number that equal ones share."""

import itertools
from collections.abc import Sequence

import numpy as np

from data_pipeline.finetuning.encoded_examples import EncodedExamples
from data_pipeline.finetuning.encoding import encode_texts
from data_pipeline.finetuning.examples import TextExample
from data_pipeline.finetuning.similarity.examples import SimilarityExample
from data_pipeline.tokenizers.albert import AlbertTokenizer


def encode_similar(
    tokenizer: AlbertTokenizer,
    examples: Sequence[SimilarityExample],
    *,
    max_seq_length: int,
    with_negatives: bool = True,
) -> EncodedExamples:
    """Encode each text of an example as `[CLS] text [SEP]`: anchor, positive, and hard negative.

    Where some examples have a hard negative and others none, the latter's is their positive once
    more, which is no negative of anything it is equal to.

    Args:
        tokenizer: of the model.
        examples: at least one.
        max_seq_length: upper bound of a row's tokens, special ones included.
        with_negatives: False to leave hard negatives out.

    Returns:
        Examples of two or three sequences, with `text_ids` of the sequences and `scores`. Texts
        whose tokens are equal have one number: a model cannot tell them apart.
    """
    three = with_negatives and any(example.negative is not None for example in examples)
    texts = []
    for example in examples:
        texts += [example.anchor, example.positive]
        texts += [example.positive if example.negative is None else example.negative] * three
    encoded = encode_texts(
        tokenizer,
        [TextExample("", text, None, None) for text in texts],
        max_seq_length=max_seq_length,
        regression=False,
    )
    ids, starts = encoded.sequences["input_ids"], encoded.starts.tolist()
    numbers: dict[bytes, int] = {}
    of_texts = [
        numbers.setdefault(ids[start:end].tobytes(), len(numbers))
        for start, end in itertools.pairwise(starts)
    ]
    choices = 3 if three else 2
    values = {
        "text_ids": np.array(of_texts, np.int32).reshape(-1, choices),
        "scores": np.array([example.score or 0 for example in examples], np.float32),
    }
    return EncodedExamples(encoded.sequences, encoded.starts, values, choices)
