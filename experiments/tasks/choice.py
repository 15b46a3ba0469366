"""Multiple choice: RACE."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from albert_jax.config import AlbertConfig, HeadConfig
from albert_jax.durable_files import write_atomically
from albert_jax.tasks.batches import MultipleChoiceBatch
from albert_jax.tasks.models import AlbertForMultipleChoice
from albert_jax.tasks.objectives import multiple_choice_objective
from data_pipeline.errors import InputError
from data_pipeline.finetuning.encoded_examples import EncodedExamples
from data_pipeline.finetuning.encoding import encode_choices
from data_pipeline.finetuning.examples import ChoiceExample
from data_pipeline.finetuning.metrics import class_f1, confusion_matrix
from data_pipeline.finetuning.race import NUM_OPTIONS, group_accuracies, read_race
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.raw_inputs import EncodedInput, PredictionOptions, RawInput, split_rows
from experiments.tasks.task import FinetuningTask, Outputs, RawPrediction, Result, Scores, TaskKind
from experiments.tasks.task_settings import ChoiceConfig

OPTION_LETTERS = ("A", "B", "C", "D")


def _open(
    config: FinetuneConfig, model: AlbertConfig, tokenizer: AlbertTokenizer, **compute: Any
) -> FinetuningTask:
    splits = _read_splits(config)
    labeled = {
        name: examples
        for name, examples in splits.items()
        if name != "train" and all(example.label is not None for example in examples)
    }

    def encode(examples: Sequence[ChoiceExample]) -> EncodedExamples:
        return encode_choices(
            tokenizer,
            examples,
            max_seq_length=config.data.max_seq_length,
            max_qa_length=config.choice.max_qa_length,
        )

    head = HeadConfig(classifier_dropout_prob=config.dropout.classifier)
    network = AlbertForMultipleChoice(model, head, **compute)
    return FinetuningTask(
        train=encode(splits["train"]),
        labeled={name: encode(examples) for name, examples in labeled.items()},
        unlabeled={n: encode(x) for n, x in splits.items() if n not in labeled and n != "train"},
        model=network,
        head=head,
        objective=CHOICE.objective(network),
        to_batch=CHOICE.batch.from_numpy,
        metrics=("accuracy",),
        score=lambda split, outputs: score_choices(labeled[split], outputs),
        write=lambda split, outputs, directory: write_choices(
            split, splits[split], outputs, directory
        ),
    )


def _read_splits(config: FinetuneConfig) -> dict[str, list[ChoiceExample]]:
    """Read RACE; every question of the training and the dev split must have an answer."""
    if not config.data.dir:
        raise InputError("--config.data.dir is missing: the directory that holds RACE/")
    directory = Path(config.data.dir)
    root = directory / "RACE" if (directory / "RACE").is_dir() else directory
    names = ["train", "dev", *(["test"] if (root / "test").exists() else [])]
    splits = {name: read_race(directory, name, config.choice.group) for name in names}
    for name in ("train", "dev"):
        for example in splits[name]:
            if example.label is None:
                raise InputError(f"{root / name}: question {example.id} has no answer")
    return splits


def _predict(outputs: Outputs) -> np.ndarray:
    """Return the number of the most probable option of each question."""
    return np.stack([row["logits"] for row in outputs]).argmax(axis=1).astype(np.int32)


def score_choices(examples: Sequence[ChoiceExample], outputs: Outputs) -> Scores:
    """Compute the accuracy over all questions, and over those of each group of schools."""
    predictions = _predict(outputs)
    constant = [
        group_accuracies(examples, np.full_like(predictions, option))
        for option in range(NUM_OPTIONS)
    ]
    metrics = group_accuracies(examples, predictions)
    labels = np.array([example.label for example in examples], np.int32)
    confusion = confusion_matrix(predictions, labels, NUM_OPTIONS)
    return Scores(
        metrics,
        {name: max(accuracies[name] for accuracies in constant) for name in metrics},
        OPTION_LETTERS,
        confusion,
        class_f1(predictions, labels, NUM_OPTIONS).tolist(),
    )


def write_choices(
    split: str, examples: Sequence[ChoiceExample], outputs: Outputs, directory: Path
) -> list[Path]:
    """Write the letter of each question's predicted option. Example: `{"high1.txt/0": "B"}`."""
    letters = {
        example.id: OPTION_LETTERS[option]
        for example, option in zip(examples, _predict(outputs), strict=True)
    }
    path = directory / f"{split}_predictions.json"
    write_atomically(path, json.dumps(letters, indent=1) + "\n")
    return [path]


def _read_raw(inputs: Sequence[RawInput]) -> list[ChoiceExample]:
    examples = []
    for number, given in enumerate(inputs):
        options = given.fields.get("options")
        if not isinstance(options, list) or not all(isinstance(text, str) for text in options):
            raise InputError(f"{given.source}: options must be a list of texts")
        if len(options) != NUM_OPTIONS:
            raise InputError(
                f"{given.source}: expected {NUM_OPTIONS} options, found {len(options)}"
            )
        context, question = given.text("context"), given.text("question")
        examples.append(ChoiceExample(str(number), context, question, tuple(options), None, ""))
    return examples


def _encode_raw(
    examples: Sequence[ChoiceExample],
    model: Any,
    tokenizer: AlbertTokenizer,
    options: PredictionOptions,
) -> list[EncodedInput]:
    encoded = encode_choices(
        tokenizer,
        examples,
        max_seq_length=model.config.max_position_embeddings,
        max_qa_length=ChoiceConfig().max_qa_length,
    )
    rows = zip(examples, split_rows(encoded), strict=True)
    return [EncodedInput(example, [row]) for example, row in rows]


def _decode(
    encoded: EncodedInput, outputs: Outputs, model: Any, options: PredictionOptions
) -> Result:
    probabilities = softmax(np.asarray(outputs[0]["logits"], np.float64)).tolist()
    return {
        "question": encoded.example.question,
        "options": list(encoded.example.options),
        "choice": OPTION_LETTERS[int(np.argmax(probabilities))],
        "probabilities": dict(zip(OPTION_LETTERS, probabilities, strict=True)),
    }


def _format(result: Result) -> str:
    rows = zip(result["probabilities"].items(), result["options"], strict=True)
    lines = [f"  {probability:7.1%}  {letter}: {text}" for (letter, probability), text in rows]
    return "\n".join([result["question"], *lines])


CHOICE = TaskKind(
    models=(AlbertForMultipleChoice,),
    batch=MultipleChoiceBatch,
    objective=multiple_choice_objective,
    open=_open,
    predictions={"choose": RawPrediction(_read_raw, _encode_raw, _decode, _format)},
)
