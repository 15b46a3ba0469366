"""A linear regression: the smallest task that a training step can be made of."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.training.config import OptimizerConfig, OptimizerName
from albert_jax.training.losses import Metrics, Ratio
from albert_jax.training.optimizer import make_optimizer

ROWS = 8
ADAMW = make_optimizer(
    OptimizerConfig(
        name=OptimizerName.ADAMW, learning_rate=0.05, num_train_steps=400, num_warmup_steps=4
    ),
    global_batch_size=ROWS,
)


def loss_fn(params: Any, batch: Any, key: Any) -> Metrics:
    errors = jnp.square(batch["x"] @ params["kernel"] - batch["y"])
    return {"squared_loss": Ratio(errors.sum(), jnp.float32(errors.size))}


def weight_fn(batch: Any) -> dict[str, jax.Array]:
    return {"squared_loss": jnp.float32(batch["y"].size)}


def initialize(key: jax.Array) -> Any:
    return {"kernel": jax.random.normal(key, (4,))}


def make_batch(number: int, *, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    x = rng.normal(size=(ROWS, 4)).astype("f4")
    noise = 0.3 * rng.normal(size=ROWS)
    return {"x": x, "y": (scale * (x @ [1, 2, 3, 4] + noise)).astype("f4")}
