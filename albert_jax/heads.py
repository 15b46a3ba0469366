"""Heads on top of the encoder: pooler, classifier, masked LM tied to the word table."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from albert_jax.config import AlbertConfig
from albert_jax.layers import (
    ACTIVATIONS,
    AnyArray,
    at_least_float32,
    dense,
    initializer,
    normalization,
)


class Pooler(nn.Module):
    """Dense layer and tanh on the vectors at the starts of sequences."""

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, first: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
        layer = dense(self.config, self.config.hidden_size, self.dtype)
        nn.share_scope(self, layer)
        return jnp.tanh(layer(first))


class Classifier(nn.Module):
    """Dropout and a dense layer whose logits are at least float32."""

    config: AlbertConfig
    num_labels: int
    dropout_prob: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "*batch hidden"], *, deterministic: bool
    ) -> Float[Array, "*batch labels"]:
        hidden = nn.Dropout(self.dropout_prob)(hidden, deterministic=deterministic)
        layer = dense(self.config, self.num_labels, at_least_float32(self.dtype))
        nn.share_scope(self, layer)
        return layer(hidden)


class MaskedLMHead(nn.Module):
    """Projection to width E, activation and norm, then logits by the word table, plus a bias.

    With `AlbertConfig.tie_word_embeddings` off, a separate table of the same shape replaces the
    word table.
    """

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch chosen hidden"],
        word_table: Float[AnyArray, "vocabulary embedding"],
    ) -> Float[Array, "batch chosen vocabulary"]:
        config = self.config
        x = dense(config, config.embedding_size, self.dtype, "dense")(hidden)
        x = ACTIVATIONS[config.hidden_act](x)
        x = normalization(config, self.dtype, "layer_norm")(x)
        bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,))
        if not config.tie_word_embeddings:
            word_table = self.param("decoder", initializer(config), word_table.shape)
        logits = jnp.einsum(
            "bce,ve->bcv",
            x,
            word_table.astype(self.dtype),
            preferred_element_type=at_least_float32(self.dtype),
        )
        return logits + bias.astype(logits.dtype)
