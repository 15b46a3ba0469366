"""Routing of tokens to experts: the objective that balances their load, and metrics.

All are sums over the tokens of a batch, except padding, so they add up over devices and
micro-batches; the gradient of the balance is that of the global batch.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float32

from albert_jax.batch import PretrainingBatch
from albert_jax.config import AlbertConfig
from albert_jax.encoder.experts import ROUTING, Routing
from albert_jax.training.losses import Metrics, Ratio

BALANCE = "expert_balance"  # an objective, whose name keeps it out of the loss
# Optimizers scale a gradient by its own size, so any factor works; this one keeps the balance from
# affecting the norm by which gradients are clipped.
_FACTOR = 0.01


def routing_metrics(
    config: AlbertConfig, sown: Mapping[str, Any], batch: PretrainingBatch
) -> Metrics:
    """Compute `expert_balance`, `router_entropy` in nats, and `expert_load/{n}` from 1 on.

    A load is the fraction of choices that fell on an expert, over all layers that have it. Loads
    are balanced if they are equal. The entropy is at most the logarithm of the number of experts.

    Args:
        config: the model's configuration.
        sown: what the model sowed.
        batch: the batch.
    """
    routing: Routing = sown["intermediates"]["albert"]["encoder"][ROUTING][0]
    applications = sum(config.layers_with_experts) * config.inner_group_num
    valid = padding_weights(batch)
    tokens = valid.sum()
    routed = tokens * applications
    metrics = {
        BALANCE: Ratio(_FACTOR * (valid * routing.balance).sum(), tokens),
        "router_entropy": Ratio((valid * routing.entropy).sum(), routed),
    }
    choices = (valid[..., None] * routing.chosen).sum((0, 1))
    for number, count in enumerate(choices, 1):
        metrics[f"expert_load/{number}"] = Ratio(count, routed * config.experts_per_token)
    return metrics


def padding_weights(batch: PretrainingBatch) -> Float32[Array, "batch length"]:
    """Return 1 for a token, 0 for padding."""
    return (jnp.asarray(batch.sequence_ids) > 0).astype(jnp.float32)
