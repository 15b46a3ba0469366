"""Embeddings: vectors of texts, close to each other if the texts are alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_jax.config import AlbertConfig
from albert_jax.tasks.batches import EmbeddingBatch
from albert_jax.tasks.contrastive import contrastive_objective, ranking_objective
from albert_jax.tasks.embedding import AlbertForEmbedding
from albert_jax.tasks.embedding_files import VectorForm, embedding_files
from data_pipeline.errors import InputError
from data_pipeline.finetuning.encoded_examples import EncodedExamples
from data_pipeline.finetuning.metrics import compute_metrics, constant_baseline
from data_pipeline.finetuning.similarity.encoding import encode_similar
from data_pipeline.finetuning.similarity.examples import (
    STSB_COLUMNS,
    PairColumns,
    PairFormat,
    SimilarityExample,
    read_pairs,
)
from data_pipeline.finetuning.similarity.nli import read_inferences
from data_pipeline.finetuning.similarity.retrieval import rank_positives, retrieval_metrics
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.task import FinetuningTask, Outputs, Scores, TaskKind, required_files

_CORRELATIONS = ("spearman", "pearson")
_RETRIEVAL = ("mrr", "retrieval_accuracy")


class _Split(NamedTuple):
    examples: Sequence[SimilarityExample]
    notes: tuple[str, ...] = ()

    @property
    def scored(self) -> bool:
        return self.examples[0].score is not None


def _open(
    config: FinetuneConfig, model: AlbertConfig, tokenizer: AlbertTokenizer, **compute: Any
) -> FinetuningTask:
    settings = config.embedding
    splits = _read_splits(config, model)
    train = splits.pop("train")
    network = AlbertForEmbedding(model, settings.pooling, **compute)

    def encode(split: _Split, *, with_negatives: bool = True) -> EncodedExamples:
        length = config.data.max_seq_length
        return encode_similar(
            tokenizer, split.examples, max_seq_length=length, with_negatives=with_negatives
        )

    labeled = {name: encode(split, with_negatives=False) for name, split in splits.items()}

    def score(split: str, outputs: Outputs) -> Scores:
        vectors = np.stack([row["embeddings"] for row in outputs]).astype(np.float64)
        if splits[split].scored:
            return score_pairs(vectors, [one.score or 0.0 for one in splits[split].examples])
        ids = labeled[split].values["text_ids"]
        ranks = rank_positives(vectors[:, 0], vectors[:, 1], ids, settings.candidates)
        among = min(settings.candidates, len(ids))
        note = f"the positive of an anchor is sought among {among} of {split}"
        return Scores(retrieval_metrics(ranks), {}, notes=[note])

    make_objective = ranking_objective if train.scored else contrastive_objective
    return FinetuningTask(
        train=encode(train),
        labeled=labeled,
        unlabeled={},
        model=network,
        head=None,
        objective=make_objective(network, temperature=settings.temperature),
        to_batch=EmbeddingBatch.from_numpy,
        metrics=_CORRELATIONS if splits["dev"].scored else _RETRIEVAL,
        score=score,
        write=_write_nothing,
        notes=train.notes,
        files=embedding_files(model, VectorForm(settings.pooling, network.normalize)),
    )


def score_pairs(vectors: np.ndarray, scores: Sequence[float]) -> Scores:
    """Compute the correlations between cosines and scores.

    Args:
        vectors: unit vectors, [pairs, 2, hidden].
        scores: the score of each pair.
    """
    cosines, labels = (vectors[:, 0] * vectors[:, 1]).sum(axis=-1), np.array(scores)
    metrics = compute_metrics(_CORRELATIONS, cosines, labels)
    return Scores(metrics, constant_baseline(_CORRELATIONS, labels, 0))


def _read_splits(config: FinetuneConfig, model: AlbertConfig) -> dict[str, _Split]:
    """Read train, dev, and test if there is one.

    Raises:
        InputError: a file is missing or malformed, or nothing tells the texts of a pair apart.
    """
    data, settings = config.data, config.embedding
    required_files(data, "a .tsv, .csv or .jsonl of texts that are alike, or a data set")
    files = {"train": data.train_file, "dev": data.dev_file, "test": data.test_file}
    formats = {"train": settings.train_format, "dev": settings.dev_format}
    splits = {}
    for name, path in files.items():
        if path is not None:
            flag = f"--config.data.{name}_file"
            format = formats.get(name, settings.dev_format)
            splits[name] = _read_split(config, path, name, format, flag)
    train = settings.train_format
    if train is PairFormat.COLUMNS and data.text_pair_column is None:
        _check_single_texts(model)
    return splits


def _read_split(
    config: FinetuneConfig, path: str, split: str, format: PairFormat, flag: str
) -> _Split:
    data, settings = config.data, config.embedding
    if format is PairFormat.NLI:
        found = read_inferences(path, split, flag=flag)
        return _Split(found.examples, (found.note,))
    if format is PairFormat.STSB:
        return _Split(read_pairs(path, split, STSB_COLUMNS, flag=flag))
    columns = PairColumns(
        data.text_column,
        data.text_pair_column,
        settings.negative_column if split == "train" else None,
        settings.score_column,
    )
    second = "--config.data.text_pair_column is missing, the second text of a pair"
    if columns.positive is None and columns.score is not None:
        raise InputError(f"{second}: --config.embedding.score_column has the score of two")
    if columns.positive is None and split != "train":
        raise InputError(
            f"{second}; without one a model can be trained, not evaluated: "
            f"--config.embedding.dev_format={PairFormat.STSB} reads pairs with scores"
        )
    return _Split(read_pairs(path, split, columns, flag=flag))


def _check_single_texts(model: AlbertConfig) -> None:
    """Check that two vectors of one text differ in training (SimCSE, Gao et al. 2021, §3).

    Raises:
        InputError: there is no dropout.
    """
    if not (model.hidden_dropout_prob or model.attention_probs_dropout_prob):
        raise InputError(
            "--config.dropout.encoder must be above 0 without --config.data.text_pair_column: each "
            "text is its own positive, and nothing but dropout tells the two apart"
        )


def _write_nothing(split: str, outputs: Outputs, directory: Path) -> list[Path]:
    """Write nothing: vectors are many and large, and `experiments.predict` can write them."""
    del split, outputs, directory
    return []


EMBEDDING = TaskKind(
    models=(AlbertForEmbedding,),
    batch=EmbeddingBatch,
    objective=contrastive_objective,
    open=_open,
    predictions={},  # those of `prediction/embeddings.py`
)
