"""Masked LM after each application of the block: as layers share weights, any may be the last."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath
from jaxtyping import PyTree
from matplotlib.figure import Figure

from albert_jax.batch import PretrainingBatch
from albert_jax.heads import gather_positions
from albert_jax.model import AlbertForPreTraining
from albert_jax.tasks.pretraining import masked_lm_metrics
from albert_jax.training.losses import Metrics, summarize

DEPTH_FILE = "every_depth.png"


class LayerMetrics(NamedTuple):
    """What the masked-LM head makes of the hidden state after so many blocks."""

    depth: int  # 0: the input of the first
    masked_lm_accuracy: float
    masked_lm_loss: float  # nats


def make_layer_step(model: AlbertForPreTraining) -> Callable[[PyTree, PretrainingBatch], Metrics]:
    """A step ``(parameters, batch) -> metrics``, whose names end in the depth."""

    def step(params: PyTree, batch: PretrainingBatch) -> Metrics:
        outputs: Any = model.apply(
            {"params": params},
            batch.input_ids,
            token_type_ids=batch.token_type_ids,
            position_ids=batch.position_ids,
            sequence_ids=batch.sequence_ids,
            masked_lm_positions=batch.masked_lm_positions,
            sentence_order_positions=batch.sentence_order_positions,
            output_hidden_states=True,
        )
        metrics: Metrics = {}
        for depth, hidden in enumerate(outputs.hidden_states):
            chosen = gather_positions(hidden, batch.masked_lm_positions)
            logits: Any = model.apply(
                {"params": params}, chosen, method=AlbertForPreTraining.predict_tokens
            )
            metrics |= {
                f"{name}/{depth}": ratio for name, ratio in masked_lm_metrics(logits, batch).items()
            }
        return metrics

    return step


def evaluate_layers(
    measure: Callable[[Callable[[PretrainingBatch], Metrics]], Metrics],
    model: AlbertForPreTraining,
    params: PyTree,
) -> list[LayerMetrics]:
    """The figures at every depth from 0 on.

    The head was trained on the last depth alone; what it gives at another is what a model that
    leaves there without any training for it would give.

    Args:
        measure: a step to the sum of its metrics over all held-out batches.
        model: which.
        params: its parameters.
    """
    figures = summarize(measure(functools.partial(jax.jit(make_layer_step(model)), params)))
    depths = model.config.num_hidden_layers * model.config.inner_group_num
    return [
        LayerMetrics(
            depth, figures[f"masked_lm_accuracy/{depth}"], figures[f"masked_lm_loss/{depth}"]
        )
        for depth in range(depths + 1)
    ]


def format_layers(figures: Sequence[LayerMetrics]) -> str:
    """A line for each depth."""
    lines = ["blocks applied   masked-LM accuracy   loss (nats)"]
    lines += [
        f"{one.depth:14d}   {one.masked_lm_accuracy:18.1%}   {one.masked_lm_loss:11.3f}"
        for one in figures
    ]
    return "\n".join(lines)


def plot_layers(figures: Sequence[LayerMetrics], path: epath.PathLike, *, title: str) -> None:
    """Draws accuracy and loss over the depth."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    names = ("masked_lm_accuracy", "masked_lm_loss")
    labels = ("masked-LM accuracy", "masked-LM loss (nats)")
    for axes, name, label in zip(figure.subplots(1, 2), names, labels, strict=True):
        axes.plot([one.depth for one in figures], [getattr(one, name) for one in figures], ".-")
        axes.set_xlabel("blocks applied")
        axes.set_title(label)
        axes.grid(alpha=0.3)
    with epath.Path(path).open("wb") as file:
        figure.savefig(file, format="png", dpi=110)
