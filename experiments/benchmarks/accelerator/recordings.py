"""Recordings of rows of several lengths, packed and unpacked, which all model sizes use."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data_pipeline.config import Packing
from data_pipeline.errors import InputError
from data_pipeline.terminal import format_size, is_watched, say
from experiments.benchmarks.batches import Batches, record, replay, with_shape
from experiments.cli.config_dicts import from_config_dict
from experiments.cli.config_flag import GivenConfig
from experiments.run.config import ExperimentConfig

# Rows and length of the batches: 65,536 positions each, as many as the largest batch that is timed.
SHAPES = ((128, 512), (512, 128))
_NAME = re.compile(r"(packed|unpacked)_(\d+)\.npz")


class Shape(NamedTuple):
    """The kind of rows of a recording. The most important kinds are long, then packed."""

    length: int
    packing: Packing

    @property
    def file_name(self) -> str:
        """The name of the recording's file, such as ``packed_512.npz``."""
        return f"{self.packing}_{self.length}.npz"

    def __str__(self) -> str:
        return f"{self.length} {self.packing}"


def record_all(
    config: ExperimentConfig | None,
    corpus_dir: str,
    output: Path,
    *,
    shapes: Sequence[tuple[int | None, int | None]] | None = None,
    num_batches: int = 4,
) -> list[Path]:
    """Write a recording of each shape, packed and unpacked; existing ones are kept.

    Args:
        config: the experiment whose masks and pairs the rows have; None: `albert_base_packed`.
        corpus_dir: the corpus, whose vocabulary the rows have.
        output: the directory.
        shapes: rows and length of batches, each None for the experiment's; None: `SHAPES`.
        num_batches: number of batches of a recording.

    Raises:
        InputError: there is no such corpus, or an existing file is another recording.
    """
    from experiments.benchmarks.data import read_batches  # imports TensorFlow
    from experiments.configs import albert_base_packed
    from experiments.run.workdir import with_corpus_vocabulary

    if config is None:
        config = from_config_dict(albert_base_packed.get_config(), ExperimentConfig)
    data = dataclasses.replace(config.data, corpus_dir=corpus_dir)
    given = GivenConfig(dataclasses.replace(config, data=data), frozenset(), ())
    config = with_corpus_vocabulary(given).config
    wanted = [
        (rows or config.global_batch_size, Shape(length or config.data.max_seq_length, packing))
        for rows, length in shapes or SHAPES
        for packing in Packing
    ]
    paths = []
    with tqdm(wanted, desc="Recording", unit="file", disable=not is_watched()) as bar:
        for rows, shape in bar:
            path = output / shape.file_name
            shaped = with_shape(config, batch=rows, length=shape.length)
            packed = dataclasses.replace(shaped.data, packing=shape.packing)
            shaped = dataclasses.replace(shaped, data=packed)
            source = f"{Path(corpus_dir).resolve().name}, {shape.packing}"
            if path.exists():
                _check_kept(path, shaped, source, num_batches)
                state = "kept"
            else:
                record(read_batches(shaped, num_batches), path)
                state = "written"
            say(f"{path}: {num_batches} batches of {rows} rows of {shape}, {state}")
            paths.append(path)
    size = format_size(sum(path.stat().st_size for path in paths))
    say(f"{output}: {len(paths)} recordings, {size}")
    return paths


def _check_kept(path: Path, config: ExperimentConfig, source: str, num_batches: int) -> None:
    """Check that a file is the recording that would be written.

    Raises:
        InputError: it is not.
    """
    found, batches = replay(path, config)
    wanted = (config.global_batch_size, config.data.max_seq_length, num_batches, source)
    there = (
        *(found.global_batch_size, found.data.max_seq_length),
        *(len(batches.batches), batches.source),
    )
    if there != wanted:
        raise InputError(
            f"{path} has {there[2]} batches of {there[0]} rows of {there[1]} of {there[3]}, not "
            f"{wanted[2]} of {wanted[0]} of {wanted[1]} of {wanted[3]}: name another --output"
        )


def find_recordings(directory: Path) -> dict[Shape, Path]:
    """Find the recordings in a directory: long rows first, packed before unpacked.

    Raises:
        InputError: there is no such directory, or no recording in it.
    """
    if not directory.is_dir():
        raise InputError(
            f"--replay={directory} is no directory; --what=record_all --output={directory} makes it"
        )
    found = {}
    for path in directory.iterdir():
        if match := _NAME.fullmatch(path.name):
            found[Shape(int(match[2]), Packing(match[1]))] = path
    if not found:
        raise InputError(
            f"--replay={directory} has no recordings such as packed_512.npz; --what=record_all "
            f"--output={directory} makes them"
        )
    order = sorted(found, key=lambda shape: (-shape.length, shape.packing is not Packing.PACKED))
    return {shape: found[shape] for shape in order}


def take_rows(
    path: Path, config: ExperimentConfig, rows: int | None
) -> tuple[ExperimentConfig, Batches]:
    """Replay a recording with the first rows of each batch.

    Args:
        path: the recording.
        config: the experiment.
        rows: rows of a batch; None, or more than there are: all of them.

    Raises:
        InputError: the file is not a recording, or its rows do not fit the model.
    """
    config, batches = replay(path, config)
    rows = min(rows or config.global_batch_size, config.global_batch_size)
    fewer = [{name: field[:rows] for name, field in one.items()} for one in batches.batches]
    return dataclasses.replace(config, global_batch_size=rows), batches._replace(batches=fewer)
