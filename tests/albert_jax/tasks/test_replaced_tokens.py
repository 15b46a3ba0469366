"""Replaced-token detection: losses and gradients against NumPy, samples, counts, distribution."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax.traverse_util import flatten_dict
from random_inputs import random_parameters, replaced_tokens_shapes
from reference import (
    Tree,
    differentiate_along,
    encode,
    score_pretraining,
    score_replacements,
    score_tokens,
    sum_binary_cross_entropy,
    sum_cross_entropy,
)
from spread_steps import CONFIG, LAMB, LENGTH, make_batch
from tiny_models import random_params

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.batch import PretrainingBatch
from albert_jax.devices.flops import training_flops_per_row
from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.sharding import place_batch, state_shardings
from albert_jax.encoder import Execution, Remat
from albert_jax.settings import FieldError
from albert_jax.tasks.config import Generator, ObjectiveConfig, TokenLoss
from albert_jax.tasks.replaced_tokens import (
    AlbertForReplacedTokens,
    objective,
    replaced_tokens_objective,
)
from albert_jax.tasks.replaced_tokens.objective import detection_metrics
from albert_jax.tasks.replaced_tokens.samples import (
    replace_tokens,
    row_keys,
    sample_tokens,
    token_weights,
)
from albert_jax.training.losses import summarize, total_loss
from albert_jax.training.parallel import Parallelism, compile_eval_step, compile_train_step
from albert_jax.training.train_step import TrainState, create_train_state

CLS, SEP, MASK = 2, 3, 4
SMALL = AlbertConfig(
    vocab_size=17,
    embedding_size=5,
    hidden_size=6,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=9,
    max_position_embeddings=12,
)
# Changes of the encoder, and the objective's settings.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the whole encoder": ({}, {}),
    "its first layers": (
        {"parameter_sharing": "none", "norm": "pre"},
        {"generator_layers": 2},
    ),
    "layers of its own": (
        {"num_hidden_groups": 2, "hidden_act": "gelu_erf"},
        {"generator": Generator.OWN, "generator_width": 0.7, "generator_layers": 1},
    ),
}


def make_model(
    config: AlbertConfig, settings: dict[str, Any], **fields: Any
) -> AlbertForReplacedTokens:
    wanted = ObjectiveConfig(token_loss=TokenLoss.REPLACED_TOKENS, **settings)
    return AlbertForReplacedTokens(
        config,
        generator_kind=wanted.generator,
        generator_config=wanted.generator_config(config),
        **fields,
    )


def lay_out(*rows: list[tuple[int, int]]) -> PretrainingBatch:
    """Rows of pairs with these numbers of words, of which about every third is to be predicted; at
    least two slots are unused. Words are random, and masks are [MASK], the word or another one."""
    rng = np.random.default_rng(5)
    length, slots, pairs = 12, 6, max(map(len, rows))
    arrays: dict[str, np.ndarray] = {
        name: np.zeros((len(rows), size), np.int32)
        for names, size in (
            (("input_ids", "token_type_ids", "position_ids", "sequence_ids"), length),
            (("masked_lm_positions", "masked_lm_ids"), slots),
            (("sentence_order_positions", "sentence_order_labels"), pairs),
        )
        for name in names
    }
    arrays["masked_lm_weights"] = np.zeros((len(rows), slots), np.float32)
    arrays["sentence_order_weights"] = np.zeros((len(rows), pairs), np.float32)
    for row, lengths in enumerate(rows):
        place = slot = 0
        for pair, (first, second) in enumerate(lengths):
            ids = [CLS, *rng.integers(5, 17, first), SEP, *rng.integers(5, 17, second), SEP]
            here = slice(place, place + len(ids))
            arrays["input_ids"][row, here] = ids
            arrays["token_type_ids"][row, here] = [0] * (first + 2) + [1] * (second + 1)
            arrays["position_ids"][row, here] = np.arange(len(ids))
            arrays["sequence_ids"][row, here] = pair + 1
            arrays["sentence_order_positions"][row, pair] = place
            arrays["sentence_order_labels"][row, pair] = rng.integers(2)
            arrays["sentence_order_weights"][row, pair] = 1
            for position in range(place, place + len(ids)):
                original = arrays["input_ids"][row, position]
                if original > MASK and rng.random() < 0.5 and slot < slots - 2:
                    arrays["masked_lm_positions"][row, slot] = position
                    arrays["masked_lm_ids"][row, slot] = original
                    arrays["masked_lm_weights"][row, slot] = 1
                    arrays["input_ids"][row, position] = rng.choice([MASK, original, 9])
                    slot += 1
            place += len(ids)
    return PretrainingBatch.from_numpy(arrays)


BATCH = lay_out([(2, 1), (1, 2)], [(3, 2)])
SAMPLES = np.where(
    np.random.default_rng(6).random((2, 6)) < 0.4,
    BATCH.masked_lm_ids,
    np.random.default_rng(7).integers(5, 17, (2, 6)),
).astype(np.int32)


def expected_losses(
    parameters: Tree, model: AlbertForReplacedTokens
) -> list[tuple[complex, float]]:
    """Sums and weights of masked LM, detection and sentence order, by loops over the rows."""
    config, generator = model.config, model.generator_config
    assert generator is not None
    batch, inputs = (
        BATCH,
        {name: getattr(BATCH, name) for name in ("token_type_ids", "position_ids", "sequence_ids")},
    )
    albert = parameters["albert"]
    if model.generator_kind is Generator.OWN:
        pooler = {"kernel": np.zeros((generator.hidden_size,) * 2), "bias": np.zeros(1)}
        own = albert | {"encoder": parameters["generator"]["encoder"], "pooler": pooler}
        hidden = encode(own, generator, batch.input_ids, **inputs).last_hidden_state
    else:
        depth = generator.num_hidden_layers * config.inner_group_num
        hidden = encode(albert, config, batch.input_ids, **inputs).hidden_states[depth]
    head = parameters.get("generator", parameters)["predictions"]
    words = albert["embeddings"]["word_embeddings"]["embedding"]
    rows = np.arange(2)[:, None]
    logits = score_tokens(head, config, words, hidden[rows, batch.masked_lm_positions])
    masked_lm = sum_cross_entropy(logits, batch.masked_lm_ids, batch.masked_lm_weights)

    ids, is_fake = batch.input_ids.copy(), np.zeros(batch.input_ids.shape, bool)
    is_word = ids > MASK
    for row, slot in zip(*np.nonzero(batch.masked_lm_weights), strict=True):
        position = batch.masked_lm_positions[row, slot]
        ids[row, position] = SAMPLES[row, slot]
        is_fake[row, position] = SAMPLES[row, slot] != batch.masked_lm_ids[row, slot]
        is_word[row, position] = True
    assert 2 <= is_fake.sum() < batch.masked_lm_weights.sum() < is_word.sum() == 11
    unheaded = (
        parameters | {"predictions": head}
        if "generator" not in parameters
        else {
            **parameters,
            "predictions": {"dense": {"kernel": np.zeros((6, 5)), "bias": np.zeros(5)}}
            | {"layer_norm": {"scale": np.zeros(5), "bias": np.zeros(5)}, "bias": np.zeros(17)},
        }
    )
    starts = batch.sentence_order_positions
    found = score_pretraining(unheaded, config, ids, sentence_order_positions=starts, **inputs)
    scores = score_replacements(
        parameters["discriminator_predictions"], config, found.hidden_states[-1]
    )
    detection = sum_binary_cross_entropy(scores, is_fake, is_word.astype(float))
    order = sum_cross_entropy(
        found.sop_logits, batch.sentence_order_labels, batch.sentence_order_weights
    )
    return [masked_lm, (50 * detection, float(is_word.sum())), order]


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_equal_the_reference(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, settings = CASES[name]
    config = dataclasses.replace(SMALL, **changes)
    model = make_model(config, settings, dtype=jnp.float64)
    assert model.generator_config is not None
    own = model.generator_kind is Generator.OWN
    shapes = replaced_tokens_shapes(config, model.generator_config, own=own)
    parameters = random_parameters(config, np.random.default_rng(0), shapes)
    flat = {"/".join(path): shape for path, shape in shapes.items()}
    assert make_model(config, settings).parameter_shapes() == flat

    monkeypatch.setattr(objective, "sample_tokens", lambda keys, logits: jnp.asarray(SAMPLES))
    loss_fn = replaced_tokens_objective(model, detection_weight=50.0, seed=0).loss_fn

    def loss(params: Tree) -> tuple[Any, Any]:
        metrics = loss_fn(params, jax.tree.map(jnp.asarray, BATCH), None)
        return total_loss(metrics), metrics

    with jax.enable_x64(True):
        gradients, metrics = jax.device_get(jax.jit(jax.grad(loss, has_aux=True))(parameters))
    names = ("masked_lm_loss", "detection_loss", "sentence_order_loss")
    for one, (total, weight) in zip(names, expected_losses(parameters, model), strict=True):
        assert metrics[one].sum.dtype == np.float64
        np.testing.assert_allclose(metrics[one].sum, total.real, rtol=1e-9, err_msg=one)
        assert metrics[one].weight == weight

    def expected(parameters: Tree) -> complex:
        return sum(total / weight for total, weight in expected_losses(parameters, model))

    rng = np.random.default_rng(1)
    for path, gradient in flatten_dict(gradients).items():
        direction = rng.normal(size=gradient.shape)
        derivative = differentiate_along(expected, parameters, path, direction)
        np.testing.assert_allclose(
            np.vdot(gradient, direction), derivative, rtol=1e-9, atol=1e-11, err_msg="/".join(path)
        )


def test_samples_have_the_generators_distribution() -> None:
    """Chi-square over 20,000 rows that differ in one token, which is enough for different keys."""
    rows, logits = 20_000, np.log([0.5, 0.25, 0.15, 0.1], dtype=np.float32)
    batch = jax.tree.map(lambda field: np.zeros((rows, 2), field.dtype), BATCH)
    batch.input_ids[:, 1] = np.arange(rows)
    tiled = jnp.tile(logits, (rows, 2, 1))
    samples = np.asarray(sample_tokens(row_keys(0, batch), tiled))
    joint = np.bincount(4 * samples[:, 0] + samples[:, 1], minlength=16)
    expected = np.outer(np.exp(logits), np.exp(logits)).ravel().astype(float)
    expected *= rows / expected.sum()
    assert scipy.stats.chisquare(joint, expected).pvalue > 0.01, "both slots, independent"
    # A row's samples do not depend on its place; another seed gives other samples.
    part = jax.tree.map(lambda field: field[[7, 3]], batch)
    again = sample_tokens(row_keys(0, part), tiled[:2])
    np.testing.assert_array_equal(again, samples[[7, 3]])
    other = np.asarray(sample_tokens(row_keys(1, batch), tiled))
    assert (other == samples).mean() == pytest.approx(np.square(np.exp(logits)).sum(), abs=0.02)


def test_samples_take_the_places_of_masks_and_special_tokens_do_not_count() -> None:
    """By hand; the second slot's sample is the original token, the unused slot's goes nowhere."""
    batch = lay_out([(2, 1), (1, 1)])._replace(
        input_ids=np.array([[CLS, 7, MASK, SEP, MASK, SEP, CLS, 8, SEP, 9, SEP, 0]], np.int32),
        masked_lm_positions=np.array([[2, 4, 0]], np.int32),
        masked_lm_ids=np.array([[5, 6, 0]], np.int32),
        masked_lm_weights=np.array([[1, 1, 0]], np.float32),
    )
    rows = replace_tokens(batch, jnp.array([[10, 6, 11]], jnp.int32))
    assert rows.input_ids.tolist() == [[CLS, 7, 10, SEP, 6, SEP, CLS, 8, SEP, 9, SEP, 0]]
    assert np.flatnonzero(rows.is_replaced).tolist() == [2]
    assert np.flatnonzero(token_weights(batch)).tolist() == [1, 2, 4, 7, 9]


def test_metrics_of_detection() -> None:
    logits = jnp.array([[2.0, -1.0, 1.0, -3.0, 0.5, 9.0]])
    labels = jnp.array([[True, True, False, False, False, False]])
    weights = jnp.array([[1.0, 1, 1, 1, 1, 0]])
    metrics = summarize(detection_metrics(logits, labels, weights, factor=2.0))
    loss = np.log1p(np.exp([-2.0, 1, 1, -3, 0.5])).mean()
    assert metrics == {
        "loss": pytest.approx(2 * loss),
        "detection_loss": pytest.approx(2 * loss),
        "detection_accuracy": pytest.approx(2 / 5),
        "detection_recall": pytest.approx(1 / 2),
        "detection_precision": pytest.approx(1 / 3),
        "replaced_fraction": pytest.approx(2 / 5),
    }


@pytest.mark.parametrize("sentence", ["sentence_order", None])
def test_names_types_and_the_head_that_is_left_out(sentence: str | None) -> None:
    model = make_model(CONFIG, {}, dtype=jnp.bfloat16)
    task = replaced_tokens_objective(
        model, sentence, detection_weight=50.0, seed=0, z_loss_weight=1e-4
    )
    params = jax.eval_shape(model.initialize, jax.random.key(0))
    batch, key = make_batch(0), jax.random.key(0)
    metrics = jax.eval_shape(task.loss_fn, params, batch, key)
    losses = {"masked_lm_loss", "masked_lm_z_loss", "detection_loss"}
    losses |= {f"{sentence}_loss"} if sentence else set()
    assert {name for name in metrics if name.endswith("_loss")} == losses
    assert set(jax.eval_shape(task.weight_fn, batch)) == losses
    predictions = jax.eval_shape(task.predict, params, batch)
    assert predictions["detection_logits"].shape == (16, LENGTH)
    assert {x.dtype for x in predictions.values()} == {jnp.dtype(jnp.float32)}
    assert ("sop_logits" in predictions) is (sentence is not None)


def test_a_run_begins_with_the_parameters_of_a_masked_lm_of_the_same_seed() -> None:
    key = jax.random.key(3)
    plain = AlbertForPreTraining(SMALL).initialize(key)
    whole = make_model(SMALL, {}).initialize(key)
    for name, part in plain.items():
        jax.tree.map(np.testing.assert_array_equal, whole[name], part)


def test_sizes_of_generators_and_their_operations() -> None:
    """For base at a quarter of the width, by hand, in multiples of 2 L; and half of the layers."""
    base = AlbertConfig.from_name("base_v1")

    def generator(**settings: Any) -> AlbertConfig | None:
        return ObjectiveConfig(token_loss=TokenLoss.REPLACED_TOKENS, **settings).generator_config(
            base
        )

    assert ObjectiveConfig().generator_config(base) is None
    quarter, half = generator(generator=Generator.OWN), generator(generator_layers=6)
    assert quarter is not None and half is not None
    sizes = (quarter.num_attention_heads, quarter.hidden_size, quarter.intermediate_size)
    assert sizes == (3, 192, 768) and quarter.num_hidden_layers == 12
    assert half == dataclasses.replace(base, num_hidden_layers=6)
    grouped = dataclasses.replace(base, num_hidden_groups=4)
    few = ObjectiveConfig(token_loss=TokenLoss.REPLACED_TOKENS, generator_layers=2)
    assert few.generator_config(grouped) == dataclasses.replace(
        grouped, num_hidden_layers=2, num_hidden_groups=2
    )

    row = {"length": 512, "predictions": 77, "pairs": 2}

    def layers(hidden: int, depth: int) -> int:
        dense = depth * (4 * hidden**2 + 2 * hidden * 4 * hidden + 2 * 512 * hidden)
        return 2 * 512 * (dense + 128 * hidden)

    order, detection = 2 * (2 * 768**2 + 4 * 768), 2 * 512 * (768**2 + 768)
    for one, hidden, depth in ((quarter, 192, 12), (half, 768, 6)):
        masked_lm = 2 * 77 * 128 * (hidden + 30000)
        expected = layers(768, 12) + layers(hidden, depth) + masked_lm + detection + order
        assert training_flops_per_row(base, **row, generator=one) == 3 * expected

    with pytest.raises(FieldError, match=r"generator_layers must be at most .* \(12\), got 13"):
        generator(generator_layers=13)


def take_steps(
    settings: dict[str, Any], *, devices: int, execution: Execution, **spread: Any
) -> tuple[Any, list[dict[str, float]]]:
    """The parameters after three steps of LAMB on packed rows, and the metrics of each."""
    axes = {name: spread.pop(name) for name in ("fsdp", "tensor") if name in spread}
    mesh = make_mesh(devices=jax.devices()[:devices], **axes)
    model = make_model(CONFIG, settings, execution=execution)
    task = replaced_tokens_objective(model, detection_weight=50.0, seed=4)
    state: TrainState = create_train_state(model.initialize(jax.random.key(0)), LAMB)
    state = jax.device_put(jax.device_get(state), state_shardings(state, mesh))
    step = compile_train_step(task.loss_fn, LAMB, state, mesh, weight_fn=task.weight_fn, **spread)
    history = []
    for number in range(3):
        batch = place_batch(make_batch(number), mesh)
        state, metrics = step(state, batch, jax.random.key(1))
        history.append(summarize(metrics))
    return jax.device_get(state.params), history


OWN = {"generator": Generator.OWN, "generator_width": 0.5, "generator_layers": 2}


@pytest.mark.slow
def test_evaluation_samples_the_same_on_any_devices_and_in_any_batch() -> None:
    model = make_model(CONFIG, OWN)
    loss_fn = replaced_tokens_objective(model, detection_weight=50.0, seed=4).loss_fn
    params, batch, mesh = random_params(model), make_batch(0), make_mesh(fsdp=2)
    whole = compile_eval_step(loss_fn, params, mesh)(params, place_batch(batch, mesh))
    half = jax.jit(lambda batch: loss_fn(params, batch, None))
    halves = [half(jax.tree.map(lambda x, start=start: x[start::2], batch)) for start in range(2)]
    assert summarize(whole) == pytest.approx(summarize(jax.tree.map(jnp.add, *halves)), rel=1e-5)
    assert (
        0
        < whole["detection_recall"].weight
        == sum(part["detection_recall"].weight for part in halves)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "spread"),
    [
        (OWN, {"fsdp": 2, "tensor": 2, "accumulation_steps": 2}),
        ({"generator_layers": 2}, {"fsdp": 2}),
        ({}, {"parallelism": Parallelism.PMAP, "accumulation_steps": 2}),
    ],
    ids=str,
)
def test_distribution_changes_nothing_not_even_the_samples(
    settings: dict[str, Any], spread: dict[str, Any]
) -> None:
    expected, expected_history = take_steps(settings, devices=1, execution=Execution())
    again = Execution(remat=Remat.FULL, unroll=3)
    params, history = take_steps(settings, devices=8, execution=again, **spread)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), params, expected
    )
    for step, expected_step in zip(history, expected_history, strict=True):
        assert step == pytest.approx(expected_step, rel=1e-4)
