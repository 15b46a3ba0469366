"""Tagging of words: entities and parts of speech, in CoNLL's columns."""

import itertools
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
from data_pipeline.finetuning.encoded_examples import EncodedExamples
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


def _open(
    config: FinetuneConfig, model: AlbertConfig, tokenizer: AlbertTokenizer, **compute: Any
) -> FinetuningTask:
    data = config.data
    train_file, dev_file = required_files(data, "a file in CoNLL's columns")
    train = read_conll(train_file)
    tags = discover_tags(train)
    if len(tags) < 2:
        raise InputError(f"{train_file} must have at least two tags, found {', '.join(tags)}")
    splits = {"dev": read_conll(dev_file, tags)}
    if data.test_file:
        splits["test"] = read_conll(Path(data.test_file), tags)

    def encode(
        examples: Sequence[TaggedExample],
    ) -> tuple[EncodedExamples, list[list[TaggedRow]]]:
        return encode_words(tokenizer, examples, tags, max_seq_length=data.max_seq_length)

    encoded = {name: encode(examples) for name, examples in splits.items()}

    def decode(split: str, outputs: Outputs) -> list[list[str]]:
        return decode_tags(tags, encoded[split][1], outputs)

    head = HeadConfig(labels=tags, classifier_dropout_prob=config.dropout.classifier)
    network = AlbertForTokenClassification(model, head, **compute)
    return FinetuningTask(
        train=encode(train)[0],
        labeled={name: rows for name, (rows, _) in encoded.items()},
        unlabeled={},
        model=network,
        head=head,
        objective=TAGGING.objective(network),
        to_batch=TAGGING.batch.from_numpy,
        metrics=("f1", "accuracy") if marks_entities(tags) else ("accuracy",),
        score=lambda split, outputs: score_tags(splits[split], decode(split, outputs), tags),
        write=lambda split, outputs, directory: write_tags(
            split, splits[split], decode(split, outputs), directory
        ),
    )


def decode_tags(
    tags: Sequence[str], sentences: Sequence[Sequence[TaggedRow]], outputs: Outputs
) -> list[list[str]]:
    """Return the predicted tag of each word of each sentence.

    Args:
        tags: the tags, in the order of their numbers.
        sentences: the rows of each sentence.
        outputs: the model's outputs for all rows, in order.
    """
    rows = iter(outputs)
    return [
        [tags[number] for row in sentence for number in next(rows)["tags"][row.word_positions]]
        for sentence in sentences
    ]


def score_tags(
    examples: Sequence[TaggedExample], predictions: Sequence[Sequence[str]], tags: Sequence[str]
) -> Scores:
    """Compute the accuracy over words and, for tags that mark entities, conlleval's metrics."""
    labels = [example.tags or () for example in examples]
    pairs = [
        pair
        for predicted, gold in zip(predictions, labels, strict=True)
        for pair in zip(predicted, gold, strict=True)
    ]
    accuracy = sum(predicted == gold for predicted, gold in pairs) / len(pairs)
    most_frequent = Counter(gold for _, gold in pairs).most_common(1)[0][1] / len(pairs)
    if not marks_entities(tags):
        return Scores({"accuracy": accuracy}, {"accuracy": most_frequent})
    whole, by_kind = score_entities(predictions, labels)
    constant = [score_entities([[tag] * len(gold) for gold in labels], labels) for tag in tags]
    metrics = {
        "f1": whole.f1,
        "precision": whole.precision,
        "recall": whole.recall,
        "accuracy": accuracy,
    }
    baseline = {"f1": max(scores.f1 for scores, _ in constant), "accuracy": most_frequent}
    return Scores(
        metrics, baseline, list(by_kind), class_scores=[scores.f1 for scores in by_kind.values()]
    )


def write_tags(
    split: str,
    examples: Sequence[TaggedExample],
    predictions: Sequence[Sequence[str]],
    directory: Path,
) -> list[Path]:
    """Write words, gold tags and predicted tags in the columns that conlleval reads."""
    lines = []
    for example, predicted in zip(examples, predictions, strict=True):
        columns = zip(example.words, example.tags or (), predicted, strict=True)
        lines += [" ".join(cells) for cells in columns]
        lines.append("")
    path = directory / f"{split}_predictions.txt"
    write_atomically(path, "\n".join(lines))
    return [path]


def _read_raw(inputs: Sequence[RawInput]) -> list[tuple[str, TaggedExample]]:
    """Return each text with its words, which white space separates as in training files."""
    texts = [given.text() for given in inputs]
    return [(text, TaggedExample(tuple(text.split()), None)) for text in texts]


def _encode_raw(
    examples: Sequence[tuple[str, TaggedExample]],
    model: Any,
    tokenizer: AlbertTokenizer,
    options: PredictionOptions,
) -> list[EncodedInput]:
    encoded, sentences = encode_words(
        tokenizer,
        [words for _, words in examples],
        model.head.labels,
        max_seq_length=model.config.max_position_embeddings,
    )
    rows = iter(split_rows(encoded))
    return [
        EncodedInput(example, list(itertools.islice(rows, len(sentence))), sentence)
        for example, sentence in zip(examples, sentences, strict=True)
    ]


def _decode(
    encoded: EncodedInput, outputs: Outputs, model: Any, options: PredictionOptions
) -> Result:
    text, example = encoded.example
    (tags,) = decode_tags(model.head.labels, [encoded.layout], outputs)
    return {"text": text, "tags": [list(pair) for pair in zip(example.words, tags, strict=True)]}


def _format(result: Result) -> str:
    return "\n".join(f"{tag:<12}{word}" for word, tag in result["tags"]) + "\n"


TAGGING = TaskKind(
    models=(AlbertForTokenClassification,),
    batch=TaggingBatch,
    objective=tagging_objective,
    open=_open,
    predictions={"tag": RawPrediction(_read_raw, _encode_raw, _decode, _format)},
)
