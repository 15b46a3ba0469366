"""The starting point of a fine-tuning: sizes, tokenizer and pre-trained parameters."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from etils import epath
from jaxtyping import PyTree

from albert_jax.config import AlbertConfig
from albert_jax.generation.encoder_decoder import AlbertForConditionalGeneration
from albert_jax.interop.encoder_decoder import join_weights
from albert_jax.interop.stored_weights import ENCODER, StoredWeights
from albert_jax.interop.workdir import HEAD_FILE, write_head
from albert_jax.pretrained import directory_of
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.finetuning.decoder_start import open_decoder_start
from experiments.run.config import InitEmbeddings
from experiments.run.initial_parameters import (
    check_vocabulary,
    open_initial_weights,
    read_initial_parameters,
)
from experiments.run.workdir import ALBERT_CONFIG_FILE, CHECKPOINTS, model_files
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.generation import DecoderStart
from experiments.tasks.task import FinetuningTask
from experiments.tasks.task_settings import GENERATION_TASKS


class StartingPoint(NamedTuple):
    """What a run starts from.

    Attributes:
        model: the sizes of the encoder.
        tokenizer: the encoder's tokenizer.
        weights: what `run.init_from` holds; None if it is not read.
        decoder: the same for the decoder, in tasks that have one.
    """

    model: AlbertConfig
    tokenizer: AlbertTokenizer
    weights: StoredWeights | None
    decoder: DecoderStart | None = None


def open_starting_point(config: FinetuneConfig, path: epath.PathLike) -> StartingPoint:
    """Read the model that `run.init_from` names, or the workdir's if it has checkpoints.

    Args:
        config: the run.
        path: its workdir, which may not exist yet.

    Raises:
        InputError: the model or a tokenizer is missing, or they do not fit together.
    """
    init_from, tokenizer_path = config.run.init_from, config.data.tokenizer
    if init_from is None and tokenizer_path is None:
        raise InputError(
            "--config.run.init_from is missing: the model to fine-tune; to train one from scratch, "
            "--config.data.tokenizer and --config.model"
        )
    workdir, model, weights = epath.Path(path), config.model, None
    resumed = _has_checkpoints(workdir)
    if resumed:
        model = AlbertConfig.from_json_file(workdir / ALBERT_CONFIG_FILE)
        tokenizer_path = str(workdir)
    elif init_from is not None:
        weights = open_initial_weights(init_from)
        model = weights.config
        tokenizer_path = tokenizer_path or str(directory_of(init_from))
    if (dropout := config.dropout.encoder) is not None:
        model = dataclasses.replace(
            model, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
        )
    tokenizer = AlbertTokenizer.from_pretrained(str(tokenizer_path))
    if weights is not None and config.run.init_weights and init_from is not None:
        embeddings = config.run.init_embeddings
        whose = f"tokenizer {tokenizer_path}"
        check_vocabulary(init_from, tokenizer.tokenizer, embeddings, whose=whose)
        if embeddings is InitEmbeddings.FRESH:
            model = dataclasses.replace(model, vocab_size=tokenizer.vocab_size)
    if tokenizer.vocab_size != model.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model has {model.vocab_size}"
        )
    decoder = None
    if config.task in GENERATION_TASKS:
        decoder = open_decoder_start(config, workdir, resumed=resumed)
    return StartingPoint(model, tokenizer, weights, decoder)


def _has_checkpoints(workdir: epath.Path) -> bool:
    checkpoints = workdir / CHECKPOINTS
    return checkpoints.exists() and any(entry.name.isdigit() for entry in checkpoints.iterdir())


def read_task_parameters(
    config: FinetuneConfig, start: StartingPoint, task: FinetuningTask
) -> PyTree:
    """Return the stored encoder, with the stored head if it has the task's labels, else a new head.

    A model with a decoder gets the one that `run.init_decoder_from` holds, or else a new one.

    Raises:
        InputError: a part of the encoder is missing or of another shape.
    """
    init_from = config.run.init_from
    assert init_from is not None
    # A run to be resumed has not opened the weights; it needs them if no checkpoint is complete.
    stored = start.weights or open_initial_weights(init_from)
    required: Sequence[str] = ENCODER
    if config.run.init_decoder_from is not None:
        decoder = start.decoder and start.decoder.weights
        if decoder is None:
            decoder = open_decoder_start(config, epath.Path(), resumed=False).weights
        assert decoder is not None and isinstance(task.model, AlbertForConditionalGeneration)
        stored, required = join_weights(stored, decoder), task.model.pretrained_names()
    return read_initial_parameters(
        stored,
        task.model,
        seed=config.seed,
        embeddings=config.run.init_embeddings,
        read_heads=_has_same_head(start, stored, task),
        required=required,
    )


def _has_same_head(start: StartingPoint, stored: StoredWeights, task: FinetuningTask) -> bool:
    """Return True if the stored model has the task's head or decoder, to be trained further."""
    new = task.head
    if new is None:
        return start.decoder is not None and start.decoder.config is not None
    if stored.head is None or stored.architecture not in (None, type(task.model).__name__):
        return False
    old = stored.head
    return (old.labels, old.problem_type) == (new.labels, new.problem_type)


def workdir_files(start: StartingPoint, task: FinetuningTask) -> dict[str, bytes]:
    """Return the files that make a workdir loadable as a fine-tuned model."""
    with tempfile.TemporaryDirectory() as directory:
        head, tokenizer = (epath.Path(directory) / name for name in (HEAD_FILE, "tokenizer"))
        start.tokenizer.tokenizer.save(Path(tokenizer))
        files = {**model_files(start.model, tokenizer), **task.files}
        if task.head is not None:
            write_head(head, type(task.model).__name__, task.head)
            files[HEAD_FILE] = head.read_bytes()
        return files
