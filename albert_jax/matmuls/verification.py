"""Verification of matmuls in float8 on the device at hand: their errors, and their being float8."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from albert_jax.config import AlbertConfig
from albert_jax.matmuls.dense_matmul import Matmuls, before_activation, matmul

CALL = '"__cublas$lt$matmul$f8"'  # the name in compiled programs for GPUs

_ROWS, _SEED, _TOLERANCE = 256, 0, 0.15
_PRODUCTS = 6  # two forward, two for each gradient


def check_float8(
    config: AlbertConfig,
    dtype: DTypeLike,
    device: jax.Device,
    compiler_options: Mapping[str, Any],
) -> float:
    """Return the largest relative error of a model's matmuls in float8, and of their gradients.

    It is measured on the device against float32, for a matmul from hidden to intermediate size,
    GELU, and a matmul back.

    Args:
        config: sizes of the model.
        dtype: dtype of results.
        device: the device that multiplies.
        compiler_options: XLA's options for the training step.

    Raises:
        ValueError: it is too large, or XLA does not compile all matmuls to matmuls in float8.
    """
    sizes = config.hidden_size, config.feed_forward_width
    keys = jax.random.split(jax.random.key(_SEED), 4)
    shapes = (_ROWS, sizes[0]), sizes, sizes[::-1], (_ROWS, sizes[0])
    with jax.default_device(device):
        normal = [jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]
        arrays = [x.astype(dtype) for x in (normal[0], *(y / len(y) ** 0.5 for y in normal[1:]))]
        options = dict(compiler_options)
        float8 = jax.jit(_forward_and_backward(Matmuls.FLOAT8), compiler_options=options)
        try:
            compiled = float8.lower(*arrays).compile()
            ours = jax.device_get(compiled(*arrays))
        except RuntimeError as failure:
            line = str(failure).partition("\n")[0]
            raise ValueError(f"float8 fails on this device: {line}") from failure
        with jax.default_matmul_precision("float32"):
            exact = jax.jit(_forward_and_backward(Matmuls.SAME))
            expected = jax.device_get(exact(*(x.astype(jnp.float32) for x in arrays)))
    if device.platform != "cpu":
        check_calls(compiled.as_text() or "")
    error = relative_error(ours, expected)
    if not error <= _TOLERANCE:
        raise ValueError(f"float8 is {error:.1g} off float32 on this device, {_TOLERANCE} allowed")
    return error


def check_calls(program: str) -> None:
    """Check that a compiled program multiplies in float8, rather than only rounding to float8.

    Raises:
        ValueError: it does not, or not everywhere.
    """
    found = program.count(CALL)
    if found != _PRODUCTS:
        raise ValueError(f"XLA makes {found} of {_PRODUCTS} matmuls ones in float8 on this device")


def _forward_and_backward(matmuls: Matmuls) -> Callable[..., tuple[Array, ...]]:
    def layers(x: Array, widening: Array, narrowing: Array) -> Array:
        wide = before_activation(matmul(x, widening, matmuls), matmuls)
        return matmul(jax.nn.gelu(wide), narrowing, matmuls)

    def run(*arrays: Array) -> tuple[Array, ...]:
        *operands, cotangent = arrays
        value, pullback = jax.vjp(layers, *operands)
        return value, *pullback(cotangent)

    return run


def relative_error(ours: Sequence[Any], expected: Sequence[Any]) -> float:
    """Return the largest relative difference of arrays in the Euclidean norm; NaN if there is one.

    Args:
        ours: arrays.
        expected: the arrays that they should be equal to.
    """
    differences = [
        np.linalg.norm(np.subtract(a, e, dtype=np.float64)) / np.linalg.norm(e)
        for a, e in zip(ours, expected, strict=True)
    ]
    return float(np.max(differences))
