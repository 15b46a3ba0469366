"""Sliding windows over a question's context, and answers as positions of tokens.

This does not depend on a tokenizer: ids come with the character range of each token.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import Answer, QuestionExample


class Window(NamedTuple):
    """A row `[CLS] question [SEP] part of the context [SEP]`, not padded.

    Attributes:
        input_ids: the tokens.
        token_type_ids: 0 for `[CLS] question [SEP]`, 1 after that.
        p_mask: 0 where an answer may start or end: at [CLS], for no answer, and in the context; 1
            elsewhere.
        context_position: position in the row of its first token of the context.
        first_token: index in the context of that token.
        has_max_context: for each token of the context in the row, True if no other window has more
            context around it.
        start_position, end_position: positions in the row of the first and last token of the
            answer; 0 if the row is impossible.
        is_impossible: True if the row does not contain the whole answer.
    """

    input_ids: Int32[np.ndarray, " length"]
    token_type_ids: Int32[np.ndarray, " length"]
    p_mask: Int32[np.ndarray, " length"]
    context_position: int
    first_token: int
    has_max_context: Bool[np.ndarray, " tokens"]
    start_position: int
    end_position: int
    is_impossible: bool


def make_windows(
    example: QuestionExample,
    question_ids: Sequence[int] | Int32[np.ndarray, " question"],
    context_ids: Sequence[int] | Int32[np.ndarray, " context"],
    context_offsets: Int32[np.ndarray, "context 2"],
    *,
    cls_id: int,
    sep_id: int,
    max_seq_length: int = 384,
    doc_stride: int = 128,
    max_query_length: int = 64,
    max_answer_length: int = 30,
) -> list[Window]:
    """Lay out a question and its context in as many windows as needed.

    Args:
        example: the question, of whose answers the first is used.
        question_ids: tokens of the question, of which the first `max_query_length` are kept.
        context_ids: tokens of the context.
        context_offsets: first and past-the-last character of each of them, in ascending order.
        cls_id: the id of [CLS].
        sep_id: the id of [SEP].
        max_seq_length: upper bound of a row's tokens.
        doc_stride: tokens between the starts of two windows; fewer if otherwise an answer of
            `max_answer_length` tokens could be in no window as a whole.
        max_query_length: upper bound of a question's tokens.
        max_answer_length: upper bound of an answer's tokens.

    Returns:
        The windows from left to right.

    Raises:
        InputError: the context has no tokens, or the lengths leave no room for it.

    Example: question 7, context 11 12 13 14, whose answer is 13, in rows of 6 with stride 2 and
    answers of one token::

        2 7 3 11 12 3    impossible    max context of 11
        2 7 3 13 14 3    start 3, end 3             ... 13, 14
    """
    question_ids = np.asarray(question_ids, np.int32)[:max_query_length]
    context_ids = np.asarray(context_ids, np.int32)
    capacity = max_seq_length - len(question_ids) - 3
    if capacity < 1 or doc_stride < 1:
        raise InputError(
            f"max_seq_length={max_seq_length} and doc_stride={doc_stride} leave no room for the "
            f"context beside a question of {len(question_ids)} tokens"
        )
    if not len(context_ids):
        raise InputError(f"question {example.id}: its context has no tokens")
    stride = max(1, min(doc_stride, capacity + 1 - max_answer_length))
    spans = window_spans(len(context_ids), capacity, stride)
    best = find_max_context(spans, len(context_ids))
    answer = locate_answer(example.answers[0], context_offsets) if example.answers else None
    position = len(question_ids) + 2
    windows = []
    for number, (first, end) in enumerate(spans):
        ids = np.concatenate([[cls_id], question_ids, [sep_id], context_ids[first:end], [sep_id]])
        positions = np.arange(len(ids))
        in_context = (positions >= position) & (positions[::-1] > 0)
        target = (0, 0)
        if answer is not None and first <= answer[0] and answer[1] < end:
            target = (position + answer[0] - first, position + answer[1] - first)
        windows.append(
            Window(
                input_ids=ids.astype(np.int32),
                token_type_ids=(positions >= position).astype(np.int32),
                p_mask=(~in_context & (positions > 0)).astype(np.int32),
                context_position=position,
                first_token=first,
                has_max_context=best[first:end] == number,
                start_position=target[0],
                end_position=target[1],
                is_impossible=target == (0, 0),
            )
        )
    return windows


def window_spans(num_tokens: int, capacity: int, stride: int) -> list[tuple[int, int]]:
    """Return the first and past-the-last token of each window; the stride is at most the capacity.

    Example: `window_spans(7, 4, 2)` is `[(0, 4), (2, 6), (4, 7)]`.
    """
    count = 1 + max(0, -(-(num_tokens - capacity) // stride))
    return [(n * stride, min(n * stride + capacity, num_tokens)) for n in range(count)]


def find_max_context(
    spans: Sequence[tuple[int, int]], num_tokens: int
) -> Int32[np.ndarray, " tokens"]:
    """Return the index of the window with the maximum context of each token.

    A token's context is the smaller number of tokens to its left or right, plus a hundredth of the
    window's length; the first of equals wins.

    Example: for windows `[(0, 4), (2, 6)]` it is `0 0 0 1 1 1`: token 2 has one token to its right
    in the first and none to its left in the second, token 3 the reverse.
    """
    best = np.full(num_tokens, -1.0)
    window = np.zeros(num_tokens, np.int32)
    for number, (first, end) in enumerate(spans):
        left = np.arange(end - first)
        score = np.minimum(left, left[::-1]) + 0.01 * len(left)
        better = score > best[first:end]
        best[first:end][better] = score[better]
        window[first:end][better] = number
    return window


def locate_answer(answer: Answer, offsets: Int32[np.ndarray, "tokens 2"]) -> tuple[int, int]:
    """Return the first and the last token that share a character with an answer.

    An answer within a token is that token. One between two tokens, as of characters that the
    tokenizer drops, is the token after it, or the last one.

    Example: for tokens of the characters 0 to 3, 4 to 9 and 9 to 12, the answer of the
    characters 5 to 10 is `(1, 2)`.
    """
    end = answer.start + len(answer.text)
    first = int(np.searchsorted(offsets[:, 1], answer.start, side="right"))
    last = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
    first = min(first, len(offsets) - 1)
    return first, max(first, last)
