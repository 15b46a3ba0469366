"""Objectives of fine-tuning against NumPy; filled-up rows and padding change nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.config import AlbertConfig, HeadConfig, ProblemType
from albert_jax.tasks.batches import (
    ClassificationBatch,
    MultipleChoiceBatch,
    SpanBatch,
    TaggingBatch,
)
from albert_jax.tasks.models import (
    AlbertForConditionalSpan,
    AlbertForMultipleChoice,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
)
from albert_jax.tasks.objectives import (
    classification_objective,
    conditional_span_objective,
    multiple_choice_objective,
    span_objective,
    tagging_objective,
)
from albert_jax.training.losses import Metrics, summarize
from albert_jax.training.objective import Objective

CONFIG = AlbertConfig(
    vocab_size=20,
    embedding_size=4,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=16,
    initializer_range=0.5,
)
ROWS, LENGTH = 3, 7
WEIGHTS = np.array([1, 1, 0], np.float32)


def make_fields(*shape: int) -> dict[str, np.ndarray]:
    """Rows of 7, 5 and 7 tokens."""
    generator = np.random.default_rng(1)
    mask = np.ones((*shape, LENGTH), np.int32)
    mask[1, ..., 5:] = 0
    return {
        "input_ids": generator.integers(1, 20, size=mask.shape).astype(np.int32) * mask,
        "attention_mask": mask,
        "token_type_ids": generator.integers(0, 2, size=mask.shape).astype(np.int32),
        "weights": WEIGHTS,
    }


def span_fields() -> dict[str, np.ndarray]:
    fields = make_fields(ROWS)
    p_mask = 1 - fields["attention_mask"]
    p_mask[:, 1:3] = 1
    return fields | {
        "p_mask": p_mask,
        "start_positions": np.array([3, 0, 4], np.int32),
        "end_positions": np.array([5, 0, 4], np.int32),
        "is_impossible": np.array([0, 1, 0], np.int32),
    }


def head(problem: ProblemType = ProblemType.SINGLE_LABEL) -> HeadConfig:
    labels = ("a",) if problem is ProblemType.REGRESSION else ("a", "b", "c")
    return HeadConfig(labels, problem)


def classification(problem: ProblemType, labels: np.ndarray) -> tuple[Any, Any, Objective]:
    model = AlbertForSequenceClassification(CONFIG, head(problem))
    batch = ClassificationBatch.from_numpy(make_fields(ROWS) | {"labels": labels})
    return model, batch, classification_objective(model)


def tagging() -> tuple[Any, Any, Objective]:
    model = AlbertForTokenClassification(CONFIG, head())
    fields = make_fields(ROWS)
    labels = np.arange(ROWS * LENGTH, dtype=np.int32).reshape(ROWS, LENGTH) % 3
    first = fields["attention_mask"] * (np.arange(LENGTH, dtype=np.int32) % 2)
    batch = TaggingBatch.from_numpy(fields | {"labels": labels, "label_mask": first})
    return model, batch, tagging_objective(model)


def choices() -> tuple[Any, Any, Objective]:
    model = AlbertForMultipleChoice(CONFIG, head())
    fields = make_fields(ROWS, 4) | {"labels": np.array([3, 0, 1], np.int32)}
    return model, MultipleChoiceBatch.from_numpy(fields), multiple_choice_objective(model)


def spans() -> tuple[Any, Any, Objective]:
    model = AlbertForQuestionAnswering(CONFIG)
    return model, SpanBatch.from_numpy(span_fields()), span_objective(model)


def conditional_spans() -> tuple[Any, Any, Objective]:
    model = AlbertForConditionalSpan(CONFIG, head(), start_n_top=4, end_n_top=3)
    return model, SpanBatch.from_numpy(span_fields()), conditional_span_objective(model)


TASKS = {
    "classes": lambda: classification(ProblemType.SINGLE_LABEL, np.array([2, 0, 1], np.int32)),
    "scores": lambda: classification(ProblemType.REGRESSION, np.array([2, 0, 1], np.float32)),
    "labels": lambda: classification(
        ProblemType.MULTI_LABEL, np.array([[1, 0, 1], [0, 0, 1], [1, 1, 1]], np.float32)
    ),
    "tags": tagging,
    "choices": choices,
    "spans": spans,
    "conditional_spans": conditional_spans,
}


@pytest.fixture(scope="module", params=list(TASKS))
def task(request: pytest.FixtureRequest) -> tuple[str, Any, Any, Objective]:
    """A task's name, parameters, batch and objective, the last compiled."""
    model, batch, objective = TASKS[request.param]()
    params = model.initialize(jax.random.key(3))
    return request.param, params, batch, Objective(*map(jax.jit, objective[:3]))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def expected_loss(name: str, batch: Any, outputs: dict[str, np.ndarray]) -> dict[str, float]:
    """From the predictions of the two rows that count."""
    two = np.arange(2)
    if name in ("classes", "choices"):
        losses = -log_softmax(outputs["logits"])[two, batch.labels[:2]]
        return {("choice" if name == "choices" else "classification") + "_loss": losses.mean()}
    if name == "scores":
        return {"regression_loss": ((outputs["logits"][:2, 0] - batch.labels[:2]) ** 2).mean()}
    if name == "labels":
        probabilities = 1 / (1 + np.exp(-outputs["logits"][:2].astype(np.float64)))
        right = np.where(batch.labels[:2] > 0, probabilities, 1 - probabilities)
        return {"classification_loss": -np.log(right).mean()}
    starts, ends = (log_softmax(outputs[f"{end}_logits"])[two] for end in ("start", "end"))
    chosen = starts[two, batch.start_positions[:2]] + ends[two, batch.end_positions[:2]]
    return {"span_loss": -chosen.mean() / 2}


