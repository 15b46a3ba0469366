"""Questions with four options: RACE."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config import AlbertConfig, HeadConfig
from albert_jax.durable_files import write_atomically
from albert_jax.tasks.batches import MultipleChoiceBatch
from albert_jax.tasks.models import AlbertForMultipleChoice
from albert_jax.tasks.objectives import multiple_choice_objective
from data_pipeline.errors import InputError
from data_pipeline.finetuning.encoded_examples import EncodedExamples
from data_pipeline.finetuning.encoding import encode_choices
from data_pipeline.finetuning.examples import ChoiceExample
from data_pipeline.finetuning.metrics import class_scores, confusion_matrix
from data_pipeline.finetuning.race import NUM_OPTIONS, group_accuracies, read_race
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.task import FinetuningTask, Outputs, Scores

OPTION_LETTERS = ("A", "B", "C", "D")


def open_choice_task(
    config: FinetuneConfig, model: AlbertConfig, tokenizer: AlbertTokenizer, **compute: Any
) -> FinetuningTask:
    """Reads and encodes the questions of a run; arguments as in `text_task.open_text_task`.

    Raises:
        InputError: a file is missing or malformed, or a question of the training or the dev split
            has no answer.
    """
    if not config.data.dir:
        raise InputError("--config.data.dir is missing: the directory that holds RACE/")
    directory, group = Path(config.data.dir), config.choice.group
    root = directory / "RACE" if (directory / "RACE").is_dir() else directory
    names = ["train", "dev", *(["test"] if (root / "test").exists() else [])]
    splits = {name: read_race(directory, name, group) for name in names}
    for name in ("train", "dev"):
        for example in splits[name]:
            if example.label is None:
                raise InputError(f"{root / name}: question {example.id} has no answer")
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
        objective=multiple_choice_objective(network),
        to_batch=MultipleChoiceBatch.from_numpy,
        metrics=("accuracy",),
        score=lambda split, outputs: score_choices(labeled[split], outputs),
        write=lambda split, outputs, directory: write_choices(
            split, splits[split], outputs, directory
        ),
    )


def _decide(outputs: Outputs) -> np.ndarray:
    """The number of the likeliest option of each question."""
    return np.stack([row["logits"] for row in outputs]).argmax(axis=1).astype(np.int32)


def score_choices(examples: Sequence[ChoiceExample], outputs: Outputs) -> Scores:
    """The share of right options, in all questions and in those of each school."""
    predictions = _decide(outputs)
    guesses = [
        group_accuracies(examples, np.full_like(predictions, option))
        for option in range(NUM_OPTIONS)
    ]
    figures = group_accuracies(examples, predictions)
    labels = np.array([example.label for example in examples], np.int32)
    confusion = confusion_matrix(predictions, labels, NUM_OPTIONS)
    return Scores(
        figures,
        {name: max(guess[name] for guess in guesses) for name in figures},
        OPTION_LETTERS,
        confusion,
        class_scores(confusion).f1.tolist(),
    )


def write_choices(
    split: str, examples: Sequence[ChoiceExample], outputs: Outputs, directory: Path
) -> list[Path]:
    """Writes the letter of the option chosen for each question. Example: `{"high1.txt/0": "B"}`."""
    letters = {
        example.id: OPTION_LETTERS[option]
        for example, option in zip(examples, _decide(outputs), strict=True)
    }
    path = directory / f"{split}_predictions.json"
    write_atomically(path, json.dumps(letters, indent=1) + "\n")
    return [path]
