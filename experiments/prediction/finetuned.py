"""What can be asked of a fine-tuned model: classes, scores, tags, answers, choices."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from jax import Array
from jaxtyping import Float, Int, PyTree

from albert_jax import (
    AlbertForConditionalSpan,
    AlbertForMultipleChoice,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
)
from albert_jax.config import ProblemType
from albert_jax.interop.workdir import split_step
from albert_jax.pretrained import open_weights
from albert_jax.tasks.objectives import BEAM_OUTPUTS
from data_pipeline.errors import InputError
from data_pipeline.finetuning.encoded_examples import EncodedExamples
from data_pipeline.finetuning.encoding import encode_choices, encode_words
from data_pipeline.finetuning.examples import ChoiceExample, QuestionExample, TaggedExample
from data_pipeline.finetuning.race import NUM_OPTIONS
from data_pipeline.finetuning.squad.encoding import encode_questions, join_windows
from experiments.prediction.inference import EncodedRow, put_in_order
from experiments.prediction.inputs import RawInput
from experiments.prediction.task import (
    LoadedModel,
    NumberedResults,
    PredictionOptions,
    PredictionTask,
    Result,
    load_model,
)
from experiments.run.workdir import REPORT_FILE
from experiments.tasks.choice import OPTION_LETTERS
from experiments.tasks.config import ChoiceConfig, SpanConfig
from experiments.tasks.span import predict_question
from experiments.tasks.tagging import read_tags
from experiments.tasks.text import softmax


def _rows(encoded: EncodedExamples) -> list[EncodedRow]:
    """What the model is given of each example; where answers may be is 1, as padding is 0."""
    rows: list[EncodedRow] = []
    for number, length in enumerate(encoded.lengths.tolist()):
        batch = encoded.take(np.array([number]), length=length, batch_size=1)
        row = {name: batch[name][0] for name in ("input_ids", "attention_mask", "token_type_ids")}
        if "p_mask" in batch:
            row["allowed"] = 1 - batch["p_mask"][0]
        rows.append(row)
    return rows


def _logits(model: Any, params: PyTree, batch: dict[str, Any]) -> Float[Array, "rows ..."]:
    return model.apply({"params": params}, **batch).logits


def classify(examples: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    """The likeliest label of a text or a pair, and the probability of each.

    Raises:
        InputError: the model gives scores, not labels.
    """
    loaded, texts, rows = _load_classifier(examples, options)
    head = loaded.model.head
    if head.problem_type is ProblemType.REGRESSION:
        raise InputError(f"--model={options.model} gives a score: use --task=score")
    several = head.problem_type is ProblemType.MULTI_LABEL
    for number, logits in loaded.infer(_logits, rows):
        logits = np.asarray(logits, np.float64)
        shares = 1 / (1 + np.exp(-logits)) if several else softmax(logits)
        probabilities = dict(zip(head.labels, shares.tolist(), strict=True))
        label: Any = head.labels[int(logits.argmax())]
        if several:
            label = [name for name, share in probabilities.items() if share > 0.5]
        yield number, {**texts[number], "label": label, "probabilities": probabilities}


def score(examples: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    """The score of a text or a pair.

    Raises:
        InputError: the model gives labels, not scores.
    """
    loaded, texts, rows = _load_classifier(examples, options)
    if loaded.model.head.problem_type is not ProblemType.REGRESSION:
        raise InputError(f"--model={options.model} gives labels: use --task=classify")
    for number, logits in loaded.infer(_logits, rows):
        yield number, {**texts[number], "score": float(logits[0])}


def _load_classifier(
    examples: Sequence[RawInput], options: PredictionOptions
) -> tuple[LoadedModel, list[dict[str, str]], list[EncodedRow]]:
    paired = any("text_pair" in example.fields for example in examples)
    fields = ("text", "text_pair") if paired else ("text",)
    texts = [{field: example.text(field) for field in fields} for example in examples]
    loaded = load_model(AlbertForSequenceClassification, options)
    return loaded, texts, loaded.encode(examples, fields=fields, truncate=options.truncate)


def tag(examples: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    """The tag of each word of a text; white space parts words, as in files for training."""
    texts = [example.text() for example in examples]
    loaded = load_model(AlbertForTokenClassification, options)
    words = [TaggedExample(tuple(text.split()), None) for text in texts]
    labels, length = loaded.model.head.labels, loaded.model.config.max_position_embeddings
    encoded, laid_out = encode_words(loaded.tokenizer, words, labels, max_seq_length=length)
    rows = put_in_order(loaded.infer(_tags, _rows(encoded)), len(encoded.lengths))
    told = read_tags(labels, laid_out, [{"tags": row} for row in rows])
    for number, (example, tags) in enumerate(zip(words, told, strict=True)):
        pairs = [list(pair) for pair in zip(example.words, tags, strict=True)]
        yield number, {"text": texts[number], "tags": pairs}


def _tags(model: Any, params: PyTree, batch: dict[str, Any]) -> Int[Array, "rows length"]:
    return _logits(model, params, batch).argmax(-1)


def answer(examples: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    """The span of a context that answers a question, or none where the model knows of that."""
    questions = [
        QuestionExample(str(number), example.text("question"), example.text("context"), ())
        for number, example in enumerate(examples)
    ]
    conditional = open_weights(options.model).architecture == AlbertForConditionalSpan.__name__
    loaded = load_model(
        AlbertForConditionalSpan if conditional else AlbertForQuestionAnswering, options
    )
    span = SpanConfig()
    encoded = encode_questions(
        loaded.tokenizer,
        questions,
        max_seq_length=min(384, loaded.model.config.max_position_embeddings),
        doc_stride=span.doc_stride,
        max_query_length=span.max_query_length,
        max_answer_length=span.max_answer_length,
    )
    windows = join_windows(encoded)
    function = _beams if conditional else _ends
    outputs = iter(put_in_order(loaded.infer(function, _rows(windows)), len(windows.lengths)))
    threshold = options.null_threshold
    if threshold is None:
        threshold = _reported_threshold(options.model)
    for number, (example, question) in enumerate(zip(questions, encoded, strict=True)):
        told = predict_question(
            span, example, question, list(itertools.islice(outputs, len(question.windows)))
        )
        candidates = [candidate._asdict() for candidate in told.candidates[: options.top_k]]
        unanswered = threshold is not None and (told.null_score or 0) > threshold
        yield (
            number,
            {
                "question": example.question,
                "context": example.context,
                "answer": "" if unanswered else candidates[0]["text"],
                "candidates": candidates,
                "null_score": told.null_score,
            },
        )


def _ends(model: Any, params: PyTree, batch: dict[str, Any]) -> dict[str, Array]:
    inputs = {name: array for name, array in batch.items() if name != "allowed"}
    outputs = model.apply({"params": params}, **inputs)
    return {"start_logits": outputs.start_logits, "end_logits": outputs.end_logits}


def _beams(model: Any, params: PyTree, batch: dict[str, Any]) -> dict[str, Array]:
    inputs = {name: array for name, array in batch.items() if name != "allowed"}
    outputs = model.apply({"params": params}, **inputs, p_mask=1 - batch["allowed"])
    return {name: getattr(outputs, name) for name in BEAM_OUTPUTS}


def _reported_threshold(path: str) -> float | None:
    """The null threshold that a workdir's report says its figures were found with."""
    root, _ = split_step(epath.Path(path))
    report = root / REPORT_FILE
    if not report.exists():
        return None
    splits = json.loads(report.read_text())["splits"]
    return next(iter(splits.values()))["figures"].get("null_threshold")


