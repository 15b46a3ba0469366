"""Matmul, GELU and layer norm: values, custom backward passes, and their residuals."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from albert_jax.layers import gelu, layer_norm
from albert_jax.matmuls import matmul

EPSILON = 1e-12
ROWS, FEATURES = 5, 24


def plain_gelu(x: Array) -> Array:
    return 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def norm(x: Array, scale: Array, bias: Array) -> Array:
    return layer_norm(x, scale, bias, EPSILON, x.dtype)


def plain_norm(x: Array, scale: Array, bias: Array) -> Array:
    variance = jnp.mean((x - x.mean(-1, keepdims=True)) ** 2, -1, keepdims=True)
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(variance + EPSILON) * scale + bias


def multiply(x: Array, kernel: Array) -> Array:
    return matmul(x, kernel.astype(x.dtype))


def inputs(*shapes: tuple[int, ...]) -> list[Array]:
    """Normal numbers with few enough digits for bfloat16."""
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [
        jnp.round(24 * jax.random.normal(key, shape)) / 8
        for key, shape in zip(keys, shapes, strict=True)
    ]


@pytest.mark.parametrize(
    ("ours", "plain", "operands"),
    [
        (gelu, plain_gelu, inputs((ROWS, FEATURES))),
        (norm, plain_norm, inputs((2, ROWS, FEATURES), (FEATURES,), (FEATURES,))),
        (multiply, jnp.matmul, inputs((2, ROWS, FEATURES), (FEATURES, 7))),
    ],
    ids=["gelu", "layer norm", "matmul"],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=str)
def test_values_and_gradients_are_those_of_the_definition(
    ours: Callable[..., Array],
    plain: Callable[..., Array],
    operands: list[Array],
    dtype: jnp.dtype,
) -> None:
    """In bfloat16 parameters and their gradients stay float32, and only ends are rounded."""
    operands = [operands[0].astype(dtype), *operands[1:]]
    exact = [operand.astype(jnp.float32) for operand in operands]
    value, pullback = jax.vjp(ours, *operands)
    (cotangent,) = inputs(value.shape)
    cotangent = cotangent.astype(dtype)
    expected, exact_pullback = jax.vjp(plain, *exact)
    assert value.dtype == dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-8
    for result, wanted, operand in zip(
        (value, *pullback(cotangent)),
        (expected, *exact_pullback(cotangent.astype(jnp.float32))),
        (operands[0], *operands),
        strict=True,
    ):
        assert result.dtype == operand.dtype
        np.testing.assert_allclose(
            result.astype(jnp.float32), wanted, rtol=tolerance, atol=tolerance * 3
        )


def test_the_backward_passes_keep_no_second_array_as_large_as_the_input() -> None:
    x, scale, bias = inputs((ROWS, FEATURES), (FEATURES,), (FEATURES,))

    def kept(function: Callable[..., Array], *operands: Array) -> list[int]:
        return sorted(leaf.size for leaf in jax.tree.leaves(jax.vjp(function, *operands)[1]))

    assert kept(gelu, x) == [x.size]
    assert kept(norm, x, scale, bias) == [ROWS, ROWS, FEATURES, x.size]
    assert sum(kept(plain_gelu, x)) > x.size, "which it would keep otherwise"


def test_layer_norm_keeps_a_variance_that_is_small_beside_the_mean() -> None:
    row = 1000 + jnp.arange(FEATURES, dtype=jnp.float32) / 64
    normed = norm(row[None], jnp.ones(FEATURES), jnp.zeros(FEATURES))
    expected = (np.arange(FEATURES) - 11.5) / np.std(np.arange(FEATURES))
    np.testing.assert_allclose(normed[0], expected, rtol=1e-5)
