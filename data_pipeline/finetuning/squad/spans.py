"""Answer spans: the best spans of context tokens, given a model's outputs for the windows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from data_pipeline.finetuning.squad.windows import Window


class TokenSpan(NamedTuple):
    """A candidate answer: its first and last token in the context, and its score."""

    first: int
    last: int
    score: float


class BeamOutputs(NamedTuple):
    """Outputs of the conditional head for one window: the best starts, and the best ends for each.

    Attributes:
        start_log_probs, start_indices: the starts and their positions in the row.
        end_log_probs, end_indices: the ends and their positions, given the start.
        answer_logit: the logit of having no answer.
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
    """Find the best spans of a question by the sum of start and end logits.

    Candidates are all spans of up to `max_answer_length` tokens that start where their window has
    the maximum context. Every token starts such a span in one of the windows, so there is always an
    answer.

    Args:
        windows: all windows of the question.
        start_logits: the logits for the row of each window; logits for its padding are ignored.
        end_logits: as for `start_logits`.
        n_best: maximum number of spans.
        max_answer_length: maximum number of tokens in an answer.

    Returns:
        Spans by descending score, with ties broken by position.

    Example: one window of two tokens with start logits `1 0` and end logits `0 2` has the spans
    `(0, 1, 3.0)`, `(1, 1, 2.0)`, `(0, 0, 1.0)`.
    """
    spans: list[TokenSpan] = []
    for window, starts, ends in zip(windows, start_logits, end_logits, strict=True):
        num_tokens = len(window.has_max_context)
        context = slice(window.context_position, window.context_position + num_tokens)
        start = np.where(window.has_max_context, starts[context].astype(np.float64), -np.inf)
        # Row i has the ends of the spans that start at token i, the shortest span first.
        end = np.full(num_tokens + max_answer_length - 1, -np.inf)
        end[:num_tokens] = ends[context]
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
    """Score the absence of an answer based on the logits of [CLS].

    The score is the minimum over windows of the sum of start and end logits at [CLS], minus the
    score of the best span.

    Args:
        spans: the spans of the question, as returned by `find_spans`.
        start_logits, end_logits: the logits of each of its windows.
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
    """Find the best spans of a question among the beams of the conditional head.

    Spans are excluded if they are outside the context, are longer than `max_answer_length` tokens,
    end before they start, or start where another window has more context. If none is left, the most
    probable start in the context is the only answer.

    Args:
        windows: all windows of the question.
        outputs: the outputs for each window.
        n_best: maximum number of spans.
        max_answer_length: maximum number of tokens in an answer.

    Returns:
        Spans by descending sum of both log-probabilities, with ties broken by position.
    """
    spans, lone_starts = [], []
    for window, beams in zip(windows, outputs, strict=True):
        num_tokens = len(window.has_max_context)
        for start, position, end_log_probs, end_indices in zip(
            beams.start_log_probs,
            beams.start_indices - window.context_position,
            beams.end_log_probs,
            beams.end_indices - window.context_position,
            strict=True,
        ):
            if not 0 <= position < num_tokens:
                continue
            first = window.first_token + int(position)
            lone_starts.append(TokenSpan(first, first, float(start)))
            if not window.has_max_context[position]:
                continue
            spans += [
                TokenSpan(first, window.first_token + int(last), float(start) + float(end))
                for end, last in zip(end_log_probs, end_indices, strict=True)
                if position <= last < min(num_tokens, position + max_answer_length)
            ]
    return _rank(spans, n_best) or _rank(lone_starts, 1)


def find_beam_null_score(outputs: Sequence[BeamOutputs]) -> float:
    """Score the absence of an answer, for the conditional head, as the lowest logit of a window."""
    return min(beams.answer_logit for beams in outputs)


def _rank(spans: Sequence[TokenSpan], n_best: int) -> list[TokenSpan]:
    return sorted(spans, key=lambda span: (-span.score, span.first, span.last))[:n_best]
