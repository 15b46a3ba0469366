"""Directories of transformers' EncoderDecoderModel with ALBERT and GPT-2, and of GPT-2 alone."""

from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from albert_jax.interop.encoder_decoder.decoder_weights import (
        DecoderWeights,
        append_token,
        join_weights,
        take_decoder,
    )
    from albert_jax.interop.encoder_decoder.reading import (
        is_encoder_decoder,
        read_encoder_decoder,
        read_gpt2,
    )
    from albert_jax.interop.encoder_decoder.writing import (
        save_encoder_decoder,
        write_encoder_decoder,
    )

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "decoder_weights": ["DecoderWeights", "append_token", "join_weights", "take_decoder"],
        "reading": ["is_encoder_decoder", "read_encoder_decoder", "read_gpt2"],
        "writing": ["save_encoder_decoder", "write_encoder_decoder"],
    },
)
