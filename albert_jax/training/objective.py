"""Training objective of a task."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array
from jaxtyping import PyTree

from albert_jax.training.losses import LossFn, WeightFn

# (parameters, batch) -> arrays by name, whose first axis is the batch's; without dropout
Predict = Callable[[PyTree, Any], dict[str, Array]]


def dropout_options(key: Array | None) -> dict[str, Any]:
    """Return the options of `apply` for dropout with a key; None disables dropout."""
    return {"deterministic": key is None, "rngs": None if key is None else {"dropout": key}}


class Objective(NamedTuple):
    """Loss, weights and predictions of a model on a task.

    Attributes:
        loss_fn: sums and weights.
        weight_fn: the denominators of the losses.
        predict: logits without dropout.
        sampled_loss_fn: `loss_fn` on labels that the model itself samples, without dropout; for an
            optimizer that estimates curvature.
    """

    loss_fn: LossFn
    weight_fn: WeightFn
    predict: Predict
    sampled_loss_fn: LossFn | None = None
