"""Models whose matmuls round their operands: gradients, and the equations of a traced step."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from spread_steps import CONFIG, make_batch

from albert_jax import AlbertForPreTraining
from albert_jax.config import AlbertConfig
from albert_jax.encoder import Execution
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.train_step import make_gradient_fn

SHARED = dataclasses.replace(
    CONFIG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_hidden_layers=2
)
LAYER_MATMULS = 6  # query, key, value, attention output, two of the feed-forward half


def gradient_fn(config: AlbertConfig, execution: Execution, dtype: Any = jnp.float32) -> Any:
    objective = pretraining_objective(AlbertForPreTraining(config, dtype, execution))
    return make_gradient_fn(objective.loss_fn, objective.weight_fn, row_axes=())


@functools.cache
def parameters(config: AlbertConfig) -> Any:
    return AlbertForPreTraining(config).initialize(jax.random.key(0))


@functools.cache
def gradients(config: AlbertConfig, execution: Execution, dtype: Any = jnp.float32) -> np.ndarray:
    function = jax.jit(gradient_fn(config, execution, dtype))
    grads, _ = function(parameters(config), make_batch(0), jax.random.key(1))
    return np.asarray(ravel_pytree(grads)[0], np.float64)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a traced program, those of its loops and functions among them."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values())):
            if hasattr(inner, "eqns"):
                yield from equations(inner)
