"""Words with a tag each: entities, parts of speech, in the columns of CoNLL files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_jax.config import AlbertConfig, HeadConfig
from albert_jax.durable_files import write_atomically
from albert_jax.tasks.batches import TaggingBatch
from albert_jax.tasks.models import AlbertForTokenClassification
from albert_jax.tasks.objectives import tagging_objective
from data_pipeline.errors import InputError
from data_pipeline.finetuning.encoding import encode_words
from data_pipeline.finetuning.examples import TaggedExample
from data_pipeline.finetuning.tagging import (
    TaggedRow,
    discover_tags,
    marks_entities,
    read_conll,
    score_entities,
)
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.task import FinetuningTask, Outputs, Scores


def open_tagging_task(
    config: FinetuneConfig, model: AlbertConfig, tokenizer: AlbertTokenizer, **compute: Any
) -> FinetuningTask:
    """Reads and encodes the sentences of a run; arguments as in `text_task.open_text_task`.

    Raises:
        InputError: a file is missing or malformed, or has tags that the training file has not.
    """
    data = config.data
    for name in ("train_file", "dev_file"):
        if getattr(data, name) is None:
            raise InputError(f"--config.data.{name} is missing: a file in CoNLL's columns")
    train = read_conll(Path(data.train_file or ""))
    tags = discover_tags(train)
    if len(tags) < 2:
        raise InputError(f"{data.train_file} must have at least two tags, found {', '.join(tags)}")
    files = {"dev": data.dev_file, "test": data.test_file}
    splits = {name: read_conll(Path(file), tags) for name, file in files.items() if file}

    def encode(examples: Sequence[TaggedExample]) -> Any:
        return encode_words(tokenizer, examples, tags, max_seq_length=data.max_seq_length)

    encoded = {name: encode(examples) for name, examples in splits.items()}

    def tag(split: str, outputs: Outputs) -> list[list[str]]:
        return read_tags(tags, encoded[split][1], outputs)

    head = HeadConfig(labels=tags, classifier_dropout_prob=config.dropout.classifier)
    network = AlbertForTokenClassification(model, head, **compute)
    return FinetuningTask(
        train=encode(train)[0],
        labeled={name: rows for name, (rows, _) in encoded.items()},
        unlabeled={},
        model=network,
        head=head,
        objective=tagging_objective(network),
        to_batch=TaggingBatch.from_numpy,
        metrics=("f1", "accuracy") if marks_entities(tags) else ("accuracy",),
        score=lambda split, outputs: score_tags(splits[split], tag(split, outputs), tags),
        write=lambda split, outputs, directory: write_tags(
            split, splits[split], tag(split, outputs), directory
        ),
    )


def read_tags(
    tags: Sequence[str], laid_out: Sequence[Sequence[TaggedRow]], outputs: Outputs
) -> list[list[str]]:
    """The tag of each word of each sentence.

    Args:
        tags: in the order of their numbers.
        laid_out: the rows of each sentence.
        outputs: of all rows one after the other.
    """
    rows = iter(outputs)
    return [
        [tags[number] for row in sentence for number in next(rows)["tags"][row.word_positions]]
        for sentence in laid_out
    ]


def score_tags(
    examples: Sequence[TaggedExample], predictions: Sequence[Sequence[str]], tags: Sequence[str]
) -> Scores:
    """The share of right words and, of tags that mark entities, these as conlleval counts them."""
    labels = [example.tags or () for example in examples]
    pairs = [
        pair
        for told, right in zip(predictions, labels, strict=True)
        for pair in zip(told, right, strict=True)
    ]
    accuracy = sum(told == right for told, right in pairs) / len(pairs)
    most_frequent = Counter(right for _, right in pairs).most_common(1)[0][1] / len(pairs)
    if not marks_entities(tags):
        return Scores({"accuracy": accuracy}, {"accuracy": most_frequent})
    whole, kinds = score_entities(predictions, labels)
    guesses = [score_entities([[tag] * len(right) for right in labels], labels) for tag in tags]
    figures = {
        "f1": whole.f1,
        "precision": whole.precision,
        "recall": whole.recall,
        "accuracy": accuracy,
    }
    baseline = {"f1": max(guess.f1 for guess, _ in guesses), "accuracy": most_frequent}
    scores = [found.f1 for found in kinds.values()]
    return Scores(figures, baseline, list(kinds), None, scores)


def write_tags(
    split: str,
    examples: Sequence[TaggedExample],
    predictions: Sequence[Sequence[str]],
    directory: Path,
) -> list[Path]:
    """Writes words, right tags and told tags, as conlleval reads them."""
    lines = []
    for example, told in zip(examples, predictions, strict=True):
        columns = zip(example.words, example.tags or (), told, strict=True)
        lines += [" ".join(cells) for cells in columns]
        lines.append("")
    path = directory / f"{split}_predictions.txt"
    write_atomically(path, "\n".join(lines))
    return [path]
