"""The parts of a layer's halves that are fused if the model allows it, and plain otherwise.

Layers with experts are plain: the kernels support one matrix product before them, not two.
"""

from collections.abc import Callable

import jax
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from albert_jax.config import AlbertConfig, FeedForwardKind, HiddenAct, Norm, NormKind
from albert_jax.fused_layers.gelu import gelu_dense
from albert_jax.fused_layers.layer_norm import add_and_norm
from albert_jax.layers import ACTIVATIONS, GATES, AnyDense, Dense, LayerNorm, NormLayer, gelu
from albert_jax.matmuls.dense_matmul import before_activation, matmul


def widen(
    x: Float[Array, "batch length hidden"], dense: AnyDense, gate: AnyDense | None, *, fused: bool
) -> Float[Array, "batch length width"]:
    """Apply a dense layer and the activation, and multiply by the gate's layer if there is one."""
    if gate is not None:
        return _activate(x, dense, GATES[dense.config.feed_forward], fused=fused) * gate(x)
    return _activate(x, dense, ACTIVATIONS[dense.config.hidden_act], fused=fused)


def _activate(
    x: Array, dense: AnyDense, activation: Callable[[Array], Array], *, fused: bool
) -> Array:
    if fused and activation is gelu and isinstance(dense, Dense):
        return gelu_dense(x, *dense.parameters(x.shape[-1]), dense.matmuls)
    return activation(before_activation(dense(x), dense.matmuls))


def has_fused_gelu(config: AlbertConfig) -> bool:
    """Return True if the activation of the feed-forward layer is one that has a kernel."""
    if config.feed_forward.is_gated:
        return config.feed_forward is FeedForwardKind.GEGLU
    return config.hidden_act is HiddenAct.GELU


def has_fused_norm(config: AlbertConfig) -> bool:
    """Return True if halves end with a layer norm of the sum."""
    return config.norm is Norm.POST and config.norm_kind is NormKind.LAYER


def fuses_norm(config: AlbertConfig, *, fused: bool, deterministic: bool) -> bool:
    """Return True if the end of a half is one kernel: without dropout, with a norm of the sum."""
    drops = not deterministic and config.hidden_dropout_prob > 0
    return fused and has_fused_norm(config) and not drops


def project_and_add(
    hidden: Float[Array, "batch length hidden"],
    inputs: Float[Array, "batch length inputs"],
    output: AnyDense,
    norm: NormLayer,
    values: Dense | None = None,
    *,
    fused: bool,
    deterministic: bool,
) -> Float[Array, "batch length hidden"]:
    """End a half: project, drop, add; normalize after the sum, before it, or not at all.

    Args:
        hidden: the half's input, which bypasses it.
        inputs: inputs of the projection.
        output: the projection.
        norm: the half's norm, or the second of two.
        values: the layer of values, if attention's probabilities add up to one and the gradient of
            this layer's bias is to be taken here, which `fuses_norm` must allow.
        fused: see `Execution`.
        deterministic: no dropout.
    """
    config = output.config
    fused = fuses_norm(config, fused=fused, deterministic=deterministic)
    if fused and isinstance(norm, LayerNorm) and isinstance(output, Dense):
        kernel, bias = output.parameters(inputs.shape[-1])
        if values is not None:
            _, values_bias = values.parameters(hidden.shape[-1])
            bias += _zero_with_gradient(values_bias, jax.lax.stop_gradient(kernel))
        scale_and_bias = norm.parameters(config.hidden_size)
        projected = matmul(inputs, kernel, output.matmuls)
        return add_and_norm(hidden, projected, bias, *scale_and_bias, norm.epsilon, norm.dtype)
    projected = nn.Dropout(config.hidden_dropout_prob)(output(inputs), deterministic=deterministic)
    match config.norm:
        case Norm.POST:
            return norm(hidden + projected)
        case Norm.PRE:
            return hidden + projected
        case Norm.SANDWICH:
            return hidden + norm(projected)


def _zero_with_gradient(bias: Array, kernel: Array) -> Array:
    """Return zero with the gradient of the bias times the kernel.

    What all values have in common passes through attention unchanged, and through the projection as
    a constant. So the gradient of the values' bias is that of the projection's bias, which is
    computed anyway, times the kernel. Otherwise it would be a sum over all positions, one more pass
    over memory.
    """
    return (bias - jax.lax.stop_gradient(bias)) @ kernel
