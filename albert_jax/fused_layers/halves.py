"""The parts of a layer's halves that are fused where the model allows it, and plain elsewhere."""

from flax import linen as nn
from jax import Array
from jaxtyping import Float

from albert_jax.config import HiddenAct, Norm
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


def project_and_add(
    hidden: Float[Array, "batch length hidden"],
    inputs: Float[Array, "batch length inputs"],
    output: Dense,
    norm: LayerNorm,
    *,
    fused: bool,
    deterministic: bool,
) -> Float[Array, "batch length hidden"]:
    """End a half: project, drop, add; normalize where that comes after."""
    config = output.config
    drops = not deterministic and config.hidden_dropout_prob > 0
    if fused and config.norm is Norm.POST and not drops:
        kernel, bias = output.parameters(inputs.shape[-1])
        scale_and_bias = norm.parameters(config.hidden_size)
        projected = matmul(inputs, kernel, output.matmuls)
        return add_and_norm(hidden, projected, bias, *scale_and_bias, norm.epsilon, norm.dtype)
    projected = nn.Dropout(config.hidden_dropout_prob)(output(inputs), deterministic=deterministic)
    return hidden + projected if config.norm is Norm.PRE else norm(hidden + projected)
