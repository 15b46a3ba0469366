"""Distillation: its loss against NumPy, its teacher against a reference, and how it is spread."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from random_inputs import random_batch, random_parameters
from reference import score_pretraining
from spread_steps import CONFIG, compiled_step, initial_state, make_batch, teach
from tiny_models import TINY

from albert_jax import AlbertForPreTraining
from albert_jax.batch import TeacherPredictions
from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.sharding import ROWS, place_batch, state_shardings
from albert_jax.settings import FieldError
from albert_jax.tasks.distillation import DistillationConfig, distillation_loss
from albert_jax.tasks.distillation.teacher import compile_teacher, predict_top_tokens
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.losses import safe_divide, summarize
from albert_jax.training.parallel import Parallelism

VOCABULARY, SLOTS = 9, 5
WEIGHTS = np.array([[1, 0.5, 0, 1, 1]], np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def top_tokens(logits: np.ndarray, count: int) -> TeacherPredictions:
    token_ids = np.argsort(-logits, axis=-1)[..., :count]
    log_probs = np.log(np.take_along_axis(softmax(logits), token_ids, -1))
    return TeacherPredictions(token_ids.astype(np.int32), log_probs.astype(np.float32))


def expected_loss(
    logits: np.ndarray, taught: np.ndarray, count: int, temperature: float, factor: float
) -> tuple[float, np.ndarray]:
    """The sum of the loss and its gradient, outcome by outcome."""
    total, gradient = 0.0, np.zeros_like(logits)
    for slot in range(SLOTS):
        theirs, ours = (softmax(z[0, slot] / temperature) for z in (taught, logits))
        best = list(np.argsort(-theirs)[:count])
        outcomes = [[token] for token in best]
        if rest := [token for token in range(VOCABULARY) if token not in best]:
            outcomes.append(rest)
        scale = factor * temperature**2 * WEIGHTS[0, slot]
        gradient[0, slot] = scale * ours
        for tokens in outcomes:
            p, q = theirs[tokens].sum(), ours[tokens].sum()
            total += scale * p * np.log(p / q)
            gradient[0, slot, tokens] -= scale * p * ours[tokens] / q
    return total, gradient / temperature


@pytest.mark.parametrize("count", [1, 3, VOCABULARY])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_loss_and_its_gradient_are_those_of_outcomes(count: int, temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits, taught = rng.normal(scale=3, size=(2, 1, SLOTS, VOCABULARY))
    logits[0, 0, np.argmax(taught[0, 0])] += 30  # a student that is certain of the first token
    teacher = top_tokens(taught / temperature, count)

    def loss(logits: Any) -> Any:
        ratio = distillation_loss(
            logits, teacher, jnp.asarray(WEIGHTS), temperature=temperature, factor=0.7
        )
        return ratio.sum, ratio.weight

    (value, weight), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.asarray(logits))
    expected, expected_gradient = expected_loss(logits, taught, count, temperature, 0.7)
    assert (float(value), float(weight)) == (pytest.approx(expected, rel=1e-5), WEIGHTS.sum())
    np.testing.assert_allclose(gradient, expected_gradient, rtol=2e-4, atol=2e-6)
    if count == VOCABULARY:
        whole = scipy.special.rel_entr(*(softmax(z / temperature) for z in (taught, logits)))
        expected = 0.7 * temperature**2 * (WEIGHTS * whole.sum(-1)).sum()
        assert float(value) == pytest.approx(expected, rel=1e-5)


def test_probabilities_that_were_rounded_leave_no_negative_rest() -> None:
    teacher = TeacherPredictions(
        np.zeros((1, 1, 1), np.int32), np.log(np.full((1, 1, 1), 1.001, np.float32))
    )
    ratio = distillation_loss(jnp.array([[[50.0, 0, 0]]]), teacher, jnp.ones((1, 1)))
    assert float(ratio.sum) == pytest.approx(1.001 * np.log(1.001), rel=1e-3)


INPUTS = (
    *("input_ids", "token_type_ids", "position_ids", "sequence_ids", "masked_lm_positions"),
    "sentence_order_positions",
)
MODEL = AlbertForPreTraining(TINY)
BATCH = jax.tree.map(jnp.asarray, random_batch(TINY, [[6], [2, 3]], 6, np.random.default_rng(0)))
REFERENCE = random_parameters(TINY, np.random.default_rng(1))
PARAMS = jax.tree.map(np.float32, REFERENCE)


def test_a_teacher_predicts_the_tokens_of_the_reference_without_its_sentence_head() -> None:
    config = DistillationConfig(top_k=3, temperature=2.0)
    encoder = {name: part for name, part in PARAMS["albert"].items() if name != "pooler"}
    params = {"albert": encoder, "predictions": PARAMS["predictions"]}
    found = jax.jit(lambda: predict_top_tokens(MODEL, params, BATCH, config))()
    rows = {name: np.asarray(getattr(BATCH, name)) for name in INPUTS}
    logits = score_pretraining(REFERENCE, TINY, **rows).prediction_logits
    expected = top_tokens(logits / 2, 3)
    used = np.asarray(BATCH.masked_lm_weights) > 0
    np.testing.assert_array_equal(np.asarray(found.token_ids)[used], expected.token_ids[used])
    np.testing.assert_allclose(
        np.asarray(found.log_probs)[used], expected.log_probs[used], rtol=1e-3, atol=1e-4
    )
    assert found.token_ids.dtype == jnp.int32 and found.log_probs.dtype == jnp.float32


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it() -> None:
    config = DistillationConfig(teacher="itself", top_k=4, weight=2.0)
    plain, distilled = (pretraining_objective(MODEL, distillation=c) for c in (None, config))

    def losses(params: Any) -> Any:
        predictions = jax.lax.stop_gradient(predict_top_tokens(MODEL, params, BATCH, config))
        metrics = distilled.loss_fn(params, BATCH._replace(teacher=predictions), None)
        return safe_divide(*metrics["distillation_loss"]), metrics

    gradient, metrics = jax.jit(jax.grad(losses, has_aux=True))(PARAMS)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-5
    found, expected = (
        summarize(metrics),
        summarize(jax.jit(lambda: plain.loss_fn(PARAMS, BATCH, None))()),
    )
    assert found.pop("distillation_loss") == pytest.approx(0, abs=1e-6)
    assert found.pop("teacher_agreement") == 1
    assert found.pop("teacher_accuracy") == expected["masked_lm_accuracy"]
    assert found == pytest.approx(expected, rel=1e-5)
    weights = distilled.weight_fn(BATCH)
    assert weights["distillation_loss"] == weights["masked_lm_loss"]
    with pytest.raises(ValueError, match="without a teacher's predictions"):
        distilled.loss_fn(PARAMS, BATCH, None)


def test_every_device_asks_the_same_teacher() -> None:
    config, model = DistillationConfig(top_k=5), AlbertForPreTraining(CONFIG)
    params, batch = initial_state().params, make_batch(3)
    expected = jax.jit(lambda: predict_top_tokens(model, params, batch, config))()
    mesh = make_mesh(devices=jax.devices()[:4], fsdp=2, tensor=2)
    found = compile_teacher(model, config, mesh, micro_batches=2)(params, place_batch(batch, mesh))
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, rtol=1e-5, atol=1e-6)
    for leaf in jax.tree.leaves(found):
        assert leaf.sharding.is_equivalent_to(jax.NamedSharding(mesh, ROWS), leaf.ndim)


DISTILLED = DistillationConfig(teacher="random", top_k=6, temperature=1.5, weight=0.5)


def step(**spread: Any) -> tuple[Any, dict[str, float]]:
    compiled, mesh = compiled_step(distillation=DISTILLED, **spread)
    state = jax.device_put(initial_state(), state_shardings(initial_state(), mesh))
    batch = place_batch(teach(make_batch(0), DISTILLED.top_k, seed=1), mesh)
    state, metrics = compiled(state, batch, jax.random.key(1))
    return jax.device_get(state.params), summarize(metrics)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spread",
    [
        {"devices": 4, "fsdp": 2, "tensor": 2, "accumulation_steps": 2},
        {"devices": 4, "parallelism": Parallelism.PMAP, "accumulation_steps": 2},
    ],
    ids=str,
)
def test_distribution_changes_nothing(spread: dict[str, Any]) -> None:
    expected, expected_metrics = step(devices=1)
    params, metrics = step(**spread)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), params, expected
    )
    assert metrics == pytest.approx(expected_metrics, rel=1e-4)
    parts = ("masked_lm_loss", "sentence_order_loss", "distillation_loss")
    assert metrics["loss"] == pytest.approx(sum(metrics[name] for name in parts), rel=1e-5)


@pytest.mark.parametrize(("name", "value"), [("top_k", 0), ("temperature", 0.0), ("weight", -1.0)])
def test_settings_have_bounds(name: str, value: Any) -> None:
    with pytest.raises(FieldError, match=f"^{name} must be"):
        DistillationConfig(**{name: value})
