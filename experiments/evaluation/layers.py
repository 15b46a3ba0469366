"""Masked LM after each layer: as layers share their weights, any may be the last."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from etils import epath
from jaxtyping import PyTree
from matplotlib.figure import Figure

from albert_jax.batch import PretrainingBatch
from albert_jax.model import AlbertForPreTraining
from albert_jax.tasks.pretraining import masked_lm_by_layer
from albert_jax.training.losses import Metrics, summarize
from data_pipeline.config import SentenceObjective
from experiments.evaluation.held_out import pretraining_panels
from experiments.metrics.curves import add_panels, save_figure

DEPTH_FILE = "every_depth.png"


class LayerMetrics(NamedTuple):
    """Metrics of the masked-LM head on the hidden state after a number of layers."""

    depth: int  # 0: the input of the first layer
    masked_lm_accuracy: float
    masked_lm_loss: float  # nats


def evaluate_layers(
    measure: Callable[[Callable[[PretrainingBatch], Metrics]], Metrics],
    model: AlbertForPreTraining,
    params: PyTree,
) -> list[LayerMetrics]:
    """Return the metrics at every depth from 0 on.

    The head was trained on the last depth alone; its metrics at another are those of a model that
    leaves there without any training for it.

    Args:
        measure: returns the sum of a step's metrics over all held-out batches.
        model: the model.
        params: its parameters.
    """
    metrics = summarize(measure(functools.partial(jax.jit(masked_lm_by_layer(model)), params)))
    name = "masked_lm_loss/"  # a generator may have fewer layers than the model
    depths = sorted(int(metric.removeprefix(name)) for metric in metrics if metric.startswith(name))
    return [
        LayerMetrics(
            depth, metrics[f"masked_lm_accuracy/{depth}"], metrics[f"masked_lm_loss/{depth}"]
        )
        for depth in depths
    ]


def format_layers(layers: Sequence[LayerMetrics]) -> str:
    """Return a line for each depth."""
    lines = ["layers applied   masked-LM accuracy   loss (nats)"]
    lines += [
        f"{layer.depth:14d}   {layer.masked_lm_accuracy:18.1%}   {layer.masked_lm_loss:11.3f}"
        for layer in layers
    ]
    return "\n".join(lines)


def plot_layers(layers: Sequence[LayerMetrics], path: epath.PathLike, *, title: str) -> None:
    """Plot accuracy and loss over the depth."""
    figure = Figure(layout="constrained")
    figure.suptitle(title)
    panels = pretraining_panels(SentenceObjective.NONE)[:2]
    for axes, name in add_panels(figure, panels, unit="layers applied"):
        values = [getattr(layer, name) for layer in layers]
        axes.plot([layer.depth for layer in layers], values, ".-")
    save_figure(figure, path)
