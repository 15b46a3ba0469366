"""The model, both losses and every gradient against the NumPy reference, in float64."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from random_inputs import parameter_shapes, random_batch, random_parameters
from reference import (
    PreTraining,
    Tree,
    differentiate_along,
    encode,
    score_pretraining,
    sum_cross_entropy,
)

from albert_jax import AlbertConfig, AlbertForPreTraining, AlbertModel
from albert_jax.batch import PretrainingBatch
from albert_jax.tasks.pretraining import masked_lm_metrics, sentence_metrics

SMALL = AlbertConfig(
    vocab_size=17,
    embedding_size=5,
    hidden_size=6,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=7,
    max_position_embeddings=11,
)
LENGTH = 9
# The lengths of the pairs in each row; what is left of a row is padding.
ROWS = {"whole": [[9], [9]], "padded": [[9], [5]], "packed": [[4, 5], [3, 2, 2]]}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("whole", {}),
    "padding": ("padded", {}),
    "packed rows": ("packed", {"type_vocab_size": 3}),
    "groups of unequal size": ("packed", {"num_hidden_layers": 3, "num_hidden_groups": 2}),
    "a group for each layer": ("whole", {"num_hidden_layers": 3, "num_hidden_groups": 3}),
    "inner blocks": ("padded", {"inner_group_num": 2}),
    "groups of inner blocks": (
        "packed",
        {"num_hidden_layers": 5, "num_hidden_groups": 3, "inner_group_num": 2},
    ),
    "equal sizes": ("padded", {"embedding_size": 6}),
    "equal sizes, mapped": ("packed", {"embedding_size": 6, "embedding_mapping": "always"}),
    "erf": ("padded", {"hidden_act": "gelu_erf"}),
    "relu": ("packed", {"hidden_act": "relu"}),
    "tanh": ("whole", {"hidden_act": "tanh"}),
    "linear": ("padded", {"hidden_act": "linear"}),
    "attention shared in groups": (
        "packed",
        {"parameter_sharing": "attention", "num_hidden_layers": 3, "num_hidden_groups": 2},
    ),
    "feed-forward shared": ("padded", {"parameter_sharing": "ffn"}),
    "nothing shared": ("packed", {"parameter_sharing": "none"}),
    "norms before the halves": ("packed", {"norm": "pre", "inner_group_num": 2}),
    "relative positions": (
        "packed",
        {"position_encoding": "relative_local", "max_relative_distance": 2},
    ),
    "relative positions, padded": (
        "padded",
        {"position_encoding": "relative_local", "parameter_sharing": "none"},
    ),
    "rotary positions": (
        "packed",
        {"position_encoding": "rotary", "hidden_size": 8, "norm": "pre"},
    ),
    "rotary positions with another base, local in turns": (
        "packed",
        {
            "position_encoding": "rotary",
            "rotary_base": 50.0,
            "attention_window": 2,
            "num_hidden_layers": 3,
            "parameter_sharing": "ffn",
            "hidden_size": 8,
        },
    ),
    "local attention in turns of inner blocks": (
        "padded",
        {
            "attention_window": 4,
            "global_every": 4,
            "inner_group_num": 2,
        },
    ),
    "relative positions, local in turns": (
        "whole",
        {
            "attention_window": 2,
            "num_hidden_layers": 5,
            "position_encoding": "relative_local",
            "max_relative_distance": 2,
        },
    ),
    "no positions": ("padded", {"position_encoding": "none"}),
    "gated by GELU, norms around the halves": (
        "packed",
        {"feed_forward": "geglu", "norm": "sandwich", "intermediate_size": 17},
    ),
    "gated by SiLU, divided by the root mean square": (
        "padded",
        {"feed_forward": "swiglu", "norm_kind": "rms", "parameter_sharing": "none"},
    ),
    "changes of rank 2 in each layer": ("packed", {"depth_rank": 2, "num_hidden_layers": 3}),
    "changes of rank 1 in groups of inner blocks": (
        "padded",
        {
            "depth_rank": 1,
            "num_hidden_layers": 3,
            "num_hidden_groups": 2,
            "inner_group_num": 2,
            "feed_forward": "swiglu",
        },
    ),
    "no biases": ("packed", {"dense_biases": False, "norm_kind": "rms"}),
    "a scale of each half of each layer": ("packed", {"depth_signal": "scale"}),
    "a scale of normalized halves": (
        "padded",
        {"depth_signal": "scale", "norm": "sandwich", "depth_rank": 1},
    ),
    "an embedding of each layer": ("packed", {"depth_signal": "embedding", "norm": "pre"}),
    "two of three experts in each layer": ("packed", {"num_experts": 3, "expert_rank": 2}),
    "experts of gated layers, in some of them": (
        "padded",
        {
            "num_experts": 4,
            "experts_per_token": 3,
            "expert_rank": 1,
            "expert_layers": "2",
            "feed_forward": "swiglu",
            "depth_signal": "scale",
        },
    ),
    "root mean squares before the halves": (
        "packed",
        {"norm_kind": "rms", "norm": "pre", "feed_forward": "geglu", "inner_group_num": 2},
    ),
    "one wide head, large epsilon": (
        "padded",
        {"hidden_size": 13, "num_attention_heads": 1, "layer_norm_eps": 0.1},
    ),
}


def choose_inputs(layout: str, batch: PretrainingBatch) -> dict[str, Any]:
    """Inputs of the encoder beside `input_ids`: as few as the layout allows."""
    if layout == "whole":
        return {}
    if layout == "padded":
        return {
            "token_type_ids": batch.token_type_ids,
            "attention_mask": (batch.sequence_ids > 0).astype(np.int32),
        }
    names = ("token_type_ids", "position_ids", "sequence_ids")
    return {name: getattr(batch, name) for name in names}


class Case(NamedTuple):
    config: AlbertConfig
    parameters: dict[str, Any]
    batch: Any  # a PretrainingBatch of NumPy arrays
    inputs: dict[str, Any]  # of the encoder, beside input_ids
    positions: dict[str, Any]  # of the heads


def make_case(name: str) -> Case:
    layout, changes = CASES[name]
    config = dataclasses.replace(SMALL, **changes)
    rng = np.random.default_rng(list(CASES).index(name))
    batch: Any = random_batch(config, ROWS[layout], LENGTH, rng)
    names = ("masked_lm_positions", "sentence_order_positions")[: 2 if layout == "packed" else 1]
    if layout == "whole":  # every position is scored
        names = ()
        labels = rng.integers(config.vocab_size, size=(2, LENGTH)).astype(np.int32)
        weights = rng.uniform(size=(2, LENGTH)).astype(np.float32)
        batch = batch._replace(masked_lm_ids=labels, masked_lm_weights=weights)
    positions = {name: getattr(batch, name) for name in names}
    return Case(
        config, random_parameters(config, rng), batch, choose_inputs(layout, batch), positions
    )


def run_model(case: Case) -> Any:
    """Outputs, the losses' sums and weights, and the gradient of the objective trained on."""
    model = AlbertForPreTraining(case.config, dtype=jnp.float64)

    def objective(
        params: Tree, batch: PretrainingBatch, inputs: Tree, positions: Tree
    ) -> tuple[Any, Any]:
        outputs: Any = model.apply(
            {"params": params},
            batch.input_ids,
            **inputs,
            **positions,
            output_hidden_states=True,
        )
        sop_logits = outputs.sop_logits
        if sop_logits.ndim == 2:  # one pair a row
            sop_logits = sop_logits[:, None]
        metrics = masked_lm_metrics(outputs.prediction_logits, batch) | sentence_metrics(
            "sentence_order", sop_logits, batch
        )
        losses = metrics["masked_lm_loss"], metrics["sentence_order_loss"]
        return sum(loss.sum / loss.weight for loss in losses), (outputs, losses)

    compute = jax.jit(jax.grad(objective, has_aux=True))
    return compute(case.parameters, case.batch, case.inputs, case.positions)


