"""The starting point of a decoder: pre-trained, taken from a run to resume, or not known yet."""

from typing import Any

from etils import epath

from albert_jax.config import ParameterSharing
from albert_jax.generation.stored_decoder import open_decoder
from albert_jax.interop.names import WeightsError
from albert_jax.interop.workdir import DECODER_FILE, TARGET_TOKENIZER, read_decoder_config
from albert_jax.pretrained import directory_of
from albert_jax.settings import FieldError
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.targets.loading import load_target_tokenizer
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.generation import DecoderStart


def open_decoder_start(
    config: FinetuneConfig, workdir: epath.Path, *, resumed: bool
) -> DecoderStart:
    """Read the decoder that `run.init_decoder_from` names, or the workdir's in a resumed run.

    Args:
        config: the run.
        workdir: its workdir.
        resumed: True if the workdir has checkpoints.

    Raises:
        InputError: the decoder or its vocabulary is missing, or they do not fit together.
    """
    if resumed:
        tokenizer = load_target_tokenizer(str(workdir / TARGET_TOKENIZER))
        return DecoderStart(tokenizer, read_decoder_config(workdir / DECODER_FILE))
    targets, path = config.targets, config.run.init_decoder_from
    if path is None:
        if targets.tokenizer is None:
            return DecoderStart()
        return DecoderStart(load_target_tokenizer(targets.tokenizer, pad_token=targets.pad_token))
    if config.run.init_from is None:
        raise InputError("--config.run.init_decoder_from needs --config.run.init_from, the encoder")
    directory = directory_of(path)
    own = directory / TARGET_TOKENIZER
    place = targets.tokenizer or str(own if own.exists() else directory)
    tokenizer = load_target_tokenizer(place, pad_token=targets.pad_token)
    settings: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
        **config.decoder.dropout_fields(),
    }
    if config.decoder.parameter_sharing is not ParameterSharing.NONE:
        settings["parameter_sharing"] = config.decoder.parameter_sharing
    try:
        weights, decoder = open_decoder(path, settings)
    except (WeightsError, FieldError) as error:
        raise InputError(f"--config.run.init_decoder_from={path}: {error}") from error
    return DecoderStart(tokenizer, decoder, weights if config.run.init_weights else None)
