"""ALBERT in JAX and Flax."""

from albert_jax.config import AlbertConfig
from albert_jax.model import AlbertForPreTraining, AlbertModel

__all__ = ["AlbertConfig", "AlbertForPreTraining", "AlbertModel"]
