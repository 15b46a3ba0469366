"""A pair in a packed row has the scores, losses and gradients that it has alone; no leaks."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from random_inputs import random_batch, random_parameters

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.batch import FIELDS, PretrainingBatch
from albert_jax.config import PositionEncoding
from albert_jax.tasks.pretraining import masked_lm_metrics, sentence_metrics

Tree = dict[Any, Any]
Inputs = dict[str, Any]  # arguments of the model, by name

CONFIG = AlbertConfig(
    vocab_size=17,
    embedding_size=5,
    hidden_size=6,
    num_hidden_layers=3,
    num_hidden_groups=2,
    num_attention_heads=2,
    intermediate_size=7,
    max_position_embeddings=11,
)
ENCODINGS = {
    "absolute": CONFIG,
    "relative_local": dataclasses.replace(
        CONFIG, position_encoding=PositionEncoding.RELATIVE_LOCAL, max_relative_distance=2
    ),
    "rotary": dataclasses.replace(CONFIG, position_encoding=PositionEncoding.ROTARY, hidden_size=8),
}
LENGTH = 9
ROWS = [[4, 5], [3, 2, 2]]  # two tokens of padding end the second
RNG_SEED = 3
POSITION_TABLE = ("albert", "embeddings", "position_embeddings", "embedding")


@functools.partial(jax.jit, static_argnums=0)
def compute(
    config: AlbertConfig, params: Tree, batch: PretrainingBatch, inputs: Inputs
) -> tuple[Tree, Any]:
    """Compute the gradient of the sum of all losses, the scores, and the losses' sums."""
    model = AlbertForPreTraining(config, dtype=jnp.float64)

    def total(params: Tree) -> tuple[jax.Array, Any]:
        outputs: Any = model.apply(
            {"params": params},
            batch.input_ids,
            token_type_ids=batch.token_type_ids,
            position_ids=batch.position_ids,
            masked_lm_positions=batch.masked_lm_positions,
            sentence_order_positions=batch.sentence_order_positions,
            **inputs,
        )
        metrics = masked_lm_metrics(outputs.prediction_logits, batch)
        metrics |= sentence_metrics("sentence_order", outputs.sop_logits, batch)
        sums = metrics["masked_lm_loss"].sum, metrics["sentence_order_loss"].sum
        return sums[0] + sums[1], (outputs, sums)

    return jax.grad(total, has_aux=True)(params)


def weight_only(batch: PretrainingBatch, row: int, pair: int) -> PretrainingBatch:
    """The same rows, with a loss for only one pair."""
    predictions = np.zeros_like(batch.masked_lm_weights)
    order = np.zeros_like(batch.sentence_order_weights)
    predictions[row, 3 * pair : 3 * pair + 3] = 1
    order[row, pair] = 1
    return batch._replace(
        masked_lm_weights=batch.masked_lm_weights * predictions,
        sentence_order_weights=batch.sentence_order_weights * order,
    )


