"""Spans of context tokens that answer a question, found in the outputs of its windows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from data_pipeline.finetuning.squad.windows import Window


class TokenSpan(NamedTuple):
    """A candidate: its first and its last piece of the context, and how much speaks for it."""

    first: int
    last: int
    score: float


class BeamOutputs(NamedTuple):
    """What the conditional head says of one window: the best starts, and for each the best ends.

    Attributes:
        start_log_probs, start_indices: of the starts in the row.
        end_log_probs, end_indices: of the ends, given the start.
        answer_logit: how much speaks for there being no answer.
    """

    start_log_probs: Float[np.ndarray, " starts"]
    start_indices: Int[np.ndarray, " starts"]
    end_log_probs: Float[np.ndarray, "starts ends"]
    end_indices: Int[np.ndarray, "starts ends"]
    answer_logit: float


def find_spans(
    windows: Sequence[Window],
    start_logits: Sequence[Float[np.ndarray, " _"]],
    end_logits: Sequence[Float[np.ndarray, " _"]],
    *,
    n_best: int = 20,
    max_answer_length: int = 30,
) -> list[TokenSpan]:
    """The best spans of a question by start logit plus end logit.

    All spans are compared, of up to `max_answer_length` pieces, that begin where the window is the
    one with most context. Every piece is such a span in one of the windows, so there is always an
    answer.

    Args:
        windows: all of the question.
        start_logits: of each window, for its row; padding after it does not count.
        end_logits: likewise.
        n_best: how many spans are kept.
        max_answer_length: pieces that an answer may have.

    Returns:
        The best first; of equals the first in the context.

    Example: one window of two pieces with start logits `1 0` and end logits `0 2` there has the
    spans `(0, 1, 3.0)`, `(1, 1, 2.0)`, `(0, 0, 1.0)`.
    """
    spans: list[TokenSpan] = []
    for window, starts, ends in zip(windows, start_logits, end_logits, strict=True):
        pieces = len(window.has_max_context)
        context = slice(window.context_position, window.context_position + pieces)
        start = np.where(window.has_max_context, starts[context].astype(np.float64), -np.inf)
        # Row i holds the ends of spans that begin at piece i, the shortest first.
        end = np.full(pieces + max_answer_length - 1, -np.inf)
        end[:pieces] = ends[context]
        scores = start[:, None] + np.lib.stride_tricks.sliding_window_view(end, max_answer_length)
        best = np.argsort(-scores, axis=None, kind="stable")[:n_best]
        for first, length in zip(*np.unravel_index(best, scores.shape), strict=True):
            if scores[first, length] > -np.inf:
                place = window.first_token + int(first)
                spans.append(TokenSpan(place, place + int(length), float(scores[first, length])))
    return _rank(spans, n_best)


def find_null_score(
    spans: Sequence[TokenSpan],
    start_logits: Sequence[Float[np.ndarray, " _"]],
    end_logits: Sequence[Float[np.ndarray, " _"]],
) -> float:
    """How much speaks for no answer by the logits of [CLS]: their sum in the window where it is
    lowest, minus the score of the best span.

    Args:
        spans: of the question, as `find_spans` gives them.
        start_logits, end_logits: of each of its windows.
    """
    sums = [
        float(start[0]) + float(end[0]) for start, end in zip(start_logits, end_logits, strict=True)
    ]
    return min(sums) - spans[0].score


def find_beam_spans(
    windows: Sequence[Window],
    outputs: Sequence[BeamOutputs],
    *,
    n_best: int = 20,
    max_answer_length: int = 30,
) -> list[TokenSpan]:
    """The best spans of a question among those of the conditional head's beams.

    Spans outside the context, longer than `max_answer_length` pieces, with the end before the
    start, or that begin where another window has more context, do not count. If that leaves none,
    the likeliest start in the context is the answer, alone.

    Args:
        windows: all of the question.
        outputs: of each window.
        n_best: how many spans are kept.
        max_answer_length: pieces that an answer may have.

    Returns:
        The best first, by the sum of both log-probabilities; of equals the first in the context.
    """
    spans, lone_starts = [], []
    for window, beams in zip(windows, outputs, strict=True):
        pieces = len(window.has_max_context)
        for start, position, end_log_probs, end_indices in zip(
            beams.start_log_probs,
            beams.start_indices - window.context_position,
            beams.end_log_probs,
            beams.end_indices - window.context_position,
            strict=True,
        ):
            if not 0 <= position < pieces:
                continue
            first = window.first_token + int(position)
            lone_starts.append(TokenSpan(first, first, float(start)))
            if not window.has_max_context[position]:
                continue
            spans += [
                TokenSpan(first, window.first_token + int(last), float(start) + float(end))
                for end, last in zip(end_log_probs, end_indices, strict=True)
                if position <= last < min(pieces, position + max_answer_length)
            ]
    return _rank(spans, n_best) or _rank(lone_starts, 1)


def find_beam_null_score(outputs: Sequence[BeamOutputs]) -> float:
    """How much speaks for no answer by the conditional head: the least of any window."""
    return min(beams.answer_logit for beams in outputs)


def _rank(spans: Sequence[TokenSpan], n_best: int) -> list[TokenSpan]:
    return sorted(spans, key=lambda span: (-span.score, span.first, span.last))[:n_best]
