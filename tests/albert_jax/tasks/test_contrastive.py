"""Objectives of embeddings against NumPy, and the same step on one device and on several."""

import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest

from albert_jax.config import AlbertConfig, Pooling
from albert_jax.devices.mesh import make_mesh
from albert_jax.tasks.batches import EmbeddingBatch
from albert_jax.tasks.contrastive import contrastive_objective, ranking_objective
from albert_jax.tasks.embedding import AlbertForEmbedding
from albert_jax.training.losses import summarize
from albert_jax.training.objective import Objective
from albert_jax.training.parallel import Parallelism, compile_train_step, initialize_state

CONFIG = AlbertConfig(
    vocab_size=30,
    embedding_size=4,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=16,
    initializer_range=0.5,
)
ROWS, LENGTH, TEMPERATURE = 8, 6, 0.1
# Numbers of texts. Rows 0 and 1 have the same positive, rows 2 and 3 the same anchor; the hard
# negative of row 4 is the positive of row 5, and that of row 6 is its own positive: it has none.
TEXT_IDS = [
    (0, 1, 2),
    (3, 1, 4),
    (5, 6, 7),
    (5, 8, 9),
    (10, 11, 13),
    (12, 13, 14),
    (15, 16, 16),
    (0, 1, 2),
]
WEIGHTS = np.array([1] * 7 + [0], np.float32)  # the last row fills the batch up
# Candidate texts of each anchor, its positive first, by hand.
CANDIDATES = {
    0: [1, 6, 8, 11, 13, 16, 2, 4, 7, 9, 13, 14, 16],
    1: [1, 6, 8, 11, 13, 16, 2, 4, 7, 9, 13, 14, 16],
    2: [6, 1, 1, 11, 13, 16, 2, 4, 7, 9, 13, 14, 16],
    3: [8, 1, 1, 11, 13, 16, 2, 4, 7, 9, 13, 14, 16],
    4: [11, 1, 1, 6, 8, 13, 16, 2, 4, 7, 9, 13, 14, 16],
    5: [13, 1, 1, 6, 8, 11, 16, 2, 4, 7, 9, 14, 16],
    6: [16, 1, 1, 6, 8, 11, 13, 2, 4, 7, 9, 13, 14],
}
SCORES = np.array([1, 3, 3, 0, 5, 2, 4, 9], np.float32)


def make_batch(texts: int = 3) -> EmbeddingBatch:
    """Rows whose texts with one number are equal."""
    ids = np.array(TEXT_IDS, np.int32)[:, :texts]
    generator = np.random.default_rng(0)
    tokens = generator.integers(1, CONFIG.vocab_size, (20, LENGTH)).astype(np.int32)
    mask = (np.arange(LENGTH) < generator.integers(2, LENGTH + 1, 20)[:, None]).astype(np.int32)
    return EmbeddingBatch.from_numpy(
        {
            "input_ids": (tokens * mask)[ids],
            "attention_mask": mask[ids],
            "token_type_ids": np.zeros_like(tokens)[ids],
            "text_ids": ids,
            "scores": SCORES,
            "weights": WEIGHTS,
        }
    )


MODEL = AlbertForEmbedding(CONFIG)
OBJECTIVES: dict[str, tuple[Objective, EmbeddingBatch]] = {
    "contrastive": (contrastive_objective(MODEL, temperature=TEMPERATURE), make_batch()),
    "ranking": (ranking_objective(MODEL, temperature=TEMPERATURE), make_batch(2)),
}


@functools.cache
def params() -> Any:
    return MODEL.initialize(jax.random.key(0))


@functools.cache
def vectors() -> dict[int, np.ndarray]:
    """The normalized vector of each text by its number, from hidden states, in float64."""
    batch, found = make_batch(), {}
    rows = (x.reshape(-1, LENGTH) for x in (batch.input_ids, batch.attention_mask))
    hidden = MODEL.apply({"params": params()}, *rows, method=_hidden_states)
    lengths = batch.attention_mask.sum(axis=-1).ravel()
    for number, states, length in zip(np.ravel(TEXT_IDS), hidden, lengths, strict=True):
        vector = np.asarray(states, np.float64)[:length].mean(axis=0)
        found[int(number)] = vector / np.linalg.norm(vector)
    return found


