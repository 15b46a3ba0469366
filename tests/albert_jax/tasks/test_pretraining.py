"""The pre-training objective: names of metrics, predictions, and the head that it leaves out."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn
from random_inputs import random_batch, random_parameters
from tiny_models import TINY

from albert_jax.model import AlbertForPreTraining
from albert_jax.tasks.pretraining import (
    apply_to_batch,
    masked_lm_by_layer,
    pretraining_objective,
)
from albert_jax.training.losses import summarize

MODEL = AlbertForPreTraining(TINY)
BATCH = jax.tree.map(
    jax.numpy.asarray, random_batch(TINY, [[6], [2, 3]], 6, np.random.default_rng(0))
)
PARAMS = jax.tree.map(np.float32, random_parameters(TINY, np.random.default_rng(1)))


@pytest.mark.parametrize("name", ["sentence_order", "next_sentence", None])
def test_the_argument_names_the_sentence_metrics(name: str | None) -> None:
    objective = pretraining_objective(MODEL, name)
    metrics, weights, predictions = jax.eval_shape(
        lambda: (
            objective.loss_fn(PARAMS, BATCH, None),
            objective.weight_fn(BATCH),
            objective.predict(PARAMS, BATCH),
        )
    )
    parts = ["masked_lm", *([name] if name else [])]
    assert set(metrics) == {f"{part}_{kind}" for part in parts for kind in ("loss", "accuracy")}
    assert set(weights) == {f"{part}_loss" for part in parts}
    assert predictions["prediction_logits"].shape == (2, 6, TINY.vocab_size)
    assert name is None or predictions["sop_logits"].shape == (2, 2, 2)
    assert ("sop_logits" in predictions) is (name is not None)


def test_without_a_sentence_objective_nothing_of_its_head_is_computed() -> None:
    def gradient(name: str | None) -> Any:
        loss_fn = pretraining_objective(MODEL, name).loss_fn

        def total(params: Any) -> Any:
            metrics = loss_fn(params, BATCH, None)
            return sum(ratio.sum for name, ratio in metrics.items() if name.endswith("_loss"))

        return jax.jit(jax.grad(total))

    head = ("pooler", "sop_classifier")
    applied = set()

    def record(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
        applied.update(context.module.path)
        return method(*args, **kwargs)

    with nn.intercept_methods(record):
        lowered = gradient("sentence_order").lower(PARAMS)
        assert applied.issuperset(head)
        operations = lowered.as_text(debug_info=True)
        assert all(f"{module}/" in operations for module in head)
        applied.clear()
        lowered = gradient(None).lower(PARAMS)
        assert applied.isdisjoint(head)
    operations = lowered.as_text(debug_info=True)
    assert "predictions/" in operations
    assert not [module for module in head if f"{module}/" in operations]
    gradients = lowered.compile()(PARAMS)
    assert jax.tree.map(np.shape, gradients) == jax.tree.map(np.shape, PARAMS)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients["sop_classifier"]))
    assert gradients["predictions"]["bias"].any()


def test_z_loss_is_the_squared_log_of_the_denominator_over_the_same_slots() -> None:
    plain, with_z = (pretraining_objective(MODEL, z_loss_weight=weight) for weight in (0.0, 0.5))
    logits = np.asarray(plain.predict(PARAMS, BATCH)["prediction_logits"], np.float64)
    weights = np.asarray(BATCH.masked_lm_weights, np.float64)
    expected = 0.5 * (weights * np.log(np.exp(logits).sum(-1)) ** 2).sum() / weights.sum()
    losses, more = (summarize(each.loss_fn(PARAMS, BATCH, None)) for each in (plain, with_z))
    assert more.pop("masked_lm_z_loss") == pytest.approx(expected, rel=1e-5)
    assert more.pop("loss") == pytest.approx(losses.pop("loss") + expected, rel=1e-5)
    assert more == losses
    weights = with_z.weight_fn(BATCH)
    assert set(weights) - set(plain.weight_fn(BATCH)) == {"masked_lm_z_loss"}
    metrics = with_z.loss_fn(PARAMS, BATCH, None)
    assert {name: metrics[name].weight for name in weights} == weights


def test_the_last_layer_has_the_metrics_of_the_objective() -> None:
    by_layer = summarize(jax.jit(masked_lm_by_layer(MODEL))(PARAMS, BATCH))
    whole = summarize(jax.jit(pretraining_objective(MODEL).loss_fn)(PARAMS, BATCH, None))
    for metric in ("masked_lm_loss", "masked_lm_accuracy"):
        assert f"{metric}/0" in by_layer
        assert by_layer[f"{metric}/{TINY.num_hidden_layers}"] == pytest.approx(whole[metric])


def test_a_prediction_halts_at_the_first_layer_that_is_sure_of_it() -> None:
    """Compared with loops over the slots, from the distributions of all layers."""
    outputs = apply_to_batch(MODEL, PARAMS, BATCH, output_hidden_states=True)
    rows = np.arange(2)[:, None]
    layers = []
    for hidden in outputs.hidden_states[1:]:
        chosen = hidden[rows, BATCH.masked_lm_positions]
        logits = MODEL.apply({"params": PARAMS}, chosen, method=MODEL.predict_tokens)
        layers.append(np.exp(np.asarray(logits, np.float64)))
        layers[-1] /= layers[-1].sum(-1, keepdims=True)
    entropies = -(np.array(layers) * np.log(layers)).sum(-1)
    weights = np.asarray(BATCH.masked_lm_weights)
    threshold = float(np.median(entropies[0][weights > 0]))
    expected = np.zeros(4)
    for slot in np.ndindex(weights.shape):
        depth = 1 if entropies[0][slot] < threshold else 2
        label = int(np.asarray(BATCH.masked_lm_ids)[slot])
        found = layers[depth - 1][slot]
        loss, correct = -np.log(found[label]), found[label] == found.max()
        expected += weights[slot] * np.array([depth, loss, correct, 1])
    expected /= expected[-1]
    assert 1 < expected[0] < 2
    by_layer = summarize(jax.jit(masked_lm_by_layer(MODEL, (threshold,)))(PARAMS, BATCH))
    names = ("layers", "masked_lm_loss", "masked_lm_accuracy")
    found = [by_layer[f"halting_{name}/{threshold}"] for name in names]
    np.testing.assert_allclose(found, expected[:3], rtol=1e-5)


def test_loads_count_the_choices_of_tokens_and_balance_moves_biases_alone() -> None:
    config = dataclasses.replace(TINY, num_experts=3, expert_rank=2)
    params = jax.tree.map(np.float32, random_parameters(config, np.random.default_rng(2)))
    objective = pretraining_objective(AlbertForPreTraining(config))
    assert objective.weight_fn(BATCH)["expert_balance"] == 6 + 2 + 3  # tokens, without padding
    metrics = jax.jit(objective.loss_fn)(params, BATCH, None)
    found = summarize(metrics)
    loads = [found[f"expert_load/{number}"] for number in (1, 2, 3)]
    assert sum(loads) == pytest.approx(1)
    assert len(set(loads)) > 1
    # Choices are of two experts of three in each of two layers.
    assert metrics["expert_load/1"].weight == 11 * 2 * 2
    assert 0 < found["router_entropy"] < np.log(3)
    assert found["loss"] == pytest.approx(found["masked_lm_loss"] + found["sentence_order_loss"])

    def balance(params: Any) -> Any:
        return objective.loss_fn(params, BATCH, None)["expert_balance"].sum

    gradients = jax.jit(jax.grad(balance))(params)
    half = gradients["albert"]["encoder"]["layers"]["feed_forward"]
    excess = np.array(loads) * 11 * 2 * 2 - 11 * 2 * 2 / 3
    np.testing.assert_allclose(half["router"].pop("bias")[0, 0], 0.01 * excess, rtol=1e-4)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))
