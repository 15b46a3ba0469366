"""Matmuls in float8 against float64: values, gradients, ranges, and what is not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike

from albert_jax.matmuls import Matmuls, matmul
from albert_jax.matmuls.float8 import E4M3, E5M2, Float8, dequantize, quantize

ROWS, INPUTS, FEATURES = 48, 64, 32
# Of each format: largest number, half of the last bit beside the first, half of the smallest step.
FORMATS = {E4M3: (448.0, 2**-4, 2**-10), E5M2: (57344.0, 2**-3, 2**-17)}


def spread(rng: np.random.Generator, *shape: int, magnitude: float = 1.0) -> np.ndarray:
    """Numbers of many sizes, most of them small compared with the largest."""
    return magnitude * rng.normal(size=shape) * np.exp(2 * rng.normal(size=shape))


def rounded(x: np.ndarray, dtype: Any) -> np.ndarray:
    """NumPy's rounding to the format, scaled by the largest power of two that fits."""
    scale = 2.0 ** np.floor(np.log2(FORMATS[dtype][0] / np.abs(x).max()))
    return (x * scale).astype(dtype).astype(np.float64) / scale


def largest_errors(x: np.ndarray, dtype: Any) -> np.ndarray:
    """The bound on each number's error, from the format's definition alone."""
    largest, relative, absolute = FORMATS[dtype]
    return np.maximum(relative * np.abs(x), absolute * 2 * np.abs(x).max() / largest)


def product_and_gradients(
    x: np.ndarray, kernel: np.ndarray, cotangent: np.ndarray
) -> list[np.ndarray]:
    return [x @ kernel, cotangent @ kernel.T, x.T @ cotangent]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("magnitudes", [(1.0, 1.0, 1.0), (1e4, 1e-6, 1e-9), (1e-12, 1e15, 1e12)])
def test_a_product_and_its_gradients_are_those_of_rounded_operands(
    dtype: DTypeLike, magnitudes: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(0)
    shapes = (ROWS, INPUTS), (INPUTS, FEATURES), (ROWS, FEATURES)
    arrays = [
        jnp.asarray(spread(rng, *shape, magnitude=magnitude), dtype)
        for shape, magnitude in zip(shapes, magnitudes, strict=True)
    ]

    @jax.jit
    def run(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
        rows = x.reshape(2, -1, INPUTS)  # a batch of rows, as in a layer
        value, pullback = jax.vjp(lambda *y: matmul(*y, Matmuls.FLOAT8), rows, kernel)
        of_x, of_kernel = pullback(cotangent.reshape(2, -1, FEATURES))
        return value.reshape(-1, FEATURES), of_x.reshape(-1, INPUTS), of_kernel

    ours = run(*arrays)
    assert {result.dtype for result in ours} == {jnp.dtype(dtype)}
    exact = [np.asarray(array, np.float64) for array in arrays]
    formats = E4M3, E4M3, E5M2
    expected = product_and_gradients(*map(rounded, exact, formats))
    true = product_and_gradients(*exact)
    sizes = [np.abs(array) for array in exact]
    # The largest error of a product that errors of the operands can cause.
    grown = [size + largest_errors(x, f) for size, x, f in zip(sizes, exact, formats, strict=True)]
    bounds = [
        most - size
        for most, size in zip(
            product_and_gradients(*grown), product_and_gradients(*sizes), strict=True
        )
    ]
    last_bit = 2**-8 if dtype == jnp.bfloat16 else 2**-20
    for result, same, wanted, bound in zip(ours, expected, true, bounds, strict=True):
        result = np.asarray(result, np.float64)
        np.testing.assert_allclose(result, same, rtol=last_bit, atol=1e-6 * np.abs(same).max())
        error = np.abs(result - wanted)
        assert (error <= bound + last_bit * np.abs(wanted)).all()
        assert error.max() > 1e-3 * np.abs(wanted).max(), "rounded to 8 bits at all"


@pytest.mark.parametrize("float8", FORMATS, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32], ids=lambda dtype: dtype.__name__)
def test_numbers_fit_and_are_exact_in_the_type_of_the_layer(
    dtype: DTypeLike, float8: DTypeLike
) -> None:
    """The largest numbers of each binade, just below and above where the scale changes."""
    largest = FORMATS[float8][0]
    top = np.nextafter(np.float32(2), np.float32(0))
    for magnitude in (1.0, 1.75, 1.7578125, top, 2.0, largest, 1e-30, 3e38, 1e-38):
        x = jnp.asarray([[magnitude, -magnitude / 3, magnitude / 1000, 0]], dtype)
        tensor = jax.jit(quantize, static_argnums=1)(x, float8)
        values = np.asarray(tensor.values, np.float64)
        assert tensor.values.dtype == float8
        assert np.isfinite(values).all()
        scale = float(tensor.scale)
        assert np.frexp(scale)[0] == 0.5, "a power of two"
        assert (largest / 2 <= np.abs(values).max() <= largest) or scale == 2**-126
        restored = np.asarray(dequantize(tensor, dtype), np.float64)
        np.testing.assert_array_equal(restored, values * scale)
        error = np.abs(restored - np.asarray(x, np.float64))
        assert (error <= largest_errors(np.asarray(x, np.float64), float8) + 2**-126).all()


def results(x: Any, kernel: Any, cotangent: Any) -> list[np.ndarray]:
    value, pullback = jax.vjp(lambda *y: matmul(*y, Matmuls.FLOAT8), x, kernel)
    return [np.asarray(y, np.float64) for y in (value, *pullback(cotangent))]


def test_zeros_give_zeros() -> None:
    zeros, ones = jnp.zeros((16, 16)), jnp.ones((16, 16))
    for operands in ((zeros, ones, ones), (ones, zeros, ones), (ones, ones, zeros), (zeros,) * 3):
        value, of_x, of_kernel = results(*operands)
        x, kernel, cotangent = (np.asarray(operand) for operand in operands)
        np.testing.assert_array_equal(value, x @ kernel)
        np.testing.assert_array_equal(of_x, cotangent @ kernel.T)
        np.testing.assert_array_equal(of_kernel, x.T @ cotangent)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("operand", [0, 1, 2])
def test_what_is_not_finite_makes_no_finite_number(operand: int, bad: float) -> None:
    """The step that contains it must be recognized as not finite."""
    operands = [jnp.ones((16, 16)) for _ in range(3)]
    operands[operand] = operands[operand].at[3, 5].set(bad)
    touched = {0: (0, 2), 1: (0, 1), 2: (1, 2)}[operand]
    for number, result in enumerate(results(*operands)):
        assert np.isfinite(result).all() == (number not in touched)


def test_a_tensor_of_docstring() -> None:
    tensor = quantize(jnp.array([1000, 3.3, 0]), E4M3)
    assert isinstance(tensor, Float8)
    assert float(tensor.scale) == 4
    assert tensor.values.tolist() == [256, 0.8125, 0]
