"""The objective of a task: loss, weights and predictions."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array
from jaxtyping import PyTree

from albert_jax.training.losses import LossFn, WeightFn


class Objective(NamedTuple):
    """What training and evaluating a model on a task takes."""

    loss_fn: LossFn
    weight_fn: WeightFn
    # (parameters, batch) -> arrays by name, whose first axis are the batch's rows; no dropout
    predict: Callable[[PyTree, Any], dict[str, Array]]
