"""Answers to the questions of a split, and their official metrics."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from data_pipeline.finetuning.examples import QuestionExample
from data_pipeline.finetuning.squad.answers import (
    QuestionPrediction,
    best_answers,
    null_scores,
    predict_answer,
)
from data_pipeline.finetuning.squad.encoding import EncodedQuestion
from data_pipeline.finetuning.squad.metrics import (
    apply_threshold,
    evaluate_v1,
    evaluate_v2,
    find_best_thresholds,
)
from data_pipeline.finetuning.squad.reader import split_by_article
from data_pipeline.finetuning.squad.spans import (
    BeamOutputs,
    find_beam_null_score,
    find_beam_spans,
    find_null_score,
    find_spans,
)

# Outputs of a model for each window: arrays by name; a logit is a NumPy scalar.
WindowOutputs = Sequence[Mapping[str, Any]]


@runtime_checkable
class AnswerSearch(Protocol):
    """Limits of the search for spans, and the null score above which there is no answer."""

    @property
    def n_best(self) -> int: ...

    @property
    def max_answer_length(self) -> int: ...

    @property
    def null_threshold(self) -> float | None: ...


class SplitAnswers(NamedTuple):
    """The predictions for a split.

    Attributes:
        predictions: the candidates for each question.
        answers: id -> text, empty if the question is predicted to be impossible.
        threshold: the null score above which it is; None if every question has an answer.
    """

    predictions: list[QuestionPrediction]
    answers: dict[str, str]
    threshold: float | None


def has_impossible(examples: Sequence[QuestionExample]) -> bool:
    """Return True if some questions are impossible, as in version 2.0."""
    return any(example.is_impossible for example in examples)


def predict_answers(
    config: AnswerSearch,
    examples: Sequence[QuestionExample],
    questions: Sequence[EncodedQuestion],
    outputs: WindowOutputs,
) -> SplitAnswers:
    """Predict the answers of a split, and for version 2.0 which questions are impossible.

    Args:
        config: limits of the search for spans, and the null threshold.
        examples: the questions.
        questions: their windows.
        outputs: the model's outputs for all windows, in order.
    """
    rows = iter(outputs)
    predictions = [
        predict_question(
            config, example, question, list(itertools.islice(rows, len(question.windows)))
        )
        for example, question in zip(examples, questions, strict=True)
    ]
    answers, threshold = best_answers(predictions), None
    if has_impossible(examples):
        nulls, threshold = null_scores(predictions), config.null_threshold
        if threshold is None:
            chosen_on, _ = split_by_article(examples)
            threshold = find_best_thresholds(chosen_on, answers, nulls)[1].threshold
        answers = apply_threshold(answers, nulls, threshold)
    return SplitAnswers(predictions, answers, threshold)


def predict_question(
    config: AnswerSearch,
    example: QuestionExample,
    question: EncodedQuestion,
    outputs: WindowOutputs,
) -> QuestionPrediction:
    """Find the best spans of a question, and its null score.

    Args:
        config: limits of the search.
        example: the question.
        question: its windows.
        outputs: the model's outputs for each window, from either head.
    """
    search = {"n_best": config.n_best, "max_answer_length": config.max_answer_length}
    if "answer_logits" in outputs[0]:
        beams = [
            BeamOutputs(
                row["start_log_probs"],
                row["start_indices"],
                row["end_log_probs"],
                row["end_indices"],
                float(row["answer_logits"]),
            )
            for row in outputs
        ]
        spans = find_beam_spans(question.windows, beams, **search)
        null = find_beam_null_score(beams)
    else:
        starts, ends = ([row[f"{end}_logits"] for row in outputs] for end in ("start", "end"))
        spans = find_spans(question.windows, starts, ends, **search)
        null = find_null_score(spans, starts, ends)
    return predict_answer(example, question.context_offsets, spans, null)


def score_answers(
    config: AnswerSearch, examples: Sequence[QuestionExample], predicted: SplitAnswers
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the official metrics in percent, and their values if no question is answered.

    For version 2.0, if the threshold was chosen on half of the articles, the metrics are those of
    the other half. The prefix `all_` marks the metrics of all questions. `best_f1` is the F1 with
    the best threshold for all questions.

    Args:
        config: the null threshold, if one was given.
        examples: the questions.
        predicted: their answers.
    """
    if predicted.threshold is None:
        metrics = evaluate_v1(examples, predicted.answers)
        return metrics, evaluate_v1(examples, dict.fromkeys(predicted.answers, ""))
    reported = list(examples)
    if config.null_threshold is None:
        _, reported = split_by_article(examples)
    metrics = evaluate_v2(reported, predicted.answers)
    whole = evaluate_v2(examples, predicted.answers)
    metrics |= {f"all_{name}": value for name, value in whole.items()}
    best = find_best_thresholds(
        examples, best_answers(predicted.predictions), null_scores(predicted.predictions)
    )
    metrics |= {"best_f1": best[1].percent, "null_threshold": predicted.threshold}
    return metrics, evaluate_v2(reported, dict.fromkeys(predicted.answers, ""))
