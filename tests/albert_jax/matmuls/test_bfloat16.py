"""Matmuls rounded to bfloat16 beside float32: values, gradients, models, and how CPUs compile."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from spread_steps import CONFIG, make_batch

from albert_jax import AlbertForPreTraining
from albert_jax.encoder import Execution, Remat
from albert_jax.matmuls import Matmuls, matmul
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.train_step import make_gradient_fn

LAYER_MATMULS = 6  # query, key, value, attention output, two of the feed-forward half


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
    """Also of one row or column, for which compilers take other paths."""
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


def gradient_fn(execution: Execution) -> Any:
    objective = pretraining_objective(AlbertForPreTraining(CONFIG, jnp.float32, execution))
    return make_gradient_fn(objective.loss_fn, objective.weight_fn, row_axes=())


@functools.cache
def gradients(execution: Execution) -> np.ndarray:
    parameters = AlbertForPreTraining(CONFIG).initialize(jax.random.key(0))
    grads, _ = jax.jit(gradient_fn(execution))(parameters, make_batch(0), jax.random.key(1))
    return np.asarray(ravel_pytree(grads)[0], np.float64)


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
    exact, ours = gradients(Execution()), gradients(execution)
    cosine = exact @ ours / np.linalg.norm(exact) / np.linalg.norm(ours)
    assert 1 - 1e-3 < cosine < 1 - 1e-7, "of fewer bits, and of enough"


def dots(jaxpr: Any) -> Iterator[Any]:
    """All products of a traced program, those of its loops and functions among them."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jax.tree.leaves(list(equation.params.values())):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from dots(getattr(inner, "jaxpr", inner))


def test_the_layers_own_matmuls_alone_are_rounded() -> None:
    """The loop over layers is traced once forward and once backward."""
    parameters = jax.eval_shape(AlbertForPreTraining(CONFIG).initialize, jax.random.key(0))
    function = gradient_fn(Execution(matmuls=Matmuls.BFLOAT16))
    traced = jax.make_jaxpr(function)(parameters, make_batch(0), jax.random.key(0))
    operands = [{v.aval.dtype for v in equation.invars} for equation in dots(traced.jaxpr)]
    assert operands.count({jnp.dtype(jnp.bfloat16)}) == 3 * LAYER_MATMULS
    assert len(operands) > 3 * LAYER_MATMULS


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
