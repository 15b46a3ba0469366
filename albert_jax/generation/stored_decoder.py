"""The decoder of a stored model, for another model to start from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from albert_jax.decoder.config import Gpt2Config
from albert_jax.interop.encoder_decoder import (
    DecoderWeights,
    append_token,
    is_encoder_decoder,
    read_gpt2,
    take_decoder,
)
from albert_jax.interop.names import WeightsError
from albert_jax.interop.workdir import is_workdir, split_step
from albert_jax.pretrained import open_path, open_weights


def open_decoder(
    path: epath.PathLike, settings: Mapping[str, Any]
) -> tuple[DecoderWeights, Gpt2Config]:
    """Open the decoder of a path; `join_weights` joins it with an encoder.

    Args:
        path: a directory of transformers' GPT-2, which has no cross-attention; or an
            encoder-decoder, whose cross-attention is taken too: a directory of transformers'
            EncoderDecoderModel, or a workdir or one of its checkpoints.
        settings: fields of `Gpt2Config` that replace those of the path. Layers that are to share
            parameters must be equal in the path. The vocabulary may have one token more than there,
            which is appended.

    Raises:
        WeightsError: there is no decoder, its files are damaged, or its layers differ.
        CheckpointError: a workdir's checkpoint is damaged or missing.
        FieldError: a setting is not allowed.
    """
    wanted = dict(settings)
    size, pad = wanted.pop("vocab_size", None), wanted.get("pad_token_id")
    if size is not None:  # it may be one more than the path has, for padding
        wanted["pad_token_id"] = int(wanted.get("bos_token_id", -1) == 0)
    weights, config = _open(path, wanted)
    if size is None:
        return weights, config
    if size == config.vocab_size + 1:
        weights, config = append_token(weights, config)
    if size != config.vocab_size:
        raise WeightsError(f"{path} has {config.vocab_size} tokens, and should have {size}")
    return weights, config if pad is None else dataclasses.replace(config, pad_token_id=pad)


def _open(path: epath.PathLike, settings: Mapping[str, Any]) -> tuple[DecoderWeights, Gpt2Config]:
    given = open_path(path)
    root, _ = split_step(given)
    if not is_workdir(root) and not is_encoder_decoder(given):
        return read_gpt2(given, settings)
    stored = open_weights(path)
    if stored.decoder is None:
        raise WeightsError(f"{path} is a workdir without a decoder")
    return take_decoder(stored, settings)
