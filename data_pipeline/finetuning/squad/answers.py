"""What a model says of a question's windows, turned into answers that stand in the context."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from albert_jax.durable_files import write_atomically
from data_pipeline.finetuning.examples import QuestionExample
from data_pipeline.finetuning.squad.spans import TokenSpan


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


def predict_answer(
    example: QuestionExample,
    context_offsets: Int32[np.ndarray, "context 2"],
    spans: Sequence[TokenSpan],
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
