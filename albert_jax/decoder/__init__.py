"""A GPT-2 decoder with cross-attention: its layers, shared or not, and their cache."""

from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from albert_jax.decoder.cache import DecoderCache
    from albert_jax.decoder.config import Gpt2Config
    from albert_jax.decoder.decoder import Gpt2Decoder

__getattr__, __all__ = lazy_exports(
    __name__,
    {"cache": ["DecoderCache"], "config": ["Gpt2Config"], "decoder": ["Gpt2Decoder"]},
)
