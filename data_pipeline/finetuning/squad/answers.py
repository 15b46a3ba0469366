"""What a model says of a question's windows, turned into answers that stand in the context."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32

from albert_jax.durable_files import write_atomically
from data_pipeline.finetuning.examples import QuestionExample
from data_pipeline.finetuning.squad.windows import Window


class PieceSpan(NamedTuple):
    """A candidate: its first and its last piece of the context, and how much speaks for it."""

    first: int
    last: int
    score: float


class AnswerCandidate(NamedTuple):
    """A possible answer.

    Attributes:
        text: its characters in the context.
        start, end: which these are; `context[start:end]` is the text.
        score: the model's, larger for better ones.
        probability: among the candidates of the question.
    """

    text: str
    start: int
    end: int
    score: float
    probability: float


class QuestionPrediction(NamedTuple):
    """What is answered to a question.

    Attributes:
        id: of the question.
        candidates: the best first; at least one.
        null_score: how much speaks for there being no answer; None if the model was not asked.
    """

    id: str
    candidates: tuple[AnswerCandidate, ...]
    null_score: float | None = None


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
) -> list[PieceSpan]:
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
    spans: list[PieceSpan] = []
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
                place = window.first_piece + int(first)
                spans.append(PieceSpan(place, place + int(length), float(scores[first, length])))
    return _rank(spans, n_best)


def find_null_score(
    spans: Sequence[PieceSpan],
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
) -> list[PieceSpan]:
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
            first = window.first_piece + int(position)
            lone_starts.append(PieceSpan(first, first, float(start)))
            if not window.has_max_context[position]:
                continue
            spans += [
                PieceSpan(first, window.first_piece + int(last), float(start) + float(end))
                for end, last in zip(end_log_probs, end_indices, strict=True)
                if position <= last < min(pieces, position + max_answer_length)
            ]
    return _rank(spans, n_best) or _rank(lone_starts, 1)


def find_beam_null_score(outputs: Sequence[BeamOutputs]) -> float:
    """How much speaks for no answer by the conditional head: the least of any window."""
    return min(beams.answer_logit for beams in outputs)


def _rank(spans: Sequence[PieceSpan], n_best: int) -> list[PieceSpan]:
    return sorted(spans, key=lambda span: (-span.score, span.first, span.last))[:n_best]


def predict_answer(
    example: QuestionExample,
    context_offsets: Int32[np.ndarray, "context 2"],
    spans: Sequence[PieceSpan],
    null_score: float | None = None,
) -> QuestionPrediction:
    """Spans of pieces as texts of the context, each text once.

    Args:
        example: the question.
        context_offsets: first and past-the-last character of each piece of its context.
        spans: the best first.
        null_score: how much speaks for there being no answer.

    Example: in the context `In 1066.`, whose pieces are the characters 0 to 2, 3 to 7 and 7 to 8,
    the span of the second piece is `AnswerCandidate("1066", 3, 7, ...)`.
    """
    found: dict[str, tuple[int, int, float]] = {}
    for span in spans:
        start, end = int(context_offsets[span.first, 0]), int(context_offsets[span.last, 1])
        text = example.context[start:end]
        if stripped := text.strip():
            start += len(text) - len(text.lstrip())
            found.setdefault(stripped, (start, start + len(stripped), span.score))
    if not found:
        # Only pieces that stand for no character were marked: no context is without a word.
        word = example.context.split()[0]
        start = example.context.index(word)
        found[word] = (start, start + len(word), spans[0].score if spans else 0.0)
    scores = np.array([score for _, _, score in found.values()])
    weights = np.exp(scores - scores.max())
    candidates = tuple(
        AnswerCandidate(text, *place, probability)
        for (text, place), probability in zip(
            found.items(), (weights / weights.sum()).tolist(), strict=True
        )
    )
    return QuestionPrediction(example.id, candidates, null_score)


def best_answers(predictions: Sequence[QuestionPrediction]) -> dict[str, str]:
    """Id -> the text of the best candidate."""
    return {prediction.id: prediction.candidates[0].text for prediction in predictions}


def null_scores(predictions: Sequence[QuestionPrediction]) -> dict[str, float]:
    """Id -> null score, of the questions that have one."""
    return {
        prediction.id: prediction.null_score
        for prediction in predictions
        if prediction.null_score is not None
    }


def write_squad_predictions(
    directory: Path, answers: Mapping[str, str], predictions: Sequence[QuestionPrediction]
) -> None:
    """Writes what the official scorers read, and what lies behind it.

    `predictions.json` holds id -> answer, `nbest_predictions.json` id -> candidates with their
    characters, scores and probabilities, `null_odds.json` id -> null score if there are any.

    Args:
        directory: where.
        answers: id -> answer, empty for none.
        predictions: of the same questions.
    """
    candidates = {
        prediction.id: [candidate._asdict() for candidate in prediction.candidates]
        for prediction in predictions
    }
    files: dict[str, Mapping[str, object]] = {
        "predictions.json": answers,
        "nbest_predictions.json": candidates,
    }
    if odds := null_scores(predictions):
        files["null_odds.json"] = odds
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)
        write_atomically(directory / name, text + "\n")
