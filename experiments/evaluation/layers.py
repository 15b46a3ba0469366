"""Masked LM after each layer: as layers share their weights, any may be the last.

Either the same layer is the last for all tokens, or each token halts at the first layer whose
prediction is certain enough.
"""

import functools
import math
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
from data_pipeline.errors import InputError
from experiments.evaluation.held_out import pretraining_panels
from experiments.metrics.curves import add_panels, save_figure

DEPTH_FILE = "every_depth.png"


class LayerMetrics(NamedTuple):
    """Metrics of the masked-LM head on the hidden state after a number of layers."""

    depth: int  # 0: the input of the first layer
    masked_lm_accuracy: float
    masked_lm_loss: float  # nats


class HaltingMetrics(NamedTuple):
    """Metrics of predictions taken from the first layer whose entropy is below a threshold."""

    entropy: float  # the threshold, nats
    layers: float  # mean number that a prediction needs
    masked_lm_accuracy: float
    masked_lm_loss: float  # nats


class Depths(NamedTuple):
    """Metrics at each depth, and of halting with each threshold."""

    layers: list[LayerMetrics]
    halting: list[HaltingMetrics]


def parse_entropies(values: Sequence[str]) -> tuple[float, ...]:
    """Return the thresholds of ``--halting_entropy``, smallest first.

    Raises:
        InputError: a value is not a positive number.
    """
    try:
        entropies = sorted({float(value) for value in values})
    except ValueError:
        entropies = [math.nan]
    if not all(math.isfinite(entropy) and entropy > 0 for entropy in entropies):
        raise InputError(
            f"--halting_entropy must be positive numbers with commas, got {','.join(values)}"
        )
    return tuple(entropies)


def evaluate_layers(
    measure: Callable[[Callable[[PretrainingBatch], Metrics]], Metrics],
    model: AlbertForPreTraining,
    params: PyTree,
    entropies: Sequence[float] = (),
) -> Depths:
    """Return the metrics at every depth from 0 on, and those of halting.

    The head was trained at the last depth only. Its metrics at another depth are those of a model
    that stops there without having been trained to.

    Args:
        measure: returns the sum of a step's metrics over all held-out batches.
        model: the model.
        params: its parameters.
        entropies: thresholds of halting, in nats.
    """
    step = jax.jit(masked_lm_by_layer(model, entropies))
    metrics = summarize(measure(functools.partial(step, params)))
    name = "masked_lm_loss/"  # a generator may have fewer layers than the model
    depths = sorted(int(metric.removeprefix(name)) for metric in metrics if metric.startswith(name))
    layers = [
        LayerMetrics(
            depth, metrics[f"masked_lm_accuracy/{depth}"], metrics[f"masked_lm_loss/{depth}"]
        )
        for depth in depths
    ]
    names = ("layers", "masked_lm_accuracy", "masked_lm_loss")
    halting = [
        HaltingMetrics(entropy, *(metrics[f"halting_{name}/{entropy}"] for name in names))
        for entropy in entropies
    ]
    return Depths(layers, halting)


def format_layers(depths: Depths) -> str:
    """Return a line for each depth, and for each threshold of halting."""
    lines = ["layers applied   masked-LM accuracy   loss (nats)"]
    lines += [
        f"{layer.depth:14d}   {layer.masked_lm_accuracy:18.1%}   {layer.masked_lm_loss:11.3f}"
        for layer in depths.layers
    ]
    if depths.halting:
        lines.append("halting below (nats)   layers, mean   masked-LM accuracy   loss (nats)")
    lines += [
        f"{one.entropy:20g}   {one.layers:12.2f}   {one.masked_lm_accuracy:18.1%}   "
        f"{one.masked_lm_loss:11.3f}"
        for one in depths.halting
    ]
    return "\n".join(lines)


def plot_layers(depths: Depths, path: epath.PathLike, *, title: str) -> None:
    """Plot accuracy and loss over the depth, and over the mean depth of halting."""
    figure = Figure(layout="constrained")
    figure.suptitle(title)
    panels = pretraining_panels(SentenceObjective.NONE)[:2]
    for axes, name in add_panels(figure, panels, unit="layers applied"):
        values = [getattr(layer, name) for layer in depths.layers]
        axes.plot([layer.depth for layer in depths.layers], values, ".-", label="all tokens alike")
        if depths.halting:
            values = [getattr(one, name) for one in depths.halting]
            means = [one.layers for one in depths.halting]
            axes.plot(means, values, "x--", label="halting by entropy")
            axes.legend()
    save_figure(figure, path)
