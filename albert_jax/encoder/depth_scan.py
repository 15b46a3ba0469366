"""The scan over the depth: one compiled body for all layers, or for all periods of a few layers.

If layers differ in more than their parameters, such as in the reach of their attention, a period of
layers is compiled as one body and the scan runs over periods. A kernel's masks are fixed when it is
compiled, so a body that chose between two masks at run time would contain both kernels anyway.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from albert_jax.encoder.execution import Execution, rematerialize

# (number of a layer in its period, hidden states, the layer's slice of `xs`) -> hidden states, and
# what is kept of each layer
ApplyLayer = Callable[[int, Array, Any], tuple[Array, Any]]


def scan_layers(
    apply_layer: ApplyLayer,
    hidden: Array,
    xs: Any,
    *,
    layers: int,
    period: int,
    execution: Execution,
) -> tuple[Array, Any]:
    """Apply all layers, one after another.

    Example: 8 layers with a period of 3 are a scan over two periods, followed by two layers.

    Args:
        apply_layer: see `ApplyLayer`.
        hidden: input of the first layer.
        xs: arrays ``[layers, ...]``, one slice per layer.
        layers: number of layers.
        period: number of layers after which the pattern of layers repeats.
        execution: says how each layer is rematerialized, and how many layers are unrolled.

    Returns:
        The output of the last layer, and what is kept of each layer, ``[layers, ...]``.
    """

    def body(number: int, *, in_loop: bool) -> Callable[[Array, Any], tuple[Array, Any]]:
        return rematerialize(
            functools.partial(apply_layer, number), execution.remat, in_loop=in_loop
        )

    if period == 1:
        unroll = min(execution.unroll, layers)
        one = body(0, in_loop=_is_loop(layers, unroll))
        return jax.lax.scan(one, hidden, xs, length=layers, unroll=unroll)
    period = min(period, layers)
    unroll = max(1, execution.unroll // period)
    in_loop = _is_loop(layers // period, unroll)

    def apply_period(hidden: Array, xs: Any) -> tuple[Array, Any]:
        kept = []
        for number in range(period):
            x = jax.tree.map(lambda leaf, number=number: leaf[number], xs)
            hidden, output = body(number, in_loop=in_loop)(hidden, x)
            kept.append(output)
        return hidden, jax.tree.map(lambda *leaves: jnp.stack(leaves), *kept)

    whole = layers // period * period
    by_period = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, period, *leaf.shape[1:]), xs)
    hidden, kept = jax.lax.scan(
        apply_period,
        hidden,
        by_period,
        length=layers // period,
        unroll=unroll,
    )
    kept = [jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), kept)]
    for layer in range(whole, layers):
        x = jax.tree.map(lambda leaf, layer=layer: leaf[layer], xs)
        hidden, output = body(layer - whole, in_loop=False)(hidden, x)
        kept.append(jax.tree.map(lambda leaf: leaf[None], output))
    return hidden, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *kept)


def _is_loop(length: int, unroll: int) -> bool:
    """Return True if a scan is compiled as a loop only.

    Layers that are left over are compiled after the loop, and XLA replaces a loop of one iteration
    by its body.
    """
    return length % unroll == 0 and length // unroll > 1
