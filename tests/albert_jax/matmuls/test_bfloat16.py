"""Matmuls rounded to bfloat16 against float32: values, gradients, models, and how CPUs compile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rounded_models import (
    LAYER_MATMULS,
    SHARED,
    cosine,
    equations,
    gradient_fn,
    gradients,
    parameters,
)
from spread_steps import make_batch

from albert_jax.encoder import Execution, Remat
from albert_jax.matmuls import Matmuls, matmul


def value_and_gradients(*operands: jax.Array) -> tuple[jax.Array, ...]:
    *factors, cotangent = operands
    value, pullback = jax.vjp(lambda *y: matmul(*y, Matmuls.BFLOAT16), *factors)
    return value, *pullback(cotangent)


def rounded(x: jax.Array) -> np.ndarray:
    return np.asarray(x.astype(jnp.bfloat16), np.float64)


@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize(
    ("batch", "inputs", "features"),
    [((2, 24), 64, 32), ((1,), 1, 1), ((3,), 7, 300), ((2, 5), 300, 2), ((130,), 48, 256)],
)
def test_a_product_and_its_gradients_are_float32_sums_of_rounded_operands(
    batch: tuple[int, ...], inputs: int, features: int, is_compiled: bool
) -> None:
    """This includes single rows and columns, for which compilers take other paths."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (*batch, inputs), (inputs, features), (*batch, features)
    operands = [jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]
    run = jax.jit(value_and_gradients) if is_compiled else value_and_gradients
    ours = run(*operands)
    x, kernel, cotangent = map(rounded, operands)
    vectors, cotangents = x.reshape(-1, inputs), cotangent.reshape(-1, features)
    expected = x @ kernel, cotangent @ kernel.T, vectors.T @ cotangents
    for result, wanted in zip(ours, expected, strict=True):
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "execution",
    [
        Execution(matmuls=Matmuls.BFLOAT16),
        pytest.param(Execution(Remat.DOTS, matmuls=Matmuls.BFLOAT16), marks=pytest.mark.slow),
        pytest.param(Execution(fused=True, matmuls=Matmuls.BFLOAT16), marks=pytest.mark.slow),
    ],
    ids=["plain", "remat", "fused"],
)
def test_gradients_of_a_model_are_near_those_in_float32(execution: Execution) -> None:
    exact, ours = gradients(SHARED, Execution()), gradients(SHARED, execution)
    assert 1 - 1e-3 < cosine(ours, exact) < 1 - 1e-7, "of fewer bits, and of enough"


def test_the_layers_own_matmuls_alone_are_rounded() -> None:
    """The loop over layers and the last layer are each traced once forward and once backward."""
    shapes = jax.eval_shape(lambda: (parameters(SHARED), make_batch(0)))
    function = gradient_fn(SHARED, Execution(matmuls=Matmuls.BFLOAT16))
    operands = [
        {operand.aval.dtype for operand in equation.invars}
        for equation in equations(jax.make_jaxpr(function)(*shapes, jax.random.key(0)))
        if equation.primitive.name == "dot_general"
    ]
    assert operands.count({jnp.dtype(jnp.bfloat16)}) == 2 * 3 * LAYER_MATMULS
    assert len(operands) > 2 * 3 * LAYER_MATMULS


@pytest.mark.parametrize(("platform", "count"), [("cpu", 1), ("cuda", 0), ("tpu", 0)])
def test_a_transpose_is_laid_out_by_rows_on_cpus_alone(platform: str, count: int) -> None:
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 4), (4, 2), (8, 2))]
    traced = jax.jit(value_and_gradients).trace(*shapes)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert program.count("LayoutConstraint") == count


def test_beside_bfloat16_nothing_changes() -> None:
    x, kernel = (jnp.full(shape, 1.01, jnp.bfloat16) for shape in ((3, 8), (8, 5)))
    same, half = (matmul(x, kernel, kind) for kind in (Matmuls.SAME, Matmuls.BFLOAT16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, same)
