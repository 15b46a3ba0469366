"""Experts replaced by their mean, and how much that changes the outputs."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from albert_jax.encoder.merging import average_experts
from albert_jax.interop.names import AVERAGED, WeightsError
from albert_jax.interop.stored_weights import flatten, unflatten
from albert_jax.model import AlbertModel
from albert_jax.pretrained import PretrainedWeights
from albert_jax.tasks.models import AlbertForMaskedLM

ROWS, LENGTH, _SEED = 8, 128, 0


class Difference(NamedTuple):
    """The difference between two models on rows of random tokens."""

    hidden: float  # of the last hidden states, relative, in the Euclidean norm
    divergence: float | None  # of predicted tokens, nats a position; None without a masked-LM head
    agreement: float | None  # fraction of positions with the same most probable token


def average_stored_experts(stored: PretrainedWeights) -> tuple[PretrainedWeights, Difference]:
    """Return the model with its experts averaged, and what that changed; see `average_experts`.

    Raises:
        WeightsError: it has no experts.
    """
    if not stored.config.num_experts:
        raise WeightsError(f"{AVERAGED}: the model has none (model.num_experts=0)")
    params, config = average_experts(flatten(stored.params), stored.config)
    averaged = dataclasses.replace(stored, params=unflatten(dict(params)), config=config)
    return averaged, measure_difference(stored, averaged)


def measure_difference(first: PretrainedWeights, second: PretrainedWeights) -> Difference:
    """Return the difference between two models of the same vocabulary."""
    length = min(LENGTH, first.config.longest_row or LENGTH)
    rng = np.random.default_rng(_SEED)
    ids = rng.integers(first.config.vocab_size, size=(ROWS, length)).astype(np.int32)
    hidden, predicted = zip(*(_outputs(model, ids) for model in (first, second)), strict=True)
    relative = float(jnp.linalg.norm(hidden[1] - hidden[0]) / jnp.linalg.norm(hidden[0]))
    if predicted[0] is None:
        return Difference(relative, None, None)
    divergence = (jnp.exp(predicted[0]) * (predicted[0] - predicted[1])).sum(-1).mean()
    agreement = (predicted[0].argmax(-1) == predicted[1].argmax(-1)).mean()
    return Difference(relative, float(divergence), float(agreement))


def format_difference(difference: Difference) -> str:
    """Format a difference as one line."""
    line = (
        f"experts replaced by their mean: on {ROWS} rows of random tokens, last hidden states "
        f"change by {difference.hidden:.2%}"
    )
    if difference.divergence is None:
        return line
    return (
        f"{line}, predictions by {difference.divergence:.2g} nats, and "
        f"{difference.agreement:.1%} of the most probable tokens stay"
    )


def _outputs(
    stored: PretrainedWeights, ids: np.ndarray
) -> tuple[Float[Array, "rows length hidden"], Float[Array, "rows length vocabulary"] | None]:
    """Return the last hidden states, and log-probabilities if there is a masked-LM head."""
    encoder = {name: leaf for name, leaf in stored.params["albert"].items() if name != "pooler"}
    params: dict[str, Any] = {"albert": encoder}
    model = AlbertModel(stored.config, add_pooling_layer=False)
    hidden = jax.jit(model.apply)({"params": encoder}, ids).last_hidden_state
    if "predictions" not in stored.params:
        return hidden, None
    params["predictions"] = stored.params["predictions"]
    logits = jax.jit(AlbertForMaskedLM(stored.config).apply)({"params": params}, ids).logits
    return hidden, jax.nn.log_softmax(logits)
