"""Predictions of fine-tuned models, for every kind of task in `tasks/registry.py`."""

import collections
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import PyTree

from albert_jax.pretrained import open_weights
from experiments.prediction.inference import put_in_order
from experiments.prediction.task import NumberedResults, PredictionTask, load_model
from experiments.tasks.raw_inputs import PredictionOptions, RawInput
from experiments.tasks.registry import TASK_KINDS
from experiments.tasks.task import RawPrediction, TaskKind


def finetuned_tasks() -> dict[str, PredictionTask]:
    """Return the predictions of all kinds of tasks, by their name for `--task`."""
    return {
        name: PredictionTask(functools.partial(_predict, kind, prediction), prediction.format)
        for kind in TASK_KINDS.values()
        for name, prediction in kind.predictions.items()
    }


def _predict(
    kind: TaskKind,
    prediction: RawPrediction,
    inputs: Sequence[RawInput],
    options: PredictionOptions,
) -> NumberedResults:
    examples = prediction.read(inputs)
    model_class = kind.models[0]
    if len(kind.models) > 1:
        classes = {other.__name__: other for other in kind.models}
        model_class = classes.get(open_weights(options.model).architecture or "", model_class)
    loaded = load_model(model_class, options)
    encoded = prediction.encode(examples, loaded.model, loaded.tokenizer, options)
    rows = [row for one in encoded for row in one.rows]
    places = [
        (number, place) for number, one in enumerate(encoded) for place, _ in enumerate(one.rows)
    ]
    computed: dict[int, dict[int, Any]] = collections.defaultdict(dict)
    for row, outputs in loaded.infer(functools.partial(_outputs, kind), rows):
        number, place = places[row]
        computed[number][place] = outputs
        if len(computed[number]) == len(encoded[number].rows):
            found = put_in_order(computed.pop(number).items(), len(encoded[number].rows))
            yield number, prediction.decode(encoded[number], found, loaded.model, options)


def _outputs(kind: TaskKind, model: Any, params: PyTree, rows: dict[str, Any]) -> dict[str, Any]:
    """Compute the outputs of the kind's objective; zeros stand in for the missing labels."""
    count = len(rows["input_ids"])
    labels = {
        name: jnp.zeros(count, jnp.float32 if name == "weights" else jnp.int32)
        for name in kind.batch._fields
        if name not in rows
    }
    return kind.objective(model).predict(params, kind.batch(**rows, **labels))