# The predictions of the other two do not show all scores; they have tests of their own.
@pytest.mark.parametrize("task", ["classes", "scores", "labels", "choices", "spans"], indirect=True)
def test_losses_are_those_of_the_formulas(task: tuple[str, Any, Any, Objective]) -> None:
    name, params, batch, objective = task
    found = summarize(jax.device_get(objective.loss_fn(params, batch, None)))
    outputs = jax.device_get(objective.predict(params, batch))
    for metric, value in expected_loss(name, batch, outputs).items():
        assert found[metric] == pytest.approx(value, rel=1e-5)
    if name in ("classes", "choices"):
        right = outputs["logits"][:2].argmax(-1) == batch.labels[:2]
        assert found["accuracy"] == right.mean()


def test_the_tags_loss_is_that_of_first_tokens() -> None:
    model, batch, objective = tagging()
    params = model.initialize(jax.random.key(3))
    logits = model.apply(
        {"params": params}, batch.input_ids, batch.attention_mask, batch.token_type_ids
    ).logits
    chosen = np.take_along_axis(log_softmax(logits), batch.labels[..., None], -1)[..., 0]
    counted = batch.label_mask[:2] > 0
    found = jax.jit(objective.loss_fn)(params, batch, None)
    assert float(found["tagging_loss"].weight) == counted.sum() == 5
    assert summarize(found)["tagging_loss"] == pytest.approx(-chosen[:2][counted].mean(), rel=1e-5)


def test_rows_that_fill_up_and_padding_change_nothing(
    task: tuple[str, Any, Any, Objective],
) -> None:
    name, params, batch, objective = task
    loss_fn, weight_fn = objective.loss_fn, objective.weight_fn
    found: Metrics = jax.device_get(loss_fn(params, batch, None))
    weights = weight_fn(batch)
    assert weights.keys() == {metric for metric in found if metric.endswith("_loss")}
    if name != "labels":
        for metric, weight in weights.items():
            assert float(weight) == float(found[metric].weight)
    other = jax.tree.map(np.copy, batch)
    other.input_ids[2] = 7
    if hasattr(batch, "labels"):
        other.labels[2] = 0
    for ratio, same in zip(found.values(), loss_fn(params, other, None).values(), strict=True):
        np.testing.assert_allclose(ratio, same, rtol=1e-6)

    def pad(field: np.ndarray, name: str) -> np.ndarray:
        if field.shape[-1] != LENGTH:
            return field
        widths = [(0, 0)] * (field.ndim - 1) + [(0, 2)]
        return np.pad(field, widths, constant_values=int(name == "p_mask"))

    longer = type(batch)(*map(pad, batch, batch._fields))
    for ratio, same in zip(found.values(), loss_fn(params, longer, None).values(), strict=True):
        np.testing.assert_allclose(ratio, same, rtol=1e-5, atol=1e-6)


