"""The last layer at only the positions that are read: the same results, fewer operations."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from tiny_models import TINY, random_params

from albert_jax import AlbertConfig, AlbertForPreTraining, AlbertModel
from albert_jax.devices.flops import (
    prediction_flops_per_row,
    pretraining_flops_per_row,
    training_flops_per_row,
)
from albert_jax.encoder import Execution, Remat

LENGTH = 6
MASKED = np.array([[1, 4, 0], [3, 2, 0]])  # with a slot that is not in use
INPUTS: dict[str, np.ndarray] = {
    "input_ids": np.array([[5, 2, 8, 1, 10, 3], [7, 7, 4, 9, 0, 6]]),
    "token_type_ids": np.array([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]]),
}
PADDED = INPUTS | {"attention_mask": np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]])}
PACKED = INPUTS | {
    "sequence_ids": np.array([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]]),
    "position_ids": np.array([[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5]]),
    "sentence_order_positions": np.array([[0, 2], [0, 0]]),
}
NO_DROPOUT = dataclasses.replace(TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
EXPERTS = {"num_experts": 2, "expert_rank": 2}


def gradients(model: AlbertForPreTraining, params: Any, logits: Callable[[Any], Any]) -> Any:
    """Gradients of a sum that weights every logit differently, and the logits."""

    def loss(params: Any) -> tuple[Array, Any]:
        outputs = logits(params)
        return sum(
            (jnp.sin(x) * jnp.arange(1, x.size + 1).reshape(x.shape)).sum() for x in outputs
        ), outputs

    return jax.jit(jax.grad(loss, has_aux=True))(params)


@pytest.mark.parametrize(
    ("changes", "execution", "inputs"),
    [
        ({}, Execution(), INPUTS),
        ({}, Execution(Remat.DOTS), PACKED),
        ({"num_hidden_groups": 2, "inner_group_num": 2}, Execution(Remat.FULL), PADDED),
        ({"parameter_sharing": "none", "norm": "sandwich"}, Execution(), PACKED),
        (
            {"num_hidden_layers": 3, "attention_window": 2, "global_every": 2},
            Execution(unroll=3),
            PADDED,
        ),
        ({"depth_signal": "embedding", "depth_rank": 1}, Execution(), PADDED),
        ({**EXPERTS, "expert_layers": "1"}, Execution(), PACKED),
        ({**EXPERTS, "expert_layers": "2"}, Execution(), PADDED),
    ],
    ids=["shared", "packed", "groups", "sandwich", "local", "signal", "experts", "experts last"],
)
def test_logits_and_gradients_are_those_of_all_positions(
    changes: dict[str, Any], execution: Execution, inputs: dict[str, np.ndarray]
) -> None:
    model = AlbertForPreTraining(dataclasses.replace(NO_DROPOUT, **changes), execution=execution)
    params = random_params(model)

    def of_chosen(params: Any) -> tuple[Array, Array]:
        outputs = model.apply({"params": params}, **inputs, masked_lm_positions=MASKED)
        return outputs.prediction_logits, outputs.sop_logits

    def of_all(params: Any) -> tuple[Array, Array]:
        outputs = model.apply({"params": params}, **inputs)
        logits = jnp.take_along_axis(outputs.prediction_logits, MASKED[:, :, None], axis=1)
        return logits, outputs.sop_logits

    found, expected = (gradients(model, params, each) for each in (of_chosen, of_all))
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * scale), found, expected
    )


def test_what_is_read_decides_what_is_returned() -> None:
    model = AlbertModel(TINY)
    params = {"params": random_params(model)}
    every = model.apply(params, **PADDED)
    some = model.apply(params, **PADDED, chosen_positions=MASKED)
    none = model.apply(params, **PADDED, chosen_positions=np.zeros((2, 0), int))
    chosen = np.take_along_axis(np.asarray(every.last_hidden_state), MASKED[:, :, None], axis=1)
    np.testing.assert_allclose(some.last_hidden_state, chosen, rtol=1e-5, atol=1e-5)
    assert none.last_hidden_state.shape == (2, 0, TINY.hidden_size)
    for outputs in (some, none):
        np.testing.assert_allclose(outputs.pooler_output, every.pooler_output, rtol=1e-5, atol=1e-5)
    states = model.apply(params, **PADDED, chosen_positions=MASKED, output_hidden_states=True)
    assert [state.shape for state in states.hidden_states] == [(2, LENGTH, 4)] * 3
    np.testing.assert_allclose(states.last_hidden_state, chosen, rtol=1e-5, atol=1e-5)


def matmul_flops(jaxpr: Any) -> int:
    """Operations of all matrix products of a program, its loops included."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += (
                2
                * math.prod(equation.outvars[0].aval.shape)
                * math.prod(left[axis] for axis in contracted)
            )
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in jax.tree.leaves(list(equation.params.values())):
            if hasattr(inner, "eqns"):
                total += times * matmul_flops(inner)
    return total


@pytest.mark.parametrize(
    ("changes", "skips"),
    [
        ({}, True),
        ({"num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2}, True),
        ({"feed_forward": "swiglu", "intermediate_size": 24}, True),
        ({**EXPERTS, "expert_layers": "1"}, True),
        ({**EXPERTS, "expert_layers": "2"}, False),
    ],
)
def test_operations_are_counted_as_the_program_has_them(
    changes: dict[str, Any], skips: bool
) -> None:
    config = dataclasses.replace(NO_DROPOUT, **changes)
    model = AlbertForPreTraining(config)
    params = jax.eval_shape(model.initialize, jax.random.key(0))

    def counted(inputs: dict[str, np.ndarray], masked: np.ndarray) -> int:
        program = jax.make_jaxpr(
            lambda params: model.apply({"params": params}, **inputs, masked_lm_positions=masked)
        )(params)
        return matmul_flops(program.jaxpr) // len(masked)

    for inputs, pairs in ((PADDED, 1), (PACKED, 2)):
        for predictions in (1, 3, LENGTH):
            row = {"length": LENGTH, "predictions": predictions, "pairs": pairs}
            needed = pretraining_flops_per_row(config, **row)
            assert needed == 3 * counted(inputs, np.zeros((2, predictions), int))
            every = training_flops_per_row(config, **row)
            assert (needed < every) == (skips and predictions + pairs < LENGTH)


def test_the_operations_of_base() -> None:
    base = AlbertConfig.from_name("base_v2")
    # 434 positions of 512 do without the projection, 768 by 768, and two of 768 by 3,072, thrice.
    skipped = 3 * 434 * (2 * 768**2 + 4 * 768 * 3072)
    every = training_flops_per_row(base, length=512, predictions=77)
    assert every == pytest.approx(292.04e9, rel=1e-4)
    assert pretraining_flops_per_row(base, length=512, predictions=77) == every - skipped
    assert 0.045 < skipped / every < 0.05


def test_the_operations_of_a_teacher() -> None:
    """A forward pass and the masked-LM head alone: a third of a step's without pairs."""
    for predictions in (2, LENGTH):
        row = {"length": LENGTH, "predictions": predictions}
        found = prediction_flops_per_row(NO_DROPOUT, **row)
        assert 3 * found == pretraining_flops_per_row(NO_DROPOUT, **row, pairs=0)
