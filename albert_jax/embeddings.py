"""Factorized embeddings: words, token types and positions at width E, not H (ALBERT §3.1)."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from albert_jax.config import AlbertConfig, PositionEncoding
from albert_jax.layers import AnyArray, LayerNorm, at_least_float32, initializer


class AlbertEmbeddings(nn.Module):
    """Sum of word, token-type and (absolute) position embeddings, then layer norm and dropout.

    The padding piece is an ordinary row of the word table. The sum is taken in at least float32.
    """

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        config = self.config

        def table(rows: int) -> nn.Embed:
            return nn.Embed(
                rows,
                config.embedding_size,
                dtype=at_least_float32(self.dtype),
                embedding_init=initializer(config),
            )

        self.word_embeddings = table(config.vocab_size)
        self.token_type_embeddings = table(config.type_vocab_size)
        if config.position_encoding is PositionEncoding.ABSOLUTE:
            self.position_embeddings = table(config.max_position_embeddings)
        self.layer_norm = LayerNorm(config.layer_norm_eps, self.dtype)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch length"],
        token_type_ids: Int[AnyArray, "batch length"],
        position_ids: Int[AnyArray, "#batch length"],
        *,
        deterministic: bool,
    ) -> Float[Array, "batch length embedding"]:
        embedded = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        if self.config.position_encoding is PositionEncoding.ABSOLUTE:
            embedded += self.position_embeddings(position_ids)
        return self.dropout(self.layer_norm(embedded), deterministic=deterministic)
