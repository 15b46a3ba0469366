"""Fine-tuning tasks that are learned in seconds: one word decides."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config import AlbertConfig, ProblemType
from albert_jax.training.config import ScheduleName
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer
from experiments.tasks.config import FinetuneConfig, FinetuneRunConfig, finetuning_optimizer
from experiments.tasks.task_settings import TaskDataConfig, TaskName

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FILLERS = tuple(f"word{number}" for number in range(10))
KEYS = ("good", "bad", "fair")


def write_tokenizer(directory: Path, *words: str) -> Path:
    """Write a vocabulary of the words above, and others."""
    WordPieceTokenizer([*SPECIAL, *FILLERS, *KEYS, *words]).save(directory)
    return directory


def write_table(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...]) -> Path:
    lines = ["\t".join(row) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n")
    return path


def sentences(count: int, keys: Sequence[str], seed: int) -> Iterator[tuple[list[str], str]]:
    """Yield sentences of 2 to 12 words, one of them a key, and their key."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        key = str(generator.choice(list(keys)))
        words = [str(word) for word in generator.choice(FILLERS, size=generator.integers(1, 12))]
        words.insert(int(generator.integers(len(words) + 1)), key)
        yield words, key


def write_texts(directory: Path, labels: dict[str, str]) -> dict[str, Any]:
    """Write texts whose label depends on the key, in three files."""
    for number, (split, count) in enumerate((("train", 160), ("dev", 60), ("test", 20))):
        rows = [
            (" ".join(words), labels[key]) for words, key in sentences(count, [*labels], number)
        ]
        write_table(directory / f"{split}.tsv", rows, ("text", "label"))
    return {f"{split}_file": str(directory / f"{split}.tsv") for split in ("train", "dev", "test")}


def write_sst2(directory: Path) -> dict[str, Any]:
    """Write texts in the form of SST-2's official files."""
    for number, (split, count) in enumerate((("train", 160), ("dev", 60))):
        rows = [
            (" ".join(words), str(int(key == "good")))
            for words, key in sentences(count, ["good", "bad"], number)
        ]
        write_table(directory / f"{split}.tsv", rows, ("sentence", "label"))
    test = [" ".join(words) for words, _ in sentences(20, ["good", "bad"], 2)]
    rows = [(str(number), text) for number, text in enumerate(test)]
    write_table(directory / "test.tsv", rows, ("index", "sentence"))
    return {"dir": str(directory)}


def write_tags(directory: Path) -> dict[str, Any]:
    """Write sentences whose key is an entity."""
    tags = {"good": "B-GOOD", "bad": "B-BAD"}
    for number, (split, count) in enumerate((("train", 160), ("dev", 60))):
        lines = [
            "".join(f"{word} {tags.get(word, 'O')}\n" for word in words)
            for words, _ in sentences(count, ["good", "bad"], number)
        ]
        (directory / f"{split}.txt").write_text("\n".join(lines))
    return {f"{split}_file": str(directory / f"{split}.txt") for split in ("train", "dev")}


def write_scores(directory: Path) -> dict[str, Any]:
    """Write texts whose score depends on the key."""
    data = write_texts(directory, {"good": "5", "bad": "1", "fair": "3"})
    return data | {"problem_type": ProblemType.REGRESSION}


def write_answerable(directory: Path) -> dict[str, Any]:
    """Write contexts whose key is the answer."""
    return write_questions(directory, impossible=False)


def write_questions(directory: Path, *, impossible: bool = True) -> dict[str, Any]:
    """Write contexts whose key is the answer, and others without an answer."""
    for number, (split, count) in enumerate((("train", 160), ("dev", 60))):
        articles: list[dict[str, Any]] = [{"title": str(t), "paragraphs": []} for t in range(6)]
        keys = ["good", "bad", "word9"] if impossible else ["good", "bad"]
        for name, (words, key) in enumerate(sentences(count, keys, number)):
            context, unanswered = " ".join(words), key == "word9"
            answer = {"text": key, "answer_start": context.index(key)}
            question = {
                "id": str(name),
                "question": "word0 word1",
                "is_impossible": unanswered,
                "answers": [] if unanswered else [answer],
            }
            articles[name % 6]["paragraphs"].append({"context": context, "qas": [question]})
        (directory / f"{split}.json").write_text(json.dumps({"data": articles}))
    return {f"{split}_file": str(directory / f"{split}.json") for split in ("train", "dev")}


def write_choices(directory: Path) -> dict[str, Any]:
    """Write passages with one question each, whose right option is "good"."""
    generator = np.random.default_rng(5)
    for split, count in (("train", 60), ("dev", 20)):
        for group in ("middle", "high"):
            folder = directory / "RACE" / split / group
            folder.mkdir(parents=True)
            for number in range(count // 2):
                options = generator.permutation(["good", "bad", "fair", "word1"])
                record = {
                    "id": f"{group}{number}.txt",
                    "article": "word2 word3 word4",
                    "questions": ["word5 _ ."],
                    "options": [options.tolist()],
                    "answers": ["ABCD"[int(np.flatnonzero(options == "good")[0])]],
                }
                (folder / f"{number}.txt").write_text(json.dumps(record))
    return {"dir": str(directory)}


def tiny_model(vocab_size: int) -> AlbertConfig:
    return AlbertConfig(
        vocab_size=vocab_size,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.1,
        initializer_range=0.2,  # so narrow a model starts too slowly from 0.02
        max_position_embeddings=64,
    )


def make_finetuning(
    task: TaskName, tokenizer: Path, *, steps: int = 60, data: dict[str, Any], **run: Any
) -> FinetuneConfig:
    """Configure a tiny model with random parameters."""
    vocabulary = (tokenizer / "vocab.txt").read_text().split()
    data = {"tokenizer": str(tokenizer), "max_seq_length": 32, "num_lengths": 1} | data
    return FinetuneConfig(
        task=task,
        model=tiny_model(len(vocabulary)),
        data=TaskDataConfig(**data),
        optimizer=dataclasses.replace(
            finetuning_optimizer(),
            learning_rate=5e-3,
            schedule=ScheduleName.POLY,
            num_train_steps=steps,
            num_warmup_steps=min(5, steps - 1),
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
