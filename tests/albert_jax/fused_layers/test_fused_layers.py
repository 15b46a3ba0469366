"""Fused layers, interpreted, against plain layers: values, gradients, and whole models."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.typing import DTypeLike
from random_inputs import random_batch

from albert_jax import AlbertForPreTraining
from albert_jax.config import AlbertConfig, HiddenAct, Norm, PositionEncoding
from albert_jax.encoder import Execution, Remat
from albert_jax.fused_layers import layer_norm as fused_norm
from albert_jax.fused_layers.gelu import gelu_backward, gelu_dense
from albert_jax.fused_layers.layer_norm import add_and_norm
from albert_jax.layers import gelu, layer_norm
from albert_jax.matmuls import matmul
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.train_step import make_gradient_fn

CONFIG = AlbertConfig(
    vocab_size=96,
    embedding_size=8,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    max_position_embeddings=64,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
EPSILON = 1e-12
PRECISIONS = [(jnp.float32, 1e-6), (jnp.bfloat16, 6e-3)]
# Compile as runs do: compiled as in tests, a gradient is 3e-6 from the exact one.
AS_IN_RUNS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}


def random_arrays(*shapes: tuple[int, ...]) -> list[Array]:
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def results(
    function: Callable[..., Array], operands: Sequence[Array], cotangent: Array
) -> list[Array]:
    forward = jax.jit(lambda *x: jax.vjp(function, *x), compiler_options=AS_IN_RUNS)
    backward = jax.jit(lambda pullback, x: pullback(x), compiler_options=AS_IN_RUNS)
    value, pullback = forward(*operands)
    return [value, *backward(pullback, cotangent)]


def assert_close(ours: list[Array], expected: list[Array], tolerance: float) -> None:
    for one, other in zip(ours, expected, strict=True):
        error = np.linalg.norm(np.subtract(one, other, dtype=np.float64))
        assert error <= tolerance * np.linalg.norm(np.asarray(other, np.float64))


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("shape", [(3, 64), (2, 7), (5,)])  # blocks of rows, some, and single ones
@pytest.mark.parametrize("features", [24, 256])
def test_layer_norm_of_a_sum(
    dtype: DTypeLike, tolerance: float, shape: tuple[int, ...], features: int
) -> None:
    vector, vectors = (features,), (*shape, features)
    *operands, cotangent = random_arrays(vectors, vectors, *[vector] * 3, vectors)
    scale, shift = operands[3] / 4 + 1, operands[4]
    rounded = [x.astype(dtype) for x in operands[:3]]
    cotangent = cotangent.astype(dtype)

    def fused(*x: Array) -> Array:
        return add_and_norm(*x, EPSILON, dtype)

    def plain(residual: Array, projected: Array, bias: Array, scale: Array, shift: Array) -> Array:
        return layer_norm(residual + projected + bias, scale, shift, EPSILON, jnp.float32)

    ours = results(fused, [*rounded, scale, shift], cotangent)
    exact = [x.astype(jnp.float32) for x in rounded]
    expected = results(plain, [*exact, scale, shift], cotangent.astype(jnp.float32))
    assert_close(ours, expected, tolerance)
    # Without a gradient no kernel runs, and the value is the same.
    assert_close([fused(*rounded, scale, shift)], ours[:1], 2 * tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize(("rows", "features"), [(256, 256), (9, 24)])
def test_gelu_of_a_dense_layer(
    dtype: DTypeLike, tolerance: float, rows: int, features: int
) -> None:
    shapes = (2, rows, 8), (8, features), (features,), (2, rows, features)
    *operands, cotangent = (x.astype(dtype) for x in random_arrays(*shapes))

    def plain(x: Array, kernel: Array, bias: Array) -> Array:
        return gelu(matmul(x, kernel) + bias)

    exact = [x.astype(jnp.float32) for x in operands]
    expected = results(plain, exact, cotangent.astype(jnp.float32))
    assert_close(results(gelu_dense, operands, cotangent), expected, tolerance)


def test_the_gradient_of_gelu_is_finite_everywhere() -> None:
    x = jnp.array([-1e15, -1e3, -100.0, -1.0, 0.0, 1.0, 100.0, 1e3, 1e15])[:, None]
    of_x, _ = gelu_backward(x, jnp.ones_like(x))
    derivative = jax.vmap(jax.grad(lambda y: jax.nn.gelu(y, approximate=True)))
    np.testing.assert_allclose(of_x[:, 0], derivative(jnp.clip(x[:, 0], -90, 90)), atol=1e-6)


def gradients(config: AlbertConfig, execution: Execution) -> tuple[Any, float]:
    """Gradients and loss on packed, padded and empty rows."""
    model = AlbertForPreTraining(config, execution=execution)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    params = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params
    )
    batch = random_batch(config, [[9, 7], [5], []], 16, np.random.default_rng(0))
    objective = pretraining_objective(model)
    gradient_fn = make_gradient_fn(objective.loss_fn, objective.weight_fn, row_axes=())
    grads, metrics = jax.jit(gradient_fn)(params, batch, jax.random.key(1))
    return grads, float(metrics["masked_lm_loss"].sum)


@pytest.mark.parametrize(
    ("changes", "remat"),
    [
        ({}, Remat.NONE),
        ({"norm": Norm.PRE}, Remat.DOTS),
        ({"position_encoding": PositionEncoding.ROTARY, "dense_biases": False}, Remat.NONE),
        *(
            pytest.param(changes, remat, marks=pytest.mark.slow)
            for changes, remat in [
                ({}, Remat.DOTS),
                ({}, Remat.FULL),
                ({"hidden_act": HiddenAct.RELU}, Remat.NONE),
                ({"num_experts": 3, "expert_rank": 2, "expert_layers": "2"}, Remat.DOTS),
                ({"hidden_dropout_prob": 0.1}, Remat.NONE),
                ({"attention_probs_dropout_prob": 0.1}, Remat.NONE),
                ({"position_encoding": PositionEncoding.RELATIVE_LOCAL}, Remat.NONE),
            ]
        ),
    ],
)
def test_gradients_of_a_model_are_those_of_plain_layers(
    changes: dict[str, Any], remat: Remat
) -> None:
    """A half of a layer that the kernels cannot compute is computed by plain operations."""
    config = dataclasses.replace(CONFIG, **changes)
    expected, loss = gradients(config, Execution(remat=remat))
    grads, fused_loss = gradients(config, Execution(remat=remat, fused=True))
    assert fused_loss == pytest.approx(loss, rel=1e-6)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5),
        grads,
        expected,
    )


def test_a_model_with_fused_layers_has_the_same_parameters() -> None:
    plain, fused = (
        AlbertForPreTraining(CONFIG, execution=Execution(fused=fused)).init(
            jax.random.key(0), jnp.zeros((1, 1), jnp.int32)
        )
        for fused in (False, True)
    )
    jax.tree.map(np.testing.assert_array_equal, fused, plain)


def test_no_program_reads_or_writes_outside_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter moves a block outside its array into it; a GPU takes whatever is there. Only
    features may exceed the end, since they are masked."""
    programs = []
    real = fused_norm.pallas.pallas_call

    def spy(kernel: Any, **specs: Any) -> Any:
        def call(*operands: Array) -> Any:
            arrays = [*operands, *specs["out_shape"]]
            blocks = [*specs["in_specs"], *specs["out_specs"]]
            for spec, array in zip(blocks, arrays, strict=True):
                for program in np.ndindex(*specs["grid"]):
                    programs.append(program)
                    index = spec.index_map(*program)
                    for at, size, axis in zip(index, spec.block_shape, array.shape, strict=True):
                        assert at * (size or 1) < axis
                        assert (at + 1) * (size or 1) <= axis or at == 0
            return real(kernel, **specs)(*operands)

        return call

    monkeypatch.setattr(fused_norm.pallas, "pallas_call", spy)
    x, cotangent, kernel, bias = random_arrays((4, 128, 24), (4, 128, 24), (24, 256), (256,))
    vector = jnp.ones((24,))
    _, pullback = jax.vjp(
        lambda *y: add_and_norm(*y, EPSILON, jnp.float32), x, x, vector, vector, vector
    )
    pullback(cotangent)
    wide, pullback = jax.vjp(gelu_dense, x, kernel, bias)
    pullback(wide)
    assert max(programs) > (0,)