def _hidden_states(model: AlbertForEmbedding, *inputs: Any) -> Any:
    return model.albert(*inputs).last_hidden_state


def test_a_vector_is_the_mean_over_the_tokens_of_a_text_and_not_its_padding() -> None:
    objective, batch = OBJECTIVES["contrastive"]
    expected = vectors()
    found = jax.jit(objective.predict)(params(), batch)["embeddings"]
    for row, numbers in enumerate(TEXT_IDS):
        for place, number in enumerate(numbers):
            np.testing.assert_allclose(found[row, place], expected[number], atol=2e-6)


def test_first_is_the_state_of_the_first_token() -> None:
    batch = make_batch()
    model = AlbertForEmbedding(CONFIG, Pooling.FIRST, normalize=False)
    inputs = batch.input_ids[:, 0], batch.attention_mask[:, 0]
    hidden: Any = model.apply({"params": params()}, *inputs, method=_hidden_states)
    outputs: Any = model.apply({"params": params()}, *inputs)
    np.testing.assert_array_equal(outputs.embeddings, hidden[:, 0])


def test_infonce_contrasts_with_all_texts_of_the_batch_but_equal_ones() -> None:
    objective, batch = OBJECTIVES["contrastive"]
    found, of = summarize(jax.jit(objective.loss_fn)(params(), batch, None)), vectors()
    losses, hits = [], []
    for row, candidates in CANDIDATES.items():
        logits = np.array([of[TEXT_IDS[row][0]] @ of[n] / TEMPERATURE for n in candidates])
        losses.append(np.log(np.exp(logits).sum()) - logits[0])
        hits.append(logits[0] == logits.max())
    assert found["contrastive_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["accuracy"] == pytest.approx(np.mean(hits))


def test_cosent_orders_cosines_as_the_scores_of_the_batch() -> None:
    objective, batch = OBJECTIVES["ranking"]
    of = vectors()
    cosines = [of[a] @ of[b] for a, b, _ in TEXT_IDS[:7]]
    total = sum(
        np.exp((low - high) / TEMPERATURE)
        for high, more in zip(cosines, SCORES, strict=False)
        for low, less in zip(cosines, SCORES, strict=False)
        if more > less
    )
    found = summarize(jax.jit(objective.loss_fn)(params(), batch, None))
    assert found["ranking_loss"] == pytest.approx(np.log(1 + total), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "spread"),
    [
        ("contrastive", {"devices": 8, "fsdp": 2}),
        pytest.param(
            *("contrastive", {"devices": 4, "parallelism": Parallelism.PMAP}),
            marks=pytest.mark.slow,
        ),
        ("ranking", {"devices": 8, "fsdp": 2}),
    ],
    ids=str,
)
def test_a_step_on_several_devices_is_that_on_one(name: str, spread: dict[str, Any]) -> None:
    """Negatives are those of the whole batch, and so are their gradients."""
    expected, found = _step(name), _step(name, **spread)
    for one, other in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@functools.cache
def _step(name: str, devices: int = 1, fsdp: int = 1, **spread: Any) -> Any:
    """Return parameters after a step, and its metrics."""
    objective, batch = OBJECTIVES[name]
    mesh = make_mesh(devices=jax.devices()[:devices], fsdp=fsdp)
    optimizer, initial = optax.sgd(1.0), params()  # not inside of a trace, whose arrays would stay
    state = initialize_state(lambda key: initial, optimizer, jax.random.key(0), mesh)
    step = compile_train_step(
        objective.loss_fn, optimizer, state, mesh, weight_fn=objective.weight_fn, **spread
    )
    state, metrics = step(state, batch, jax.random.key(1))
    return jax.device_get(state.params), summarize(jax.device_get(metrics))