def test_the_conditional_head_s_beam_is_that_of_all_pairs() -> None:
    model, batch, objective = conditional_spans()
    params = model.initialize(jax.random.key(3))
    inputs = batch.input_ids, batch.attention_mask, batch.token_type_ids

    @jax.jit
    def given(start: Any) -> Any:
        starts = jnp.full(ROWS, start)
        return model.apply({"params": params}, *inputs, p_mask=batch.p_mask, start_positions=starts)

    every = [given(start) for start in range(LENGTH)]
    beams = jax.device_get(jax.jit(objective.predict)(params, batch))
    for row in range(2):
        start_log_probs = np.asarray(every[0].start_log_probs[row])
        allowed = np.flatnonzero(batch.p_mask[row] == 0)
        np.testing.assert_allclose(np.exp(start_log_probs[allowed]).sum(), 1, rtol=1e-5)
        best_starts = allowed[np.argsort(-start_log_probs[allowed])][:4]
        assert beams["start_indices"][row].tolist()[: len(best_starts)] == best_starts.tolist()
        for place, start in enumerate(best_starts):
            assert beams["start_log_probs"][row, place] == pytest.approx(start_log_probs[start])
            ends = np.asarray(every[start].end_log_probs[row])
            best_ends = allowed[np.argsort(-ends[allowed])][:3]
            assert beams["end_indices"][row, place].tolist() == best_ends.tolist()
            np.testing.assert_allclose(
                beams["end_log_probs"][row, place], ends[best_ends], rtol=1e-5
            )
    found = summarize(jax.device_get(jax.jit(objective.loss_fn)(params, batch, None)))
    golds = zip(batch.start_positions[:2], batch.end_positions[:2], strict=True)
    chosen = [
        every[0].start_log_probs[row, start] + every[start].end_log_probs[row, end]
        for row, (start, end) in enumerate(golds)
    ]
    assert found["span_loss"] == pytest.approx(-np.mean(chosen) / 2, rel=1e-5)
    logits = beams["answer_logits"][:2].astype(np.float64)
    probabilities = 1 / (1 + np.exp(-logits))
    right = np.where(batch.is_impossible[:2] > 0, probabilities, 1 - probabilities)
    assert found["answerability_loss"] == pytest.approx(-np.log(right).mean() / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("classes", {"labels": np.zeros(3, np.int64)}, "labels must be float32 with 1 axis"),
        ("classes", {"weights": np.zeros(2, np.float32)}, "weights has batch size 2"),
        ("scores", {"labels": np.zeros((3, 1, 1), np.float32)}, "labels must be float32 with 2"),
        ("tags", {"label_mask": np.zeros((3, 6), np.int32)}, "label_mask has length size 6"),
        ("spans", {"p_mask": np.zeros((3, 7), bool)}, "p_mask must be int32 with 2 axes"),
        ("choices", {"input_ids": np.zeros((3, 7), np.int32)}, "input_ids must be int32 with 3"),
    ],
)
def test_a_field_that_breaks_the_contract_is_named(
    name: str, change: dict[str, np.ndarray], message: str
) -> None:
    _, batch, _ = TASKS[name]()
    with pytest.raises(ValueError, match=message):
        type(batch).from_numpy(batch._asdict() | change)
    with pytest.raises(TypeError, match="nonsense"):
        type(batch).from_numpy(batch._asdict() | {"nonsense": WEIGHTS})
