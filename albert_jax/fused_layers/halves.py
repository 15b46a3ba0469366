"""The parts of a layer's halves that are fused where the model allows it, and plain elsewhere."""

import jax
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from albert_jax.config import AlbertConfig, HiddenAct, Norm
from albert_jax.fused_layers.gelu import gelu_dense
from albert_jax.fused_layers.layer_norm import add_and_norm
from albert_jax.layers import ACTIVATIONS, Dense, LayerNorm
from albert_jax.matmuls.dense_matmul import before_activation, matmul


def widen(
    x: Float[Array, "batch length hidden"], dense: Dense, *, fused: bool
) -> Float[Array, "batch length intermediate"]:
    """Apply a dense layer and the activation."""
    activation = dense.config.hidden_act
    if fused and activation is HiddenAct.GELU:
        return gelu_dense(x, *dense.parameters(x.shape[-1]), dense.matmuls)
    return ACTIVATIONS[activation](before_activation(dense(x), dense.matmuls))


def fuses_norm(config: AlbertConfig, *, fused: bool, deterministic: bool) -> bool:
    """Return True if the end of a half is one kernel: it must drop nothing, and then normalize."""
    drops = not deterministic and config.hidden_dropout_prob > 0
    return fused and config.norm is Norm.POST and not drops


def project_and_add(
    hidden: Float[Array, "batch length hidden"],
    inputs: Float[Array, "batch length inputs"],
    output: Dense,
    norm: LayerNorm,
    values: Dense | None = None,
    *,
    fused: bool,
    deterministic: bool,
) -> Float[Array, "batch length hidden"]:
    """End a half: project, drop, add; normalize where that comes after.

    Args:
        hidden: bypasses the half.
        inputs: of the projection.
        output: the projection.
        norm: the half's norm.
        values: of attention whose probabilities add up to one, if the gradient of their bias is to
            be taken here, which `fuses_norm` must allow.
        fused: see `Execution`.
        deterministic: False drops.
    """
    config = output.config
    if fuses_norm(config, fused=fused, deterministic=deterministic):
        kernel, bias = output.parameters(inputs.shape[-1])
        if values is not None:
            _, values_bias = values.parameters(hidden.shape[-1])
            bias += _zero_with_gradient(values_bias, jax.lax.stop_gradient(kernel))
        scale_and_bias = norm.parameters(config.hidden_size)
        projected = matmul(inputs, kernel, output.matmuls)
        return add_and_norm(hidden, projected, bias, *scale_and_bias, norm.epsilon, norm.dtype)
    projected = nn.Dropout(config.hidden_dropout_prob)(output(inputs), deterministic=deterministic)
    return hidden + projected if config.norm is Norm.PRE else norm(hidden + projected)


def _zero_with_gradient(bias: Array, kernel: Array) -> Array:
    """Return zero with the gradient of the bias times the kernel.

    What all values have in common passes through attention as it is, and through the projection as
    a constant: so the gradient of the values' bias is that of the projection's bias, which is known
    already, times the kernel. Otherwise it is a sum over all positions, one more pass over memory.
    """
    return (bias - jax.lax.stop_gradient(bias)) @ kernel
