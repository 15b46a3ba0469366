"""Sliding windows over a question's context, and answers as token positions.

This does not depend on a tokenizer: each token id comes with its range of characters.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import Answer, QuestionExample


class Window(NamedTuple):
    """A row `[CLS] question [SEP] part of the context [SEP]`, without padding.

    Attributes:
        input_ids: the tokens.
        token_type_ids: 0 for `[CLS] question [SEP]`, 1 after that.
        p_mask: 0 where an answer may start or end, i.e. in the context and, for no answer, at
            [CLS]; 1 elsewhere.
        context_position: position in the row of its first context token.
        first_token: index of that token in the context.
        has_max_context: for each context token in the row, True if no other window has more context
            around it.
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
        example: the question; the first of its answers is used.
        question_ids: tokens of the question; the first `max_query_length` are kept.
        context_ids: tokens of the context.
        context_offsets: first and past-the-last character of each context token, ascending.
        cls_id: the id of [CLS].
        sep_id: the id of [SEP].
        max_seq_length: maximum number of tokens in a row.
        doc_stride: number of tokens between the starts of two windows; reduced if an answer of
            `max_answer_length` tokens might otherwise not be entirely in any window.
        max_query_length: maximum number of tokens in a question.
        max_answer_length: maximum number of tokens in an answer.

    Returns:
        The windows from left to right.

    Raises:
        InputError: the context has no tokens, or the lengths leave no room for it.

    Example: question 7 and context 11 12 13 14 with the answer 13, in rows of 6, with stride 2 and
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
    """Return the first and past-the-last token of each window; `stride` must not exceed `capacity`.

    Example: `window_spans(7, 4, 2)` is `[(0, 4), (2, 6), (4, 7)]`.
    """
    count = 1 + max(0, -(-(num_tokens - capacity) // stride))
    return [(n * stride, min(n * stride + capacity, num_tokens)) for n in range(count)]


def find_max_context(
    spans: Sequence[tuple[int, int]], num_tokens: int
) -> Int32[np.ndarray, " tokens"]:
    """Return the index of the window that has the maximum context for each token.

    A token's context is the number of tokens to its left or right in the window, whichever is
    smaller, plus a hundredth of the window's length. On a tie the first window wins.

    Example: for windows `[(0, 4), (2, 6)]` it is `0 0 0 1 1 1`: token 2 has one token to its right
    in the first window and none to its left in the second; for token 3 it is the reverse.
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

    For an answer inside a token, both are that token. For an answer between two tokens, e.g. one
    made of characters that the tokenizer drops, both are the token after it, or the last token.

    Example: for tokens at characters 0 to 3, 4 to 9 and 9 to 12, an answer at characters 5 to 10
    gives `(1, 2)`.
    """
    end = answer.start + len(answer.text)
    first = int(np.searchsorted(offsets[:, 1], answer.start, side="right"))
    last = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
    first = min(first, len(offsets) - 1)
    return first, max(first, last)
