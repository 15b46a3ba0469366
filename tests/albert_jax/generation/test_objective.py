"""The objective of generation against optax's smoothed labels; its texts against `generate`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from albert_jax import AlbertConfig, AlbertForConditionalGeneration, GenerationOptions, Gpt2Config
from albert_jax.generation.decoding import generate
from albert_jax.generation.objective import seq2seq_objective
from albert_jax.tasks.batches import Seq2SeqBatch
from albert_jax.training.losses import Ratio

VOCABULARY = 13


@pytest.fixture(scope="module")
def model() -> tuple[AlbertForConditionalGeneration, Any]:
    encoder = AlbertConfig(
        vocab_size=11,
        embedding_size=4,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
        initializer_range=0.5,
    )
    decoder = Gpt2Config(
        vocab_size=VOCABULARY,
        n_positions=8,
        n_embd=8,
        n_layer=1,
        n_head=2,
        n_inner=8,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        initializer_range=0.5,
    )
    found = AlbertForConditionalGeneration(encoder, decoder)
    return found, found.initialize(jax.random.key(1))


def make_batch(rows: int = 3) -> Seq2SeqBatch:
    draw = np.random.default_rng(2)

    def ids(top: int) -> Any:
        return draw.integers(4, top, (rows, 6)).astype(np.int32)

    mask = (np.arange(6) < np.array([[6], [4], [5]])[:rows]).astype(np.int32)
    weights = (np.arange(6) < np.array([[3], [6], [0]])[:rows]).astype(np.float32)
    batch = Seq2SeqBatch.from_numpy(
        {
            "input_ids": ids(11),
            "attention_mask": mask,
            "token_type_ids": np.zeros((rows, 6), np.int32),
            "decoder_input_ids": ids(VOCABULARY),
            "labels": ids(VOCABULARY),
            "label_weights": weights,
        }
    )
    return Seq2SeqBatch(*map(jnp.asarray, batch))


def value(ratio: Ratio) -> float:
    return float(ratio.sum / ratio.weight)


def test_the_smoothed_loss_is_that_of_smoothed_labels(model: Any) -> None:
    network, params = model
    batch = make_batch()
    metrics = seq2seq_objective(network, label_smoothing=0.2).loss_fn(params, batch, None)
    logits = network.apply(
        {"params": params},
        batch.input_ids,
        batch.attention_mask,
        decoder_input_ids=batch.decoder_input_ids,
    ).logits
    one_hot = jax.nn.one_hot(batch.labels, VOCABULARY)
    for name, labels in (
        ("generation_loss", optax.smooth_labels(one_hot, 0.2)),
        ("cross_entropy", one_hot),
    ):
        losses = optax.softmax_cross_entropy(logits, labels)
        expected = (losses * batch.label_weights).sum() / batch.label_weights.sum()
        assert value(metrics[name]) == pytest.approx(float(expected), rel=1e-5)
    assert [name for name in metrics if name.endswith("_loss")] == ["generation_loss"]


def test_rows_of_no_weight_and_padding_change_nothing(model: Any) -> None:
    network, params = model
    objective, batch = seq2seq_objective(network, label_smoothing=0.1), make_batch()

    def loss(params: Any, batch: Seq2SeqBatch) -> Any:
        return objective.loss_fn(params, batch, None)["generation_loss"].sum

    changed = batch._replace(
        input_ids=jnp.where(batch.attention_mask == 1, batch.input_ids, 7),
        labels=jnp.where(batch.label_weights == 1, batch.labels, 5),
    )
    fewer = Seq2SeqBatch(*(array[:2] for array in batch))
    expected = jax.jit(jax.value_and_grad(loss))(params, batch)
    for other in (changed, fewer):
        found = jax.jit(jax.value_and_grad(loss))(params, other)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), found, expected)


def test_predictions_are_the_texts_and_the_cross_entropy_of_each_row(model: Any) -> None:
    network, params = model
    batch, options = make_batch(), GenerationOptions(max_new_tokens=5, num_beams=2)
    objective = seq2seq_objective(network, options=options)
    outputs = objective.predict(params, batch)
    sources = {name: getattr(batch, name) for name in ("input_ids", "attention_mask")}
    texts = generate(network, params, sources, options)
    np.testing.assert_array_equal(outputs["sequences"], texts.sequences)
    metrics = objective.loss_fn(params, batch, None)
    assert float(outputs["nats"].sum()) == pytest.approx(float(metrics["cross_entropy"].sum))
    np.testing.assert_array_equal(outputs["tokens"], jnp.array([3.0, 6.0, 0.0]))
