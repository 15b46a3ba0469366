"""Extractive question answering: SQuAD 1.1 and 2.0."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from albert_jax.config import AlbertConfig, HeadConfig
from albert_jax.input_files import read_json_object, require_fields
from albert_jax.interop.workdir import split_step
from albert_jax.tasks.batches import SpanBatch
from albert_jax.tasks.models import AlbertForConditionalSpan, AlbertForQuestionAnswering
from albert_jax.tasks.objectives import conditional_span_objective, span_objective
from albert_jax.training.objective import Objective
from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import QuestionExample
from data_pipeline.finetuning.squad.answers import write_squad_predictions
from data_pipeline.finetuning.squad.encoding import EncodedQuestion, encode_questions, join_windows
from data_pipeline.finetuning.squad.reader import read_squad, split_by_article
from data_pipeline.finetuning.squad.split_answers import (
    SplitAnswers,
    has_impossible,
    predict_answers,
    predict_question,
    score_answers,
)
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.run.workdir import REPORT_FILE
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.raw_inputs import EncodedInput, PredictionOptions, RawInput, split_rows
from experiments.tasks.task import (
    FinetuningTask,
    Outputs,
    RawPrediction,
    Result,
    Scores,
    TaskKind,
    required_files,
)
from experiments.tasks.task_settings import SpanConfig, SpanHead

_SPLIT = "dev"
_MAX_SEQ_LENGTH = 384  # of predictions on raw inputs


def _open(
    config: FinetuneConfig, model: AlbertConfig, tokenizer: AlbertTokenizer, **compute: Any
) -> FinetuningTask:
    files = required_files(config.data, "a file of SQuAD's form (.json)")
    train, dev = map(read_squad, files)
    if has_impossible(dev) and config.span.null_threshold is None:
        split_by_article(dev)  # raises if there are too few articles to choose a threshold on

    def encode(examples: Sequence[QuestionExample]) -> list[EncodedQuestion]:
        return _encode_questions(config.span, tokenizer, examples, config.data.max_seq_length)

    questions = encode(dev)
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
    else:
        network = AlbertForQuestionAnswering(model, **compute)

    def predict(outputs: Outputs) -> SplitAnswers:
        return predict_answers(config.span, dev, questions, outputs)

    def write(split: str, outputs: Outputs, directory: Path) -> list[Path]:
        predicted = predict(outputs)
        write_squad_predictions(directory, predicted.answers, predicted.predictions)
        names = ("predictions.json", "nbest_predictions.json", "null_odds.json")
        return [directory / name for name in names]

    return FinetuningTask(
        train=join_windows(encode(train)),
        labeled={_SPLIT: join_windows(questions)},
        unlabeled={},
        model=network,
        head=head,
        objective=SPAN.objective(network),
        to_batch=SPAN.batch.from_numpy,
        metrics=("f1", "exact" if has_impossible(dev) else "exact_match"),
        score=lambda split, outputs: Scores(*score_answers(config.span, dev, predict(outputs))),
        write=write,
    )


def _encode_questions(
    span: SpanConfig,
    tokenizer: AlbertTokenizer,
    examples: Sequence[QuestionExample],
    max_seq_length: int,
) -> list[EncodedQuestion]:
    return encode_questions(
        tokenizer,
        examples,
        max_seq_length=max_seq_length,
        doc_stride=span.doc_stride,
        max_query_length=span.max_query_length,
        max_answer_length=span.max_answer_length,
    )


def _objective(model: AlbertForQuestionAnswering | AlbertForConditionalSpan) -> Objective:
    if isinstance(model, AlbertForConditionalSpan):
        return conditional_span_objective(model)
    return span_objective(model)


def _read_raw(inputs: Sequence[RawInput]) -> list[QuestionExample]:
    return [
        QuestionExample(str(number), given.text("question"), given.text("context"), ())
        for number, given in enumerate(inputs)
    ]


def _encode_raw(
    examples: Sequence[QuestionExample],
    model: Any,
    tokenizer: AlbertTokenizer,
    options: PredictionOptions,
) -> list[EncodedInput]:
    length = min(_MAX_SEQ_LENGTH, model.config.max_position_embeddings)
    questions = _encode_questions(SpanConfig(), tokenizer, examples, length)
    rows = iter(split_rows(join_windows(questions)))
    threshold = options.null_threshold
    if threshold is None:
        threshold = _reported_threshold(options.model)
    return [
        EncodedInput(
            example, list(itertools.islice(rows, len(question.windows))), (question, threshold)
        )
        for example, question in zip(examples, questions, strict=True)
    ]


def _reported_threshold(path: str) -> float | None:
    """Return the null threshold in the report of a workdir, if there is one."""
    root, _ = split_step(epath.Path(path))
    report = root / REPORT_FILE
    if not report.exists():
        return None
    content = read_json_object(report, error=InputError)
    require_fields(content, {"splits": dict}, str(report), error=InputError)
    split: Any = next(iter(content["splits"].values()), None)
    require_fields(split, {"figures": dict}, f"{report}: splits", error=InputError)
    figures = split["figures"]
    if figures.get("null_threshold") is None:
        return None
    kinds = {"null_threshold": float}
    require_fields(figures, kinds, f"{report}: figures", error=InputError)
    return float(figures["null_threshold"])


def _decode(
    encoded: EncodedInput, outputs: Outputs, model: Any, options: PredictionOptions
) -> Result:
    example, (question, threshold) = encoded.example, encoded.layout
    predicted = predict_question(SpanConfig(), example, question, outputs)
    candidates = [candidate._asdict() for candidate in predicted.candidates[: options.top_k]]
    impossible = threshold is not None and (predicted.null_score or 0) > threshold
    return {
        "question": example.question,
        "context": example.context,
        "answer": "" if impossible else candidates[0]["text"],
        "candidates": candidates,
        "null_score": predicted.null_score,
    }


def _format(result: Result) -> str:
    lines = [result["question"]]
    if not result["answer"]:
        lines.append("  no answer; the best candidates are")
    for found in result["candidates"]:
        place = f"{found['start']}:{found['end']}"
        lines.append(f"  {found['probability']:7.1%}  {found['text']}  ({place})")
    return "\n".join(lines)


SPAN = TaskKind(
    models=(AlbertForQuestionAnswering, AlbertForConditionalSpan),
    batch=SpanBatch,
    objective=_objective,
    open=_open,
    predictions={"answer": RawPrediction(_read_raw, _encode_raw, _decode, _format)},
)
