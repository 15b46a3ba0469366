"""The parts that replaced-token detection adds to an ALBERT: a head, and a generator."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from albert_jax.config import AlbertConfig
from albert_jax.encoder import AlbertEncoder, Execution
from albert_jax.heads import MaskedLMHead
from albert_jax.layers import ACTIVATIONS, at_least_float32, dense
from albert_jax.matmuls.dense_matmul import Matmuls


class DetectionHead(nn.Module):
    """Dense layer, activation and one logit for each token: above 0, it was replaced."""

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, hidden: Float[Array, "batch length hidden"]) -> Float[Array, "batch length"]:
        config = self.config
        x = dense(config, config.hidden_size, self.dtype, "dense")(hidden)
        x = ACTIVATIONS[config.hidden_act](x)
        return dense(config, 1, at_least_float32(self.dtype), "dense_prediction")(x)[..., 0]


class GeneratorParts(nn.Module):
    """What a generator does not share with its discriminator: its masked-LM head, maybe layers.

    Its layers are plain ones in `dtype`: they are narrow, so fused layers and float8 may not
    support them even if they support the discriminator's.
    """

    config: AlbertConfig  # the generator's own sizes
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()
    has_layers: bool = False

    def setup(self) -> None:
        if self.has_layers:
            plain = dataclasses.replace(self.execution, fused=False, matmuls=Matmuls.SAME)
            self.encoder = AlbertEncoder(self.config, self.dtype, plain)
        self.predictions = MaskedLMHead(self.config, self.dtype)
