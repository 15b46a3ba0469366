"""A question and its context as rows: sliding windows, and answers as places of pieces.

Nothing here knows a tokenizer: ids come with the characters that each piece stands for.
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
        input_ids: the pieces.
        token_type_ids: 0 for `[CLS] question [SEP]`, 1 from there on.
        p_mask: 0 where an answer may begin or end: at [CLS], which stands for none, and in the
            context; 1 elsewhere.
        context_position: place in the row of the first piece of the context.
        first_token: which piece of the context that is.
        has_max_context: of each piece of the context in the row, whether no other window of the
            question shows more of what is around it.
        start_position, end_position: places in the row of the first and the last piece of the
            answer; 0 where the row is impossible.
        is_impossible: whether the row does not hold the whole answer.
    """

    input_ids: Int32[np.ndarray, " length"]
    token_type_ids: Int32[np.ndarray, " length"]
    p_mask: Int32[np.ndarray, " length"]
    context_position: int
    first_token: int
    has_max_context: Bool[np.ndarray, " pieces"]
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
    """Lays a question and its context out in as many rows as the context needs.

    Args:
        example: tells the answer, the first one if there are several.
        question_ids: pieces of the question, of which the first `max_query_length` are kept.
        context_ids: pieces of the context.
        context_offsets: first and past-the-last character of each of them, in ascending order.
        cls_id: what opens a row.
        sep_id: what ends the question and the context.
        max_seq_length: pieces that a row may have.
        doc_stride: pieces from one window's beginning to the next one's; fewer are taken where
            an answer of `max_answer_length` pieces could otherwise be in no window whole.
        max_query_length: pieces of a question that are kept.
        max_answer_length: pieces of the longest answer that is to be found.

    Returns:
        The windows from left to right.

    Raises:
        InputError: the context has no pieces, or the lengths leave no room for it.

    Example: question 7, context 11 12 13 14, whose answer is 13, in rows of 6 with stride 2 and
    answers of one piece::

        2 7 3 11 12 3    impossible    max context of 11
        2 7 3 13 14 3    start 3, end 3             ... 13, 14
    """
    question_ids = np.asarray(question_ids, np.int32)[:max_query_length]
    context_ids = np.asarray(context_ids, np.int32)
    capacity = max_seq_length - len(question_ids) - 3
    if capacity < 1 or doc_stride < 1:
        raise InputError(
            f"max_seq_length={max_seq_length} and doc_stride={doc_stride} leave no room for the "
            f"context beside a question of {len(question_ids)} pieces"
        )
    if not len(context_ids):
        raise InputError(f"question {example.id}: its context has no pieces")
    stride = max(1, min(doc_stride, capacity + 1 - max_answer_length))
    spans = window_spans(len(context_ids), capacity, stride)
    best = find_max_context(spans, len(context_ids))
    answer = locate_answer(example.answers[0], context_offsets) if example.answers else None
    position = len(question_ids) + 2
    windows = []
    for number, (first, end) in enumerate(spans):
        pieces = context_ids[first:end]
        input_ids = np.concatenate([[cls_id], question_ids, [sep_id], pieces, [sep_id]])
        places = np.arange(len(input_ids))
        in_context = (places >= position) & (places < position + len(pieces))
        target = (0, 0)
        if answer is not None and first <= answer[0] and answer[1] < end:
            target = (position + answer[0] - first, position + answer[1] - first)
        windows.append(
            Window(
                input_ids=input_ids.astype(np.int32),
                token_type_ids=(places >= position).astype(np.int32),
                p_mask=(~in_context & (places > 0)).astype(np.int32),
                context_position=position,
                first_token=first,
                has_max_context=best[first:end] == number,
                start_position=target[0],
                end_position=target[1],
                is_impossible=target == (0, 0),
            )
        )
    return windows


def window_spans(pieces: int, capacity: int, stride: int) -> list[tuple[int, int]]:
    """First and past-the-last piece of each window; the stride is at most the capacity.

    Example: `window_spans(7, 4, 2)` is `[(0, 4), (2, 6), (4, 7)]`.
    """
    count = 1 + max(0, -(-(pieces - capacity) // stride))
    return [(n * stride, min(n * stride + capacity, pieces)) for n in range(count)]


def find_max_context(spans: Sequence[tuple[int, int]], pieces: int) -> Int32[np.ndarray, " pieces"]:
    """Which window shows most around each piece: of the pieces to its left and to its right, the
    fewer, plus a hundredth of the window's length; the first of equals.

    Example: for windows `[(0, 4), (2, 6)]` it is `0 0 0 1 1 1`: piece 2 has one piece to its right
    in the first and none to its left in the second, piece 3 the reverse.
    """
    best = np.full(pieces, -1.0)
    window = np.zeros(pieces, np.int32)
    for number, (first, end) in enumerate(spans):
        place = np.arange(end - first)
        score = np.minimum(place, place[::-1]) + 0.01 * len(place)
        better = score > best[first:end]
        best[first:end][better] = score[better]
        window[first:end][better] = number
    return window


def locate_answer(answer: Answer, offsets: Int32[np.ndarray, "pieces 2"]) -> tuple[int, int]:
    """The first and the last piece that share a character with an answer.

    An answer within a piece is that piece. One between two pieces, as of characters that the
    tokenizer drops, is the piece after it, or the last one.

    Example: for pieces of the characters 0 to 3, 4 to 9 and 9 to 12, the answer of the
    characters 5 to 10 is `(1, 2)`.
    """
    end = answer.start + len(answer.text)
    first = int(np.searchsorted(offsets[:, 1], answer.start, side="right"))
    last = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
    first = min(first, len(offsets) - 1)
    return first, max(first, last)
