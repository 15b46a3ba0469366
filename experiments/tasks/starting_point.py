"""What a fine-tuning starts from: sizes, tokenizer, and pre-trained parameters or none."""

import dataclasses
import functools
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import PyTree

from albert_jax.config import AlbertConfig
from albert_jax.interop.names import WeightsError
from albert_jax.interop.stored_weights import flatten
from albert_jax.interop.workdir import HEAD_FILE, split_step, write_head
from albert_jax.pretrained import PretrainedWeights, open_weights, read_pretrained
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.run.workdir import ALBERT_CONFIG_FILE, CHECKPOINTS, model_files
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.task import FinetuningTask

_ENCODER, _POOLER = "albert/", "albert/pooler/"  # not every model that can be read has a pooler

_log = logging.getLogger(__name__)


class StartingPoint(NamedTuple):
    """Sizes and tokenizer of a run's encoder."""

    model: AlbertConfig
    tokenizer: AlbertTokenizer


def open_starting_point(config: FinetuneConfig, path: epath.PathLike) -> StartingPoint:
    """Reads what `run.init_from` names, or what a run that has checkpoints started from.

    Args:
        config: the run.
        path: its workdir, which may not exist yet.

    Raises:
        InputError: there is no model or no tokenizer, or they do not fit together or the data.
    """
    init_from, tokenizer_path = config.run.init_from, config.data.tokenizer
    if init_from is None and tokenizer_path is None:
        raise InputError(
            "--config.run.init_from is missing: the model to fine-tune; to train one from scratch, "
            "--config.data.tokenizer and --config.model"
        )
    workdir, model = epath.Path(path), config.model
    if _has_checkpoints(workdir):
        model = AlbertConfig.from_json_file(workdir / ALBERT_CONFIG_FILE)
        tokenizer_path = str(workdir)
    elif init_from is not None:
        try:
            model = open_weights(init_from).config
        except WeightsError as error:
            raise InputError(f"--config.run.init_from: {error}") from error
        tokenizer_path = tokenizer_path or str(split_step(epath.Path(init_from))[0])
    if (dropout := config.dropout.encoder) is not None:
        model = dataclasses.replace(
            model, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
        )
    tokenizer = AlbertTokenizer.from_pretrained(str(tokenizer_path))
    if tokenizer.vocab_size != model.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} pieces, the model has {model.vocab_size}"
        )
    if model.longest_row is not None and config.data.max_seq_length > model.longest_row:
        raise InputError(
            f"--config.data.max_seq_length ({config.data.max_seq_length}) must be at most the "
            f"model's max_position_embeddings ({model.longest_row})"
        )
    return StartingPoint(model, tokenizer)


def _has_checkpoints(workdir: epath.Path) -> bool:
    checkpoints = workdir / CHECKPOINTS
    return checkpoints.exists() and any(entry.name.isdigit() for entry in checkpoints.iterdir())


def warm_start(config: FinetuneConfig, task: FinetuningTask) -> Callable[[PyTree], PyTree] | None:
    """Shapes to the parameters that a new run starts from; None: all of them fresh."""
    if config.run.init_from is None or not config.run.init_weights:
        return None
    return functools.partial(_read_params, config.run.init_from, config.seed, task)


def _read_params(init_from: str, seed: int, task: FinetuningTask, shapes: PyTree) -> PyTree:
    """The stored encoder, and the stored head if it tells the same things apart; else a fresh one.

    Raises:
        InputError: a part of the encoder is missing or of another shape.
    """
    try:
        stored = read_pretrained(init_from)
    except WeightsError as error:
        raise InputError(f"--config.run.init_from: {error}") from error
    found = flatten(stored.params)
    if not _tells_the_same(stored, task):
        found = {name: leaf for name, leaf in found.items() if name.startswith(_ENCODER)}
    fresh = jax.jit(task.model.initialize)(jax.random.key(seed))
    drawn, faults = [], []

    def choose(path: jax.tree_util.KeyPath, shape: jax.ShapeDtypeStruct, new: jax.Array) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        leaf = found.get(name)
        if leaf is not None and leaf.shape == shape.shape:
            return leaf
        if name.startswith(_ENCODER) and not name.startswith(_POOLER):
            state = "is missing" if leaf is None else f"has shape {leaf.shape}, not {shape.shape}"
            faults.append(f"{name} {state}")
        drawn.append(name)
        return np.asarray(new)

    params = jax.tree_util.tree_map_with_path(choose, shapes, fresh)
    if faults:
        raise InputError(f"--config.run.init_from={init_from}: {'; '.join(faults)}")
    if drawn:
        _log.warning("drawn at random, as %s has none: %s", init_from, ", ".join(sorted(drawn)))
    return params


def _tells_the_same(stored: PretrainedWeights, task: FinetuningTask) -> bool:
    """Whether a stored head can be gone on with."""
    if stored.head is None or stored.architecture not in (None, type(task.model).__name__):
        return False
    told, wanted = stored.head, task.head
    return (told.labels, told.problem_type) == (wanted.labels, wanted.problem_type)


def workdir_files(start: StartingPoint, task: FinetuningTask) -> dict[str, bytes]:
    """What makes a workdir loadable as a fine-tuned model: sizes, tokenizer, head."""
    with tempfile.TemporaryDirectory() as directory:
        head, tokenizer = (epath.Path(directory) / name for name in (HEAD_FILE, "tokenizer"))
        write_head(head, type(task.model).__name__, task.head)
        start.tokenizer.tokenizer.save(Path(tokenizer))
        return {**model_files(start.model, tokenizer), HEAD_FILE: head.read_bytes()}