def run_reference(parameters: Tree, case: Case) -> tuple[PreTraining, Any]:
    outputs = score_pretraining(
        parameters, case.config, case.batch.input_ids, **case.inputs, **case.positions
    )
    sop_logits = outputs.sop_logits
    if sop_logits.ndim == 2:
        sop_logits = sop_logits[:, None]
    batch = case.batch
    losses = (
        sum_cross_entropy(outputs.prediction_logits, batch.masked_lm_ids, batch.masked_lm_weights),
        sum_cross_entropy(sop_logits, batch.sentence_order_labels, batch.sentence_order_weights),
    )
    return outputs, losses


def assert_close(actual: Any, expected: Any, *, atol: float = 1e-10, where: str = "") -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=atol, err_msg=where)


@pytest.mark.parametrize("name", CASES)
def test_outputs_losses_and_gradients_equal_the_reference(name: str) -> None:
    case = make_case(name)
    with jax.enable_x64(True):
        gradients, (outputs, losses) = run_model(case)

    expected, expected_losses = run_reference(case.parameters, case)
    assert outputs.prediction_logits.dtype == np.float64
    assert_close(outputs.prediction_logits, expected.prediction_logits)
    assert_close(outputs.sop_logits, expected.sop_logits)
    for hidden, expected_hidden in zip(outputs.hidden_states, expected.hidden_states, strict=True):
        assert_close(hidden, expected_hidden)
    for loss, (total, weight) in zip(losses, expected_losses, strict=True):
        assert_close(loss.sum, total.real)
        assert_close(loss.weight, weight)

    def objective(parameters: Tree) -> complex:
        _, losses = run_reference(parameters, case)
        return sum(total / weight for total, weight in losses)

    flat = flatten_dict(gradients)
    assert set(flat) == set(parameter_shapes(case.config))
    rng = np.random.default_rng(0)
    for path, gradient in flat.items():
        for _ in range(2):
            direction = rng.normal(size=gradient.shape)
            derivative = differentiate_along(objective, case.parameters, path, direction)
            assert_close(np.vdot(gradient, direction), derivative, atol=1e-13, where="/".join(path))


@pytest.mark.parametrize("name", ["plain", "padding", "packed rows"])
def test_the_encoder_alone_equals_the_reference(name: str) -> None:
    case = make_case(name)
    parameters = case.parameters["albert"]
    model = AlbertModel(case.config, dtype=jnp.float64)
    with jax.enable_x64(True):
        apply = jax.jit(model.apply)
        outputs = apply({"params": parameters}, case.batch.input_ids, **case.inputs)
    expected = encode(parameters, case.config, case.batch.input_ids, **case.inputs)
    assert_close(outputs.last_hidden_state, expected.last_hidden_state)
    assert_close(outputs.pooler_output, expected.pooler_output)
    assert outputs.hidden_states is None
