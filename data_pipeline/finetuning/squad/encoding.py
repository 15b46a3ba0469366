"""Encoding of SQuAD questions, with one row per window."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from data_pipeline.finetuning.encoded_examples import EncodedExamples, join_sequences
from data_pipeline.finetuning.examples import QuestionExample
from data_pipeline.finetuning.squad.windows import Window, make_windows
from data_pipeline.tokenizers.albert import AlbertTokenizer


class EncodedQuestion(NamedTuple):
    """The windows of a question.

    Attributes:
        windows: the windows, from left to right.
        context_offsets: first and past-the-last character of each token in the context.
    """

    windows: list[Window]
    context_offsets: Int32[np.ndarray, "context 2"]


def encode_questions(
    tokenizer: AlbertTokenizer,
    examples: Sequence[QuestionExample],
    *,
    max_seq_length: int,
    doc_stride: int,
    max_query_length: int,
    max_answer_length: int,
) -> list[EncodedQuestion]:
    """Encode each question and its context in as many windows as needed; see `make_windows`.

    Args:
        tokenizer: the tokenizer of the model.
        examples: questions; consecutive questions with the same context share its encoding.
        max_seq_length: maximum number of tokens in a row.
        doc_stride: maximum number of tokens between the starts of two windows.
        max_query_length: maximum number of tokens in a question.
        max_answer_length: maximum number of tokens in an answer.

    Raises:
        InputError: a context has no tokens, or the lengths leave no room for it.
    """
    encoded, context = [], None
    ids, offsets = tokenizer.encode_with_offsets("")
    for example in examples:
        if example.context != context:
            context = example.context
            ids, offsets = tokenizer.encode_with_offsets(context)
        windows = make_windows(
            example,
            tokenizer.tokenizer.encode(example.question),
            ids,
            offsets,
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
            max_seq_length=max_seq_length,
            doc_stride=doc_stride,
            max_query_length=max_query_length,
            max_answer_length=max_answer_length,
        )
        encoded.append(EncodedQuestion(windows, offsets))
    return encoded


def join_windows(questions: Sequence[EncodedQuestion]) -> EncodedExamples:
    """Join the windows of all questions, with the fields of `SpanBatch`."""
    windows = [window for question in questions for window in question.windows]
    return join_sequences(
        {
            "input_ids": [window.input_ids for window in windows],
            "token_type_ids": [window.token_type_ids for window in windows],
            "p_mask": [window.p_mask for window in windows],
        },
        {
            "start_positions": np.array([window.start_position for window in windows], np.int32),
            "end_positions": np.array([window.end_position for window in windows], np.int32),
            "is_impossible": np.array([window.is_impossible for window in windows], np.int32),
        },
    )
