"""The three parts of the released SQuAD 2.0 head: starts, ends given a start, answerability."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from albert_jax.config import AlbertConfig
from albert_jax.layers import at_least_float32, dense, initializer, normalization

MASKED_LOGIT = -1e30


def mask_and_normalize(
    logits: Float[Array, "*batch length"], masked: Bool[Array, "... length"]
) -> Float[Array, "*batch length"]:
    """Compute log-probabilities over the positions that are not masked.

    Example: logits ``[0, 5, 0]`` with the second masked give ``[-ln 2, -1e30, -ln 2]``.
    """
    return jax.nn.log_softmax(jnp.where(masked, MASKED_LOGIT, logits))


class StartLogits(nn.Module):
    """Score of each position to be the first of an answer."""

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, hidden: Float[Array, "batch length hidden"]) -> Float[Array, "batch length"]:
        return dense(self.config, 1, at_least_float32(self.dtype), "dense")(hidden)[..., 0]


class EndLogits(nn.Module):
    """For each given start, the score of each position to be the last of that answer."""

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch length hidden"],
        starts: Float[Array, "batch starts hidden"],
    ) -> Float[Array, "batch starts length"]:
        config = self.config
        shape = (*starts.shape[:2], *hidden.shape[1:])
        pairs = jnp.concatenate(
            [
                jnp.broadcast_to(hidden[:, None], shape),
                jnp.broadcast_to(starts[:, :, None], shape),
            ],
            axis=-1,
        )
        x = jnp.tanh(dense(config, config.hidden_size, self.dtype, "dense_0")(pairs))
        x = normalization(config, self.dtype, "layer_norm")(x)
        return dense(config, 1, at_least_float32(self.dtype), "dense_1")(x)[..., 0]


class AnswerClass(nn.Module):
    """Score that is high if the question has no answer."""

    config: AlbertConfig
    dropout_prob: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        expected_start: Float[Array, "batch hidden"],
        first: Float[Array, "batch hidden"],
        *,
        deterministic: bool,
    ) -> Float[Array, " batch"]:
        config = self.config
        both = jnp.concatenate([expected_start, first], axis=-1)
        x = jnp.tanh(dense(config, config.hidden_size, self.dtype, "dense_0")(both))
        x = nn.Dropout(self.dropout_prob)(x, deterministic=deterministic)
        last = nn.Dense(
            1,
            use_bias=False,
            dtype=at_least_float32(self.dtype),
            kernel_init=initializer(config),
            name="dense_1",
        )
        return last(x)[..., 0]
