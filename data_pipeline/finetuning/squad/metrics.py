"""Exact match and F1 as in SQuAD's official scorers, and the best null threshold.

Rajpurkar et al. 2016 (version 1.1) and 2018 (2.0). All metrics are in percent.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.finetuning.examples import QuestionExample

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class AnswerScore(NamedTuple):
    """Scores of one answer, from 0 to 1."""

    exact: float
    f1: float


class BestThreshold(NamedTuple):
    """The threshold on null scores that gives the best mean.

    Attributes:
        percent: that mean.
        threshold: questions with a higher null score get no answer.
    """

    percent: float
    threshold: float


def normalize_answer(text: str) -> str:
    """Convert to lower case, without punctuation, articles and repeated spaces.

    Example: `normalize_answer("The  U.S. army's")` is `"us armys"`.
    """
    text = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def score_v1(example: QuestionExample, answer: str) -> AnswerScore:
    """Score by the rules of version 1.1: the maximum over the reference answers."""
    scores = [_compare(answer, reference.text) for reference in example.answers]
    return AnswerScore(max(s.exact for s in scores), max(s.f1 for s in scores))


def score_v2(example: QuestionExample, answer: str) -> AnswerScore:
    """Score by the rules of version 2.0, where the answer to an impossible question is empty.

    Reference answers that are empty after normalization are ignored.
    """
    references = [text for text, _ in example.answers if normalize_answer(text)] or [""]
    scores = []
    for reference in references:
        score = _compare(answer, reference)
        if not normalize_answer(answer) or not reference:
            score = score._replace(f1=score.exact)
        scores.append(score)
    return AnswerScore(max(s.exact for s in scores), max(s.f1 for s in scores))


def _compare(answer: str, reference: str) -> AnswerScore:
    answer, reference = normalize_answer(answer), normalize_answer(reference)
    found, expected = answer.split(), reference.split()
    common = sum((Counter(found) & Counter(expected)).values())
    if not common:
        return AnswerScore(float(answer == reference), 0.0)
    precision, recall = common / len(found), common / len(expected)
    return AnswerScore(float(answer == reference), 2 * precision * recall / (precision + recall))


def evaluate_v1(
    examples: Sequence[QuestionExample], answers: Mapping[str, str]
) -> dict[str, float]:
    """Compute the metrics `exact_match` and `f1` of version 1.1.

    Args:
        examples: the questions.
        answers: id -> text; a missing answer counts as wrong.
    """
    scores = _score_all(score_v1, examples, answers)
    return {"exact_match": _percent(s.exact for s in scores), "f1": _percent(s.f1 for s in scores)}


def evaluate_v2(
    examples: Sequence[QuestionExample], answers: Mapping[str, str]
) -> dict[str, float]:
    """Compute the metrics `exact`, `f1` and `total` of version 2.0.

    They are also computed for the questions with an answer (`HasAns_`) and without one (`NoAns_`),
    if there are any.

    Args:
        examples: the questions.
        answers: id -> text, empty if predicted to be impossible; a missing answer counts as wrong.
    """
    scores = _score_all(score_v2, examples, answers)
    has_answer = np.array([_has_answer(example) for example in examples], bool)
    metrics: dict[str, float] = {}
    for prefix, chosen in (
        ("", np.ones_like(has_answer)),
        ("HasAns_", has_answer),
        ("NoAns_", ~has_answer),
    ):
        part = [scores[index] for index in np.flatnonzero(chosen)]
        if part:
            metrics[f"{prefix}exact"] = _percent(s.exact for s in part)
            metrics[f"{prefix}f1"] = _percent(s.f1 for s in part)
            metrics[f"{prefix}total"] = len(part)
    return metrics


def find_best_thresholds(
    examples: Sequence[QuestionExample],
    answers: Mapping[str, str],
    null_scores: Mapping[str, float],
) -> tuple[BestThreshold, BestThreshold]:
    """Find the thresholds with the best exact match and the best F1, by the official sweep.

    Starting with no answers, questions are answered one by one in ascending order of null scores.
    If thresholds are chosen and reported on the same questions, the means are upper bounds. To
    report results, choose a threshold on other questions (see `split_by_article`).

    Args:
        examples: the questions.
        answers: id -> the best nonempty answer.
        null_scores: id -> the score for no answer.

    Returns:
        The thresholds for exact match and for F1. If a threshold must be below all scores, it is 0,
        or just below the lowest score if 0 is not below all of them.
    """
    scores = _score_all(score_v2, examples, answers)
    nulls = np.array([null_scores[example.id] for example in examples], np.float64)
    has_answer = np.array([_has_answer(example) for example in examples], bool)
    answered = np.array([bool(answers[example.id]) for example in examples], bool)
    order = np.argsort(nulls, kind="stable")
    none = min(0.0, float(np.nextafter(nulls[order[0]], -np.inf)))

    def sweep(values: Iterable[float]) -> BestThreshold:
        gains = np.where(has_answer, np.array(list(values)), -answered.astype(np.float64))[order]
        sums = np.sum(~has_answer) + np.concatenate([[0.0], np.cumsum(gains)])
        best = int(np.argmax(sums))
        threshold = none if best == 0 else float(nulls[order[best - 1]])
        return BestThreshold(100 * float(sums[best]) / len(examples), threshold)

    return sweep(s.exact for s in scores), sweep(s.f1 for s in scores)


def apply_threshold(
    answers: Mapping[str, str], null_scores: Mapping[str, float], threshold: float
) -> dict[str, str]:
    """Return the answers, empty where the null score is above the threshold."""
    return {
        name: "" if null_scores[name] > threshold else answer for name, answer in answers.items()
    }


def _score_all(
    score: Callable[[QuestionExample, str], AnswerScore],
    examples: Sequence[QuestionExample],
    answers: Mapping[str, str],
) -> list[AnswerScore]:
    return [
        score(example, answers[example.id]) if example.id in answers else AnswerScore(0.0, 0.0)
        for example in examples
    ]


def _has_answer(example: QuestionExample) -> bool:
    return bool(example.answers)


def _percent(values: Iterable[float]) -> float:
    """Return the mean in percent, summed in order, like the official scorers."""
    values = list(values)
    return 100.0 * sum(values) / len(values)