def choose(examples: Sequence[RawInput], options: PredictionOptions) -> NumberedResults:
    """Which of four options answers a question about a context."""
    questions = []
    for number, example in enumerate(examples):
        given = example.fields.get("options")
        if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
            raise InputError(f"{example.source}: options must be a list of texts")
        if len(given) != NUM_OPTIONS:
            raise InputError(
                f"{example.source}: expected {NUM_OPTIONS} options, found {len(given)}"
            )
        context, question = example.text("context"), example.text("question")
        questions.append(ChoiceExample(str(number), context, question, tuple(given), None, ""))
    loaded = load_model(AlbertForMultipleChoice, options)
    encoded = encode_choices(
        loaded.tokenizer,
        questions,
        max_seq_length=loaded.model.config.max_position_embeddings,
        max_qa_length=ChoiceConfig().max_qa_length,
    )
    for number, logits in loaded.infer(_logits, _rows(encoded)):
        asked = questions[number]
        shares = softmax(np.asarray(logits, np.float64)).tolist()
        best = int(np.argmax(shares))
        yield (
            number,
            {
                "question": asked.question,
                "options": list(asked.options),
                "choice": OPTION_LETTERS[best],
                "probabilities": dict(zip(OPTION_LETTERS, shares, strict=True)),
            },
        )


def _format_label(result: Result) -> str:
    said = "\n".join([result["text"], *filter(None, [result.get("text_pair")])])
    ranked = sorted(result["probabilities"].items(), key=lambda item: -item[1])
    return "\n".join([said, *(f"  {share:7.1%}  {name}" for name, share in ranked)])


def _format_score(result: Result) -> str:
    said = "\n".join([result["text"], *filter(None, [result.get("text_pair")])])
    return f"{said}\n  {result['score']:.3f}"


def _format_tags(result: Result) -> str:
    return "\n".join(f"{tag:<12}{word}" for word, tag in result["tags"]) + "\n"


def _format_answer(result: Result) -> str:
    lines = [result["question"]]
    if not result["answer"]:
        lines.append("  there is no answer; else it would be")
    for found in result["candidates"]:
        place = f"{found['start']}:{found['end']}"
        lines.append(f"  {found['probability']:7.1%}  {found['text']}  ({place})")
    return "\n".join(lines)


def _format_choice(result: Result) -> str:
    rows = zip(result["probabilities"].items(), result["options"], strict=True)
    lines = [f"  {share:7.1%}  {letter}: {text}" for (letter, share), text in rows]
    return "\n".join([result["question"], *lines])


FINETUNED_TASKS: dict[str, PredictionTask] = {
    "classify": PredictionTask(classify, _format_label),
    "score": PredictionTask(score, _format_score),
    "tag": PredictionTask(tag, _format_tags),
    "answer": PredictionTask(answer, _format_answer),
    "choose": PredictionTask(choose, _format_choice),
}
