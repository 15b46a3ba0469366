"""Small models of every kind with random parameters."""

import dataclasses
from typing import Any

import jax
import numpy as np

import albert_jax
from albert_jax import AlbertConfig, HeadConfig, ProblemType

TINY = AlbertConfig(
    vocab_size=11,
    embedding_size=3,
    hidden_size=4,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=5,
    max_position_embeddings=6,
)
THREE = HeadConfig(labels=("one", "two", "three"), classifier_dropout_prob=0.25)
NUMBER = HeadConfig(labels=("score",), problem_type=ProblemType.REGRESSION)
GROUPS = {"num_hidden_layers": 6, "num_hidden_groups": 3, "inner_group_num": 2}
UNTIED = {"tie_word_embeddings": False}
EQUAL = {"embedding_size": 4, "embedding_mapping": "always"}

# Name of the class without "Albert", changes of the configuration, head.
MODELS: dict[str, tuple[str, dict[str, Any], HeadConfig | None]] = {
    "pre-training": ("ForPreTraining", {}, None),
    "groups": ("ForPreTraining", GROUPS, None),
    "encoder": ("Model", {}, None),
    "masked LM": ("ForMaskedLM", {}, None),
    "classes": ("ForSequenceClassification", {}, THREE),
    "a number": ("ForSequenceClassification", {}, NUMBER),
    "tags": ("ForTokenClassification", {}, THREE),
    "spans": ("ForQuestionAnswering", {}, None),
    "choices": ("ForMultipleChoice", {}, None),
}


def make_model(name: str, changes: dict[str, Any], head: HeadConfig | None) -> Any:
    """A model by the name of its class without "Albert"."""
    fields: dict[str, Any] = {"config": dataclasses.replace(TINY, **changes)}
    return getattr(albert_jax, f"Albert{name}")(**fields, **({"head": head} if head else {}))


def random_params(model: Any, seed: int = 0) -> Any:
    """Random float32 parameters, no two alike."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.initialize, jax.random.key(0))
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


def assert_same(left: Any, right: Any) -> None:
    """Assert that two trees are the same, bit for bit."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype
        assert x.tobytes() == y.tobytes()


def padded_rows(config: AlbertConfig, batch: int, length: int) -> dict[str, np.ndarray]:
    """Rows of two segments, all but the first with padding at the end."""
    ids = np.random.default_rng(0).integers(config.vocab_size, size=(batch, length))
    places, ends = np.arange(length)[None], length - np.arange(batch)[:, None] % length
    rows = {
        "input_ids": ids,
        "attention_mask": places < ends,
        "token_type_ids": (places >= ends // 2) & (places < ends),
    }
    return {name: row.astype(np.int32) for name, row in rows.items()}


def input_rows(exported: Any, batch: int, length: int) -> dict[str, np.ndarray]:
    """Inputs of an exported model: examples of three choices, or a mask of an odd document."""
    if "choices" in exported.input_shapes()["input_ids"]:
        rows = padded_rows(exported.config, 3 * batch, length)
        return {name: row.reshape(batch, 3, length) for name, row in rows.items()}
    rows = padded_rows(exported.config, batch, length)
    if "p_mask" in exported.input_shapes():
        places = np.arange(length)[None] + np.arange(batch)[:, None]
        rows["p_mask"] = (places % 3 == 1).astype(np.int32)
    return rows
