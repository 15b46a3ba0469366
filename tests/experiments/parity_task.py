"""A fine-tuning task in one file: is the number of words even or odd?"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config import AlbertConfig, HeadConfig
from albert_jax.tasks.batches import ClassificationBatch
from albert_jax.tasks.models import AlbertForSequenceClassification
from albert_jax.tasks.objectives import classification_objective
from data_pipeline.finetuning.encoded_examples import EncodedExamples
from data_pipeline.finetuning.encoding import encode_texts
from data_pipeline.finetuning.examples import TextExample
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

LABELS = ("even", "odd")


def _open(
    config: FinetuneConfig, model: AlbertConfig, tokenizer: AlbertTokenizer, **compute: Any
) -> FinetuningTask:
    train, dev = map(_read_file, required_files(config.data, "a .jsonl"))
    head = HeadConfig(LABELS)
    network = AlbertForSequenceClassification(model, head, **compute)

    def score(split: str, outputs: Outputs) -> Scores:
        pairs = zip(outputs, dev, strict=True)
        hits = [(_margin(row) > 0) == bool(example.label) for row, example in pairs]
        return Scores({"accuracy": float(np.mean(hits))}, {})

    def write(split: str, outputs: Outputs, directory: Path) -> list[Path]:
        path = directory / f"{split}.txt"
        path.write_text("".join(f"{_margin(row):.6f}\n" for row in outputs))
        return [path]

    return FinetuningTask(
        train=_encode(tokenizer, train),
        labeled={"dev": _encode(tokenizer, dev)},
        unlabeled={},
        model=network,
        head=head,
        objective=PARITY.objective(network),
        to_batch=PARITY.batch.from_numpy,
        metrics=("accuracy",),
        score=score,
        write=write,
    )


def _margin(row: Mapping[str, np.ndarray]) -> float:
    return float(row["logits"][1] - row["logits"][0])


def _read_file(path: Path) -> list[TextExample]:
    records = map(json.loads, path.read_text().splitlines())
    return [TextExample(r["id"], r["words"], None, LABELS.index(r["parity"])) for r in records]


def _encode(tokenizer: AlbertTokenizer, examples: Sequence[TextExample]) -> EncodedExamples:
    return encode_texts(tokenizer, examples, max_seq_length=16, regression=False)


def _read_raw(inputs: Sequence[RawInput]) -> list[TextExample]:
    return [TextExample(given.source, given.text(), None, None) for given in inputs]


def _encode_raw(
    examples: Sequence[TextExample],
    model: Any,
    tokenizer: AlbertTokenizer,
    options: PredictionOptions,
) -> list[EncodedInput]:
    rows = split_rows(_encode(tokenizer, examples))
    return [EncodedInput(example, [row]) for example, row in zip(examples, rows, strict=True)]


def _decode(
    encoded: EncodedInput, outputs: Outputs, model: Any, options: PredictionOptions
) -> Result:
    margin = _margin(outputs[0])
    parity = model.head.labels[int(margin > 0)]
    return {"text": encoded.example.text_a, "parity": parity, "margin": margin}


PARITY = TaskKind(
    models=(AlbertForSequenceClassification,),
    batch=ClassificationBatch,
    objective=classification_objective,
    open=_open,
    predictions={
        "parity": RawPrediction(
            _read_raw, _encode_raw, _decode, lambda result: f"{result['text']}: {result['parity']}"
        )
    },
)
