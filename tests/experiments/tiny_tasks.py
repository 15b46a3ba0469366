"""Tasks that are learned in seconds: a word decides."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config import AlbertConfig
from albert_jax.optimizer import ScheduleName
from data_pipeline.wordpiece_tokenizer import WordPieceTokenizer
from experiments.finetune_config import (
    FinetuneConfig,
    FinetuneRunConfig,
    TaskDataConfig,
    TaskName,
    finetuning_optimizer,
)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FILLERS = tuple(f"word{number}" for number in range(8))
KEYS = ("good", "bad", "fair")


def write_tokenizer(directory: Path, *words: str) -> Path:
    """A vocabulary of the words above, and others."""
    WordPieceTokenizer([*SPECIAL, *FILLERS, *KEYS, *words]).save(directory)
    return directory


def write_table(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...]) -> Path:
    lines = ["\t".join(row) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_reviews(directory: Path, *, labels: dict[str, str], train: int = 160) -> None:
    """`train.tsv`, `dev.tsv`, `test.tsv` of sentences of 2 to 12 words, one of which is a key."""
    generator = np.random.default_rng(3)

    def rows(count: int) -> list[tuple[str, ...]]:
        made = []
        for _ in range(count):
            key = str(generator.choice(list(labels)))
            words = list(generator.choice(FILLERS, size=generator.integers(1, 12)))
            words.insert(int(generator.integers(len(words) + 1)), key)
            made.append((" ".join(words), labels[key]))
        return made

    directory.mkdir(parents=True, exist_ok=True)
    write_table(directory / "train.tsv", rows(train), ("text", "label"))
    write_table(directory / "dev.tsv", rows(60), ("text", "label"))
    tests = [(str(number), text) for number, (text, _) in enumerate(rows(20))]
    write_table(directory / "test.tsv", tests, ("index", "text"))


def tiny_model(vocab_size: int) -> AlbertConfig:
    return AlbertConfig(
        vocab_size=vocab_size,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.1,
        initializer_range=0.2,
        max_position_embeddings=64,
    )


def make_finetuning(
    task: TaskName, tokenizer: Path, *, steps: int = 60, data: dict[str, Any], **run: Any
) -> FinetuneConfig:
    """A tiny model from random parameters."""
    vocabulary = (tokenizer / "vocab.txt").read_text().split()
    return FinetuneConfig(
        task=task,
        model=tiny_model(len(vocabulary)),
        data=TaskDataConfig(
            **{"tokenizer": str(tokenizer), "max_seq_length": 32, "num_lengths": 2} | data
        ),
        optimizer=dataclasses.replace(
            finetuning_optimizer(),
            learning_rate=5e-3,
            schedule=ScheduleName.POLY,
            num_train_steps=steps,
            num_warmup_steps=5,
        ),
        run=FinetuneRunConfig(
            **{
                "log_every": 10,
                "evaluate_every": 20,
                "checkpoint_every": 20,
                "evaluation_batch_size": 16,
            }
            | run
        ),
        global_batch_size=16,
        seed=1,
    )
