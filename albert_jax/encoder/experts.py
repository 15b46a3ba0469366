"""A mixture of low-rank experts in the feed-forward layer (Nouriborji et al. 2025, "MoL").

A token x is multiplied by ``kernel + sum_i gate_i(x) down_i @ up_i``, which depends on the token
although the kernel is shared. The sum is over k experts, which a router chooses out of
`AlbertConfig.num_experts`, each of rank `AlbertConfig.expert_rank`. All kernels of the layer have
experts, with a single router. Router and experts belong to the feed-forward half and are shared
like it. ``up`` is initialized to zero, so that a model starts as the ALBERT without experts.

All experts are computed, as two ordinary matrix products, and the gates of those that were not
chosen are zero: at such low ranks, sorting tokens by expert costs more than it saves.

The load is balanced by a bias for each expert, which affects the choice but not the gate (Wang et
al. 2024). Its gradient is the load in excess of an equal share, whatever the gradient of the loss.
It is a sum over tokens, so it adds up over devices and micro-batches like every other gradient. The
usual auxiliary loss, a product of fractions, does not, and would also pull at the router.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from albert_jax.config import AlbertConfig
from albert_jax.layers import Dense, at_least_float32, initializer
from albert_jax.matmuls.dense_matmul import Matmuls, matmul

ROUTING = "routing"  # among the intermediates of the encoder
ROUTER, EXPERTS = "router", "experts"  # the router's name, and the suffix of experts' names


class Routing(NamedTuple):
    """What a router did with each token, summed over its applications."""

    chosen: Float[Array, "batch length experts"]  # 1 for each expert that a token went to
    balance: Float[Array, "batch length"]  # see `Router`
    entropy: Float[Array, "batch length"]  # of the probabilities, nats


class Router(nn.Module):
    """The choice of experts for each token, and their gates, in at least float32.

    The k experts with the highest sum of probability and bias are chosen; gates are the softmax of
    their scores, and add up to one. The balancing term is ``sum(bias * (chosen - k / E))``, whose
    gradient reaches only the bias.
    """

    config: AlbertConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length hidden"]
    ) -> tuple[Float[Array, "batch length experts"], Routing]:
        """Return the gates, which are zero for experts that were not chosen, and the routing."""
        experts, per_token = self.config.num_experts, self.config.experts_per_token
        inputs = x.shape[-1]
        kernel = self.param("kernel", initializer(self.config, inputs=inputs), (inputs, experts))
        bias = self.param("bias", nn.initializers.zeros, (experts,))
        x = x.astype(at_least_float32(x.dtype))
        scores = jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST)
        probabilities = jax.nn.softmax(scores)
        ranked = jax.lax.stop_gradient(probabilities + bias)
        _, best = jax.lax.top_k(ranked, per_token)
        chosen = jax.nn.one_hot(best, experts, dtype=scores.dtype).sum(-2)
        gates = jax.nn.softmax(jnp.where(chosen > 0, scores, -jnp.inf))
        balance = ((chosen - per_token / experts) * bias).sum(-1)
        entropy = -(probabilities * jax.nn.log_softmax(scores)).sum(-1)
        return gates, Routing(chosen, balance, entropy)


class LowRankExperts(nn.Module):
    """The sum over experts of ``gate x @ down @ up``."""

    config: AlbertConfig
    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch inputs"], gates: Float[Array, "*batch experts"]
    ) -> Float[Array, "*batch features"]:
        config, inputs, features = self.config, x.shape[-1], self.features
        experts, rank = config.num_experts, config.expert_rank
        initialize = initializer(config, inputs=inputs)
        down = self.param("down", initialize, (experts, inputs, rank))
        up = self.param("up", nn.initializers.zeros, (experts, rank, features))
        side_by_side = down.transpose(1, 0, 2).reshape(inputs, experts * rank)
        narrow = matmul(x.astype(self.dtype), side_by_side.astype(self.dtype))
        narrow = narrow.reshape(*gates.shape, rank) * gates[..., None].astype(self.dtype)
        narrow = narrow.reshape(*x.shape[:-1], experts * rank)
        return matmul(narrow, up.reshape(experts * rank, features).astype(self.dtype))


@dataclasses.dataclass(frozen=True)
class RoutedDense:
    """A dense layer plus experts, for tokens that have been routed."""

    dense: Dense
    experts: LowRankExperts
    gates: Float[Array, "batch length experts"]

    @property
    def config(self) -> AlbertConfig:
        """Configuration of the layer."""
        return self.dense.config

    @property
    def matmuls(self) -> Matmuls:
        """Type of the dense layer's operands; experts keep theirs."""
        return self.dense.matmuls

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch features"]:
        return self.dense(x) + self.experts(x, self.gates)
