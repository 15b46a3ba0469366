"""Questions answered by a span of a text, or not at all: SQuAD 1.1 and 2.0."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from albert_jax.config import AlbertConfig, HeadConfig
from albert_jax.tasks.batches import SpanBatch
from albert_jax.tasks.models import AlbertForConditionalSpan, AlbertForQuestionAnswering
from albert_jax.tasks.objectives import conditional_span_objective, span_objective
from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import QuestionExample
from data_pipeline.finetuning.squad.answers import (
    QuestionPrediction,
    best_answers,
    null_scores,
    predict_answer,
    write_squad_predictions,
)
from data_pipeline.finetuning.squad.encoding import EncodedQuestion, encode_questions, join_windows
from data_pipeline.finetuning.squad.metrics import (
    apply_threshold,
    evaluate_v1,
    evaluate_v2,
    find_best_thresholds,
)
from data_pipeline.finetuning.squad.reader import read_squad, split_by_article
from data_pipeline.finetuning.squad.spans import (
    BeamOutputs,
    find_beam_null_score,
    find_beam_spans,
    find_null_score,
    find_spans,
)
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.tasks.config import FinetuneConfig, SpanConfig, SpanHead
from experiments.tasks.task import FinetuningTask, Outputs, Scores

_SPLIT = "dev"


class Answered(NamedTuple):
    """What is answered to the questions of a split.

    Attributes:
        predictions: of each question.
        answers: id -> text, empty where the question is held to be impossible.
        threshold: what null scores were compared with; None where every question has an answer.
    """

    predictions: list[QuestionPrediction]
    answers: dict[str, str]
    threshold: float | None


def open_span_task(
    config: FinetuneConfig, model: AlbertConfig, tokenizer: AlbertTokenizer, **compute: Any
) -> FinetuningTask:
    """Reads and encodes the questions of a run; arguments as in `text_task.open_text_task`.

    Raises:
        InputError: a file is missing or malformed, or there is nothing to choose a null threshold
            on.
    """
    for name in ("train_file", "dev_file"):
        if getattr(config.data, name) is None:
            raise InputError(f"--config.data.{name} is missing: a file of SQuAD's form (.json)")
    train, dev = (read_squad(Path(f or "")) for f in (config.data.train_file, config.data.dev_file))
    if _may_be_impossible(dev) and config.span.null_threshold is None:
        split_by_article(dev)  # that there are articles to choose on

    def encode(examples: Sequence[QuestionExample]) -> list[EncodedQuestion]:
        span = config.span
        return encode_questions(
            tokenizer,
            examples,
            max_seq_length=config.data.max_seq_length,
            doc_stride=span.doc_stride,
            max_query_length=span.max_query_length,
            max_answer_length=span.max_answer_length,
        )

    head = HeadConfig(classifier_dropout_prob=config.dropout.classifier)
    network: AlbertForQuestionAnswering | AlbertForConditionalSpan
    if config.span.head is SpanHead.CONDITIONAL:
        network = AlbertForConditionalSpan(
            model,
            head,
            start_n_top=config.span.start_n_top,
            end_n_top=config.span.end_n_top,
            **compute,
        )
        objective = conditional_span_objective(network)
    else:
        network = AlbertForQuestionAnswering(model, **compute)
        objective = span_objective(network)
    questions = encode(dev)

    def answer(outputs: Outputs) -> Answered:
        return answer_questions(config.span, dev, questions, outputs)

    def write(split: str, outputs: Outputs, directory: Path) -> list[Path]:
        answered = answer(outputs)
        write_squad_predictions(directory, answered.answers, answered.predictions)
        names = ("predictions.json", "nbest_predictions.json", "null_odds.json")
        return [directory / name for name in names]

    return FinetuningTask(
        train=join_windows(encode(train)),
        labeled={_SPLIT: join_windows(questions)},
        unlabeled={},
        model=network,
        head=head,
        objective=objective,
        to_batch=SpanBatch.from_numpy,
        metrics=("f1", "exact" if _may_be_impossible(dev) else "exact_match"),
        score=lambda split, outputs: score_answers(config.span, dev, answer(outputs)),
        write=write,
    )


def _may_be_impossible(examples: Sequence[QuestionExample]) -> bool:
    """Whether a file is one of version 2.0."""
    return any(example.is_impossible for example in examples)


def answer_questions(
    config: SpanConfig,
    examples: Sequence[QuestionExample],
    questions: Sequence[EncodedQuestion],
    outputs: Outputs,
) -> Answered:
    """Spans of the contexts, and where some questions are impossible, which of them are.

    Args:
        config: how spans are searched.
        examples: the questions.
        questions: their windows.
        outputs: of all windows one after the other.
    """
    rows = iter(outputs)
    predictions = [
        predict_question(
            config, example, question, list(itertools.islice(rows, len(question.windows)))
        )
        for example, question in zip(examples, questions, strict=True)
    ]
    answers, threshold = best_answers(predictions), None
    if _may_be_impossible(examples):
        nulls, threshold = null_scores(predictions), config.null_threshold
        if threshold is None:
            chosen_on, _ = split_by_article(examples)
            threshold = find_best_thresholds(chosen_on, answers, nulls)[1].threshold
        answers = apply_threshold(answers, nulls, threshold)
    return Answered(predictions, answers, threshold)


def predict_question(
    config: SpanConfig, example: QuestionExample, question: EncodedQuestion, outputs: Outputs
) -> QuestionPrediction:
    """The best spans of a question, and how much speaks for there being no answer.

    Args:
        config: how spans are searched.
        example: the question.
        question: its windows.
        outputs: of each window, those of either head.
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
    config: SpanConfig, examples: Sequence[QuestionExample], answered: Answered
) -> Scores:
    """The official figures, in per cent.

    Where some questions are impossible and the threshold was chosen on half of the articles, the
    figures are those of the other half. Under `all_` are those of all questions, under `best_f1`
    what the best threshold for all of them would give.

    Args:
        config: whether a threshold was given.
        examples: the questions.
        answered: what was answered.
    """
    if answered.threshold is None:
        figures = evaluate_v1(examples, answered.answers)
        return Scores(figures, evaluate_v1(examples, dict.fromkeys(answered.answers, "")))
    reported = list(examples)
    if config.null_threshold is None:
        _, reported = split_by_article(examples)
    figures = evaluate_v2(reported, answered.answers)
    whole = evaluate_v2(examples, answered.answers)
    figures |= {f"all_{name}": value for name, value in whole.items()}
    best = find_best_thresholds(
        examples, best_answers(answered.predictions), null_scores(answered.predictions)
    )
    figures |= {"best_f1": best[1].percent, "null_threshold": answered.threshold}
    return Scores(figures, evaluate_v2(reported, dict.fromkeys(answered.answers, "")))
