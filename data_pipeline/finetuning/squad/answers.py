"""Answers: the text of the context for a question's best spans, and files of predictions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Int32

from albert_jax.durable_files import write_atomically
from data_pipeline.finetuning.examples import QuestionExample
from data_pipeline.finetuning.squad.spans import TokenSpan


class AnswerCandidate(NamedTuple):
    """A possible answer.

    Attributes:
        text: the characters of the answer in the context.
        start, end: their range; `context[start:end]` is the text.
        score: the score of the span.
        probability: softmax of the score over the candidates of the question.
    """

    text: str
    start: int
    end: int
    score: float
    probability: float


class QuestionPrediction(NamedTuple):
    """The predicted answers to a question.

    Attributes:
        id: the id of the question.
        candidates: at least one candidate, the best one first.
        null_score: the score for no answer; None if it was not predicted.
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
    """Convert spans of tokens to texts of the context, without repeating a text.

    Args:
        example: the question.
        context_offsets: first and past-the-last character of each token in its context.
        spans: the spans, the best one first.
        null_score: the score for no answer.

    Example: in the context `In 1066.`, whose tokens are the characters 0 to 2, 3 to 7 and 7 to 8,
    the span of the second token gives `AnswerCandidate("1066", 3, 7, ...)`.
    """
    found: dict[str, tuple[int, int, float]] = {}
    for span in spans:
        start, end = int(context_offsets[span.first, 0]), int(context_offsets[span.last, 1])
        text = example.context[start:end]
        if stripped := text.strip():
            start += len(text) - len(text.lstrip())
            found.setdefault(stripped, (start, start + len(stripped), span.score))
    if not found:
        # All spans are white space, but every context has at least one word.
        word = example.context.split()[0]
        start = example.context.index(word)
        found[word] = (start, start + len(word), spans[0].score if spans else 0.0)
    probabilities = scipy.special.softmax([score for _, _, score in found.values()]).tolist()
    candidates = tuple(
        AnswerCandidate(text, *place, probability)
        for (text, place), probability in zip(found.items(), probabilities, strict=True)
    )
    return QuestionPrediction(example.id, candidates, null_score)


def best_answers(predictions: Sequence[QuestionPrediction]) -> dict[str, str]:
    """Return the text of the best candidate of each question, by id."""
    return {prediction.id: prediction.candidates[0].text for prediction in predictions}


def null_scores(predictions: Sequence[QuestionPrediction]) -> dict[str, float]:
    """Return the null scores by id, for the questions that have one."""
    return {
        prediction.id: prediction.null_score
        for prediction in predictions
        if prediction.null_score is not None
    }


def write_squad_predictions(
    directory: Path, answers: Mapping[str, str], predictions: Sequence[QuestionPrediction]
) -> None:
    """Write the files that the official scorers read, and a file of candidates.

    `predictions.json` maps ids to answers, `nbest_predictions.json` maps them to candidates with
    their character ranges, scores and probabilities, and `null_odds.json` to null scores, if any.

    Args:
        directory: the directory to write to.
        answers: id -> answer, empty for no answer.
        predictions: the predictions for the same questions.
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
