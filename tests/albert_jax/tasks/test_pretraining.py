"""The pre-training objective: names of metrics, predictions, and the head that it leaves out."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn
from random_inputs import random_batch, random_parameters
from tiny_models import TINY

from albert_jax.model import AlbertForPreTraining
from albert_jax.tasks.pretraining import masked_lm_by_layer, pretraining_objective
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
    assert set(with_z.weight_fn(BATCH)) - set(plain.weight_fn(BATCH)) == {"masked_lm_z_loss"}


def test_the_last_layer_has_the_metrics_of_the_objective() -> None:
    by_layer = summarize(jax.jit(masked_lm_by_layer(MODEL))(PARAMS, BATCH))
    whole = summarize(jax.jit(pretraining_objective(MODEL).loss_fn)(PARAMS, BATCH, None))
    for metric in ("masked_lm_loss", "masked_lm_accuracy"):
        assert f"{metric}/0" in by_layer
        assert by_layer[f"{metric}/{TINY.num_hidden_layers}"] == pytest.approx(whole[metric])
