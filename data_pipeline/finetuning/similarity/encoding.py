"""Encoding of similar texts: a row for each text, with a number that equal texts share."""

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

    If only some examples have a hard negative, the positive takes its place in the others. A text
    never counts as a negative of a text that it equals.

    Args:
        tokenizer: the tokenizer of the model.
        examples: at least one example.
        max_seq_length: maximum number of tokens in a row, including special tokens.
        with_negatives: False to leave out hard negatives.

    Returns:
        Examples of two or three sequences, with `text_ids` of the sequences and `scores`. Texts
        with equal tokens share a number, since a model cannot tell them apart.
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
