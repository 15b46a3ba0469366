"""Models whose layers multiply in float8: gradients, rematerialization, fused layers, devices."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from rounded_models import (
    LAYER_MATMULS,
    SHARED,
    cosine,
    equations,
    gradient_fn,
    gradients,
    parameters,
)
from spread_steps import LENGTH, compiled_step, initial_state, make_batch

from albert_jax import AlbertForPreTraining
from albert_jax.config import AlbertConfig, ParameterSharing
from albert_jax.devices.sharding import place_batch, state_shardings
from albert_jax.encoder import Execution, Remat
from albert_jax.matmuls import Matmuls
from albert_jax.training.parallel import Parallelism

UNSHARED = dataclasses.replace(SHARED, parameter_sharing=ParameterSharing.NONE)


@pytest.mark.parametrize(
    ("config", "execution", "dtype"),
    [
        (SHARED, Execution(), jnp.bfloat16),
        *(
            pytest.param(config, execution, jnp.bfloat16, marks=pytest.mark.slow)
            for config, execution in [
                (UNSHARED, Execution()),
                (UNSHARED, Execution(remat=Remat.DOTS, unroll=2)),
                (SHARED, Execution(remat=Remat.FULL)),
                (SHARED, Execution(fused=True)),
                (dataclasses.replace(SHARED, num_hidden_groups=2), Execution(fused=True)),
            ]
        ),
    ],
)
def test_gradients_point_where_those_in_float32_do(
    config: AlbertConfig, execution: Execution, dtype: Any
) -> None:
    exact = gradients(config, Execution())
    float8 = dataclasses.replace(execution, matmuls=Matmuls.FLOAT8)
    ours = gradients(config, float8, dtype)
    assert 0.98 < cosine(ours, exact) < 0.9999, "near, and of fewer bits than bfloat16"


def matmuls_of(execution: Execution) -> list[bool]:
    """For each matmul of the traced program, True if it is one that float8 is for."""
    shapes = jax.eval_shape(lambda: (parameters(SHARED), make_batch(0)))
    function = gradient_fn(SHARED, execution, jnp.bfloat16)
    traced = jax.make_jaxpr(function)(*shapes, jax.random.key(0))
    return [
        "HIGHEST" in str(equation.params["precision"])
        for equation in equations(traced)
        if equation.primitive.name == "dot_general"
    ]


def test_the_layers_own_matmuls_alone_are_in_float8() -> None:
    """The loop over layers and the last layer are each traced once forward and once backward."""
    kinds = Matmuls.SAME, Matmuls.FLOAT8
    plain, float8 = (matmuls_of(Execution(matmuls=matmuls)) for matmuls in kinds)
    assert len(float8) == len(plain)
    assert sum(float8) == 2 * 3 * LAYER_MATMULS
    assert not any(plain)


def test_remat_keeps_the_results_of_matmuls_in_float8() -> None:
    attention, traced = 2, 2  # the loop over layers, and the last one
    none, dots, full = (
        len(matmuls_of(Execution(remat, matmuls=Matmuls.FLOAT8)))
        for remat in (Remat.NONE, Remat.DOTS, Remat.FULL)
    )
    assert dots == none + traced * attention
    assert full == none + traced * (attention + LAYER_MATMULS)


def update(**spread: Any) -> np.ndarray:
    """The change of the parameters in two LAMB steps, of which the first has no learning rate."""
    step, mesh = compiled_step(**spread)
    state = jax.device_put(initial_state(), state_shardings(initial_state(), mesh))
    before = ravel_pytree(initial_state().params)[0]
    for _ in range(2):
        state, _ = step(state, place_batch(make_batch(0), mesh), jax.random.key(1))
    return np.asarray(ravel_pytree(jax.device_get(state).params)[0] - before, np.float64)


FLOAT8 = Execution(matmuls=Matmuls.FLOAT8)


@pytest.mark.parametrize(
    "spread",
    [
        {"fsdp": 2, "tensor": 2, "accumulation_steps": 2},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"fsdp": 2}, marks=pytest.mark.slow),
        pytest.param({"devices": 2, "tensor": 2}, marks=pytest.mark.slow),
        pytest.param(
            {"devices": 4, "parallelism": Parallelism.PMAP, "accumulation_steps": 2},
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_devices_and_micro_batches_change_what_scales_change_alone(spread: dict[str, Any]) -> None:
    """Each device has scales for its own rows, whose effect is far below that of 8 bits."""
    one = update(devices=1, execution=FLOAT8)
    several = update(execution=FLOAT8, **spread)
    assert cosine(several, one) > 0.999 > cosine(one, update(devices=1))


def test_parameters_are_those_of_any_other_run() -> None:
    ids = jnp.zeros((1, LENGTH), jnp.int32)
    plain, float8 = (
        jax.eval_shape(
            AlbertForPreTraining(SHARED, execution=execution).init, jax.random.key(0), ids
        )
        for execution in (Execution(), FLOAT8)
    )
    assert plain == float8
