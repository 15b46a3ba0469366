"""Generation: ALBERT reads, a decoder writes; greedy search, sampling and beam search."""

from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from albert_jax.generation.config import EarlyStopping, GenerationOptions
    from albert_jax.generation.decoding import GenerationOutput, generate
    from albert_jax.generation.encoder_decoder import AlbertForConditionalGeneration, Seq2SeqOutput
    from albert_jax.generation.stored_decoder import open_decoder
    from albert_jax.generation.stored_options import (
        options_bytes,
        options_to_json,
        read_generation_options,
        read_options,
    )

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "config": ["EarlyStopping", "GenerationOptions"],
        "decoding": ["GenerationOutput", "generate"],
        "encoder_decoder": ["AlbertForConditionalGeneration", "Seq2SeqOutput"],
        "stored_decoder": ["open_decoder"],
        "stored_options": [
            *("options_bytes", "options_to_json", "read_generation_options", "read_options"),
        ],
    },
)