def take_alone(batch: PretrainingBatch, row: int, pair: int) -> PretrainingBatch:
    """One pair at the start of a row of its own, everything after it padding."""
    start, size = sum(ROWS[row][:pair]), ROWS[row][pair]
    fields = {}
    for name in FIELDS:
        array = getattr(batch, name)
        if name.startswith("masked_lm"):
            fields[name] = array[row : row + 1, 3 * pair : 3 * pair + 3]
        elif name.startswith("sentence_order"):
            fields[name] = array[row : row + 1, pair : pair + 1]
        else:
            fields[name] = np.zeros((1, LENGTH), np.int32)
            fields[name][0, :size] = array[row, start : start + size]
    for name in ("masked_lm_positions", "sentence_order_positions"):
        fields[name] = fields[name] - start
    return PretrainingBatch(**fields)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_pair_has_the_scores_losses_and_gradients_that_it_has_alone(encoding: str) -> None:
    config = ENCODINGS[encoding]
    rng = np.random.default_rng(RNG_SEED)
    parameters = random_parameters(config, rng)
    batch = random_batch(config, ROWS, LENGTH, rng)
    for row, pair in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]:
        packed = weight_only(batch, row, pair)
        alone = take_alone(batch, row, pair)
        mask = (alone.sequence_ids > 0).astype(np.int32)
        with jax.enable_x64(True):
            gradients, (outputs, losses) = compute(
                config, parameters, packed, {"sequence_ids": packed.sequence_ids}
            )
            expected_gradients, (expected, expected_losses) = compute(
                config, parameters, alone, {"attention_mask": mask}
            )
        slots = slice(3 * pair, 3 * pair + 3)
        close: Any = {"rtol": 1e-12, "atol": 1e-12, "err_msg": f"row {row}, pair {pair}"}
        np.testing.assert_allclose(
            outputs.prediction_logits[row, slots], expected.prediction_logits[0], **close
        )
        np.testing.assert_allclose(
            outputs.sop_logits[row, pair], expected.sop_logits[0, 0], **close
        )
        np.testing.assert_allclose(losses, expected_losses, **close)
        assert np.min(expected_losses) > 0.01
        expected_leaves = flatten_dict(expected_gradients)
        for path, gradient in flatten_dict(gradients).items():
            np.testing.assert_allclose(gradient, expected_leaves[path], **close)


def influences(inputs: Inputs, positions: Inputs) -> list[np.ndarray]:
    """Find the input positions that each output depends on, by gradient: bool, [outputs, length].

    Each input position gets a position embedding of its own, so that the gradient of its row in
    the table is the gradient of that input.
    """
    rng = np.random.default_rng(RNG_SEED)
    parameters = random_parameters(CONFIG, rng)
    ids = rng.integers(CONFIG.vocab_size, size=(1, LENGTH)).astype(np.int32)

    def run(table: np.ndarray, leaves: Tree) -> tuple[jax.Array, ...]:
        params = unflatten_dict(leaves | {POSITION_TABLE: table})
        outputs: Any = AlbertForPreTraining(CONFIG, dtype=jnp.float64).apply(
            {"params": params},
            ids,
            position_ids=np.arange(LENGTH, dtype=np.int32)[None],
            output_hidden_states=True,
            **positions,
            **inputs,
        )
        return outputs.hidden_states[-1], outputs.prediction_logits, outputs.sop_logits

    with jax.enable_x64(True):
        leaves = flatten_dict(parameters)
        derivatives = jax.jit(jax.jacrev(run))(leaves[POSITION_TABLE], leaves)
    # Each derivative is [1, outputs, features, table row, embedding].
    return [
        np.any(np.asarray(derivative)[0] != 0, axis=(1, 3))[:, :LENGTH]
        for derivative in derivatives
    ]


def test_nothing_crosses_pairs_or_padding_in_a_packed_row() -> None:
    ids = np.array([1, 1, 1, 2, 2, 3, 3, 0, 0], np.int32)
    predictions, starts = np.array([1, 4, 3, 6], np.int32), np.array([0, 3, 5], np.int32)
    hidden, prediction_logits, sop_logits = influences(
        {"sequence_ids": ids[None]},
        {"masked_lm_positions": predictions[None], "sentence_order_positions": starts[None]},
    )
    same = ids[:, None] == ids[None, :]
    np.testing.assert_array_equal(hidden, same)
    np.testing.assert_array_equal(prediction_logits, same[predictions])
    np.testing.assert_array_equal(sop_logits, same[starts])


@pytest.mark.parametrize("mask", ["111111111", "111111000", "101101110"])
def test_a_padded_position_is_read_by_itself_alone(mask: str) -> None:
    real = np.array(list(mask), np.int32)
    starts = np.array([[0]], np.int32)
    hidden, prediction_logits, sop_logits = influences(
        {"attention_mask": real[None]}, {"sentence_order_positions": starts}
    )
    seen = (real[None, :] == 1) | np.eye(LENGTH, dtype=bool)  # the residual reads itself
    np.testing.assert_array_equal(hidden, seen)
    np.testing.assert_array_equal(prediction_logits, seen)
    np.testing.assert_array_equal(sop_logits, seen[:1])
