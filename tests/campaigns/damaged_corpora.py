"""Damage to corpora and plans: the same batches or an error of one line, never other batches.

A corpus that was opened before, with its plan, is damaged in one to three ways and opened as a run
opens it. Damage to only a plan is no reason to refuse, since it is built again.
"""

import json
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from echoes import SPECIAL, WORDS
from tiny_corpora import write_corpus

from data_pipeline.config import DataConfig, Packing
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.pretraining.dataset import PretrainingDataset
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer
from experiments.cli.command import call
from tests.campaigns.campaign import Campaign
from tests.campaigns.file_damage import FILE_DAMAGES

CONFIG = DataConfig(
    max_seq_length=32, packing=Packing.PACKED, max_predictions_per_seq=5, num_plan_variants=2
)
STEPS = (0, 7, 40)  # of three epochs
Batches = list[dict[str, np.ndarray]]


def write_intact(path: Path) -> None:
    """Write a corpus of several shards."""
    generator = np.random.default_rng(3)
    words = range(len(SPECIAL), len(SPECIAL) + 2 * WORDS)

    def document() -> list[list[int]]:
        return [
            generator.choice(words, size=generator.integers(3, 9)).tolist()
            for _ in range(generator.integers(2, 6))
        ]

    splits = {"train": [document() for _ in range(300)], "validation": [document()] * 20}
    names = [f"{kind}{number}" for kind in ("call", "echo") for number in range(WORDS)]
    tokenizer = WordPieceTokenizer([*SPECIAL, *names])
    write_corpus(path, splits, tokenizer, max_shard_bytes=2000)


def read_batches(path: Path) -> Batches:
    """Open a corpus as a run does, and read some batches."""
    dataset = PretrainingDataset(open_corpus(path), CONFIG, seed=5, global_batch_size=8)
    found = []
    for step in STEPS:
        with dataset.batches(start_step=step) as batches:
            found.append(next(batches))
    return found


def _files(directory: Path, below: str = ".") -> list[Path]:
    return sorted(path for path in (directory / below).rglob("*") if path.is_file())


def damage_file(directory: Path, choose: random.Random) -> None:
    choose.choice(FILE_DAMAGES)(choose.choice(_files(directory)), choose)


def damage_plan(directory: Path, choose: random.Random) -> None:
    if files := _files(directory, "plans"):
        choose.choice(FILE_DAMAGES)(choose.choice(files), choose)


def _change_value(content: Any, choose: random.Random) -> Any:
    """Change one value somewhere in parsed JSON."""
    if isinstance(content, dict) and content:
        name = choose.choice(sorted(content))
        return content | {name: _change_value(content[name], choose)}
    if isinstance(content, list) and content:
        place = choose.randrange(len(content))
        return [*content[:place], _change_value(content[place], choose), *content[place + 1 :]]
    if isinstance(content, bool) or not isinstance(content, int | float):
        return choose.choice([None, 0, "0", [], {}, "other"])
    return choose.choice([content + choose.choice([-7, -1, 1, 7]), 0, -1, 10**12, content * 9, "7"])


def change_metadata(directory: Path, choose: random.Random) -> None:
    """Change a value of a `metadata.json`, of the corpus or of a plan."""
    there = [path for path in _files(directory) if path.name == "metadata.json"]
    path = choose.choice(there)
    try:
        content = json.loads(path.read_text())
    except ValueError:  # damaged before
        return
    path.write_text(json.dumps(_change_value(content, choose)))


def swap_files(directory: Path, choose: random.Random) -> None:
    """Exchange two files of the same name, such as those of two shards."""
    path = choose.choice(_files(directory))
    others = [one for one in _files(directory) if one.name == path.name and one != path]
    if others:
        other, content = choose.choice(others), path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)


def delete_directory(directory: Path, choose: random.Random) -> None:
    shutil.rmtree(choose.choice(sorted(path for path in directory.rglob("*") if path.is_dir())))


def add_file(directory: Path, choose: random.Random) -> None:
    """Leave a file, or a whole further shard, where there was none."""
    shards = sorted(directory.glob("train/shard-*"))
    if shards and choose.random() < 0.5:
        shutil.copytree(choose.choice(shards), directory / "train" / "shard-90000")
    else:
        parents = sorted(path for path in directory.rglob("*") if path.is_dir())
        (choose.choice([directory, *parents]) / "stray.bin").write_bytes(b"x")


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    *[damage_file] * 3,
    *[damage_plan] * 3,
    *[change_metadata] * 4,
    *(swap_files, delete_directory, add_file),
)


def fault_of_reading(directory: Path, expected: Batches, *, only_plans: bool) -> str | None:
    """Read the batches; say what is wrong with them."""
    found: list[Batches] = []
    status = call(lambda: found.append(read_batches(directory)))
    if status != 0:
        return f"refused with status {status}, only its plan was damaged" if only_plans else None
    for step, ours, theirs in zip(STEPS, found[0], expected, strict=True):
        for name, array in theirs.items():
            if not np.array_equal(ours[name], array):
                return f"step {step} has another {name}"
    return None


def _content(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in _files(directory)
        if path.relative_to(directory).parts[0] != "plans"
    }


def attempt(
    place: Path, intact: Path, expected: Batches, choose: random.Random
) -> tuple[str, str | None]:
    """Damage a copy and open it; return what was done to it, and what is wrong with the result."""
    shutil.copytree(intact, place)
    read_batches(place)  # as verified before
    before = _content(place)
    damages = choose.sample(DAMAGES, choose.choice([1, 1, 1, 2, 3]))
    kind = " and ".join(damage.__name__ for damage in damages)
    try:
        for damage in damages:
            damage(place, choose)
        fault = fault_of_reading(place, expected, only_plans=before == _content(place))
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    if fault is None:
        shutil.rmtree(place)
    return kind, fault and f"{kind}, in {place}: {fault}"


def main() -> None:
    """Damage, open, compare."""
    campaign = Campaign("damaged_corpora", count=150, description=str(__doc__).partition("\n")[0])
    logging.getLogger("data_pipeline").setLevel(logging.ERROR)
    with campaign.directory() as directory:
        write_intact(directory / "intact")
        expected = read_batches(directory / "intact")
        for number in campaign.numbers:
            choose = random.Random(f"{campaign.seed} {number}")
            kind, fault = attempt(directory / str(number), directory / "intact", expected, choose)
            campaign.count_case("several" if " and " in kind else kind, fault, number=number)
    campaign.finish()


if __name__ == "__main__":
    main()
