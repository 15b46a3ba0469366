"""A language that can be learned in seconds: calls and their echoes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config import AlbertConfig
from albert_jax.training.config import OptimizerConfig, OptimizerName, ScheduleName
from data_pipeline.config import DataConfig, Packing
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer
from experiments.run.config import ExperimentConfig, RunConfig

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = 8  # of each kind: calls and echoes


def write_echoes(
    path: Path, *, words: int = WORDS, documents: int = 600, held_out: int = 100, seed: int = 7
) -> Path:
    """Documents such as `call3 call3 call3 call3. echo7 echo7 echo7 echo7 echo7.`: a masked word
    follows from its sentence, and the order of the sentences from their kinds."""
    from tiny_corpora import write_corpus  # not on the path of the commands that tests start

    generator = np.random.default_rng(seed)

    def document() -> list[list[int]]:
        lengths = generator.integers(4, 8, size=2)
        firsts = len(SPECIAL) + np.array([0, words]) + generator.integers(words, size=2)
        return [[int(word)] * n for word, n in zip(firsts, lengths, strict=True)]

    splits = {
        "train": [document() for _ in range(documents)],
        "validation": [document() for _ in range(held_out)],
    }
    names = [f"{kind}{number}" for kind in ("call", "echo") for number in range(words)]
    write_corpus(path, splits, WordPieceTokenizer([*SPECIAL, *names]))
    return path


def make_experiment(corpus: Path, *, num_train_steps: int, **run: Any) -> ExperimentConfig:
    """A tiny model, with dropout so that its keys matter, on packed rows of 32."""
    return ExperimentConfig(
        model=AlbertConfig(
            vocab_size=len(SPECIAL) + 2 * WORDS,
            embedding_size=16,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            hidden_dropout_prob=0.1,
            initializer_range=0.2,  # so narrow a model starts too slowly from 0.02
            max_position_embeddings=32,
        ),
        data=DataConfig(
            corpus_dir=str(corpus),
            max_seq_length=32,
            packing=Packing.PACKED,
            max_predictions_per_seq=5,
        ),
        optimizer=OptimizerConfig(
            name=OptimizerName.ADAMW,
            schedule=ScheduleName.POLY,
            learning_rate=1e-2,
            num_train_steps=num_train_steps,
            num_warmup_steps=10,
            bias_correction=True,
        ),
        run=RunConfig(
            **{
                "log_every": 10,
                "evaluate_every": 1000,
                "checkpoint_every": 1000,
                "evaluation_batch_size": 32,
                "evaluation_pairs": 200,
            }
            | run
        ),
        global_batch_size=16,
    )


def with_part(config: ExperimentConfig, part: str, **changes: Any) -> ExperimentConfig:
    """The experiment with some fields of one part changed."""
    return dataclasses.replace(
        config, **{part: dataclasses.replace(getattr(config, part), **changes)}
    )
