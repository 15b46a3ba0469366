"""The recipes of docs/extending.md: an optimizer and a sentence objective, added from outside."""

from enum import StrEnum
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_corpora import FIRST_ID, make_corpus

from albert_jax.batch import PretrainingBatch
from albert_jax.config import AlbertConfig
from albert_jax.model import AlbertForPreTraining
from albert_jax.settings import FieldError
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training import optimizer
from albert_jax.training.config import OptimizerConfig, OptimizerName, ScheduleName
from albert_jax.training.trust_ratio import trust_ratios
from data_pipeline.config import DataConfig, SentenceObjective
from data_pipeline.pretraining.dataset import HeldOutDataset, PretrainingDataset
from experiments.evaluation.held_out import pretraining_panels

SENTENCES = [9, 8, 9, 8, 9, 8]  # tokens of each in a document


def add_member(patch: pytest.MonkeyPatch, choices: type[StrEnum], *values: Any) -> Any:
    """Do what a line in the enum's body does, until the test ends."""
    member = choices._new_member_(choices, *values)
    member._name_, member._value_ = values[0].upper(), values[0]
    patch.setitem(choices._member_map_, member._name_, member)
    patch.setitem(choices._value2member_map_, values[0], member)
    patch.setattr(choices, "_member_names_", [*choices._member_names_, member._name_])
    return member


def test_an_optimizer_is_a_name_and_an_update_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FieldError, match=r"must be one of lamb, .*, got 'signs'"):
        OptimizerConfig(name="signs")  # type: ignore[arg-type]

    def signs(config: OptimizerConfig) -> tuple[optax.GradientTransformation, ...]:
        return (optax.stateless(lambda updates, params: jax.tree.map(jnp.sign, updates)),)

    member = add_member(monkeypatch, OptimizerName, "signs")
    monkeypatch.setitem(optimizer.UPDATE_RULES, member, signs)
    config = OptimizerConfig(
        name="signs",  # type: ignore[arg-type]
        schedule=ScheduleName.POLY,
        learning_rate=0.5,
        num_train_steps=10,
        num_warmup_steps=0,
    )
    made = optimizer.make_optimizer(config, global_batch_size=8)
    params = {"kernel": jnp.array([3.0, -4.0])}
    updates, state = made.update({"kernel": jnp.array([0.3, -7.0])}, made.init(params), params)
    np.testing.assert_allclose(updates["kernel"], [-0.5, 0.5])
    assert trust_ratios(state) == {}
    assert set(optimizer.UPDATE_RULES) == set(OptimizerName)


def test_a_sentence_objective_is_one_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FieldError, match="must be one of sop, nsp, none, got 'mixed'"):
        DataConfig(sentence_objective="mixed")  # type: ignore[arg-type]
    mixed = add_member(monkeypatch, SentenceObjective, "mixed", "pair_origin", True, True)

    corpus = make_corpus(tmp_path / "corpus", [SENTENCES] * 300, [SENTENCES] * 40)
    config = DataConfig(sentence_objective=mixed, max_seq_length=32, short_seq_prob=0.0)
    dataset = PretrainingDataset(corpus, config, seed=0, global_batch_size=400)
    batch = next(dataset.batches(start_step=0))
    random, swapped = read_origins(batch)
    np.testing.assert_array_equal(batch["sentence_order_labels"][:, 0] == 1, random | swapped)
    # Half of the chunks, and all of those of a single sentence: 0.59 of 20,000 such documents.
    assert abs(random.mean() - 0.59) < 0.1
    assert 0.4 < swapped[~random].mean() < 0.6

    held_out = HeldOutDataset(corpus, max_seq_length=32, batch_size=40, sentence_objective=mixed)
    assert read_origins(next(held_out.batches()))[0].any()
    model = AlbertForPreTraining(AlbertConfig())  # not called
    objective = pretraining_objective(model, mixed.metric_name)
    weights = objective.weight_fn(jax.tree.map(jnp.asarray, PretrainingBatch(**batch)))
    assert set(weights) == {"masked_lm_loss", "pair_origin_loss"}
    assert ("pair_origin_accuracy", "pair-origin accuracy") in pretraining_panels(mixed)


def read_origins(batch: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return which pairs are of two documents, and which of one document backward; a token's id
    says where it stood."""
    ids = batch["input_ids"].copy()
    rows, slots = np.nonzero(batch["masked_lm_weights"])
    ids[rows, batch["masked_lm_positions"][rows, slots]] = batch["masked_lm_ids"][rows, slots]
    first, second = ids[:, 1], ids[np.arange(len(ids)), batch["token_type_ids"].argmax(axis=1)]
    random = (first - FIRST_ID) // sum(SENTENCES) != (second - FIRST_ID) // sum(SENTENCES)
    return random, ~random & (second < first)
