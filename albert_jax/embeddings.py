"""Factorized embeddings: tokens, token types and positions at width E, not H (ALBERT §3.1)."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from albert_jax.config import AlbertConfig
from albert_jax.layers import AnyArray, LayerNorm, at_least_float32, embedding_table
from albert_jax.positions import position_encoder


class AlbertEmbeddings(nn.Module):
    """Sum of word, token-type and position embeddings, then layer norm and dropout.

    The padding token is an ordinary row of the word table. The sum is taken in at least float32.
    """

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        config, dtype = self.config, at_least_float32(self.dtype)
        self.word_embeddings = embedding_table(config, config.vocab_size, dtype)
        self.token_type_embeddings = embedding_table(config, config.type_vocab_size, dtype)
        self.layer_norm = LayerNorm(config.layer_norm_eps, self.dtype)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    @nn.compact
    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        token_type_ids: Int[AnyArray, "batch length"],
        position_ids: Int[AnyArray, "#batch length"],
        *,
        deterministic: bool,
    ) -> Float[Array, "batch length embedding"]:
        embedded = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        embedded = position_encoder(self.config).embed(embedded, position_ids)
        return self.dropout(self.layer_norm(embedded), deterministic=deterministic)
