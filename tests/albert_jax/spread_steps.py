"""Training steps of a small model, compiled once for the tests of all files, and their batches."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.batch import PretrainingBatch, TeacherPredictions
from albert_jax.devices.mesh import make_mesh
from albert_jax.encoder import Execution
from albert_jax.tasks.distillation import DistillationConfig
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.config import OptimizerConfig, OptimizerName
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.parallel import compile_train_step, initialize_state
from albert_jax.training.train_step import TrainState

CONFIG = AlbertConfig(
    vocab_size=48,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
    initializer_range=0.2,
)
ROWS, LENGTH, PREDICTIONS, PAIRS = 16, 12, 3, 2
EXECUTION = Execution()
LAMB = make_optimizer(
    OptimizerConfig(learning_rate=0.02, num_train_steps=10, num_warmup_steps=1),
    global_batch_size=ROWS,
)
SOPHIA = make_optimizer(
    OptimizerConfig(
        name=OptimizerName.SOPHIA,
        learning_rate=0.02,
        num_train_steps=10,
        num_warmup_steps=1,
        curvature_every=2,
    ),
    global_batch_size=ROWS,
)


def make_batch(seed: int) -> PretrainingBatch:
    """Rows of two pairs, of five and six tokens, whose predictions are unevenly distributed: the
    rows of the third of eight devices have none at all, the first ones most."""
    rng = np.random.default_rng(seed)
    weights = (rng.random((ROWS, PREDICTIONS)) < np.linspace(1, 0.1, ROWS)[:, None]).astype("f4")
    weights[4:6] = 0
    order_weights = np.ones((ROWS, PAIRS), np.float32)
    order_weights[4:6] = 0
    order_weights[9:, 1] = 0

    def rows(values: object) -> np.ndarray:
        return np.tile(np.asarray(values, np.int32), (ROWS, 1))

    def integers(low: int, high: int, size: int) -> np.ndarray:
        return rng.integers(low, high, (ROWS, size)).astype(np.int32)

    return PretrainingBatch.from_numpy(
        {
            "input_ids": integers(5, CONFIG.vocab_size, LENGTH),
            "token_type_ids": rows([0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0]),
            "position_ids": rows([*range(5), *range(6), 0]),
            "sequence_ids": rows([1] * 5 + [2] * 6 + [0]),
            "masked_lm_positions": integers(0, LENGTH - 1, PREDICTIONS),
            "masked_lm_ids": integers(5, CONFIG.vocab_size, PREDICTIONS),
            "masked_lm_weights": weights,
            "sentence_order_positions": rows([0, 5]),
            "sentence_order_labels": integers(0, 2, PAIRS),
            "sentence_order_weights": order_weights,
        }
    )


def teach(batch: PretrainingBatch, top_k: int, *, seed: int) -> PretrainingBatch:
    """Add the predictions of a teacher that thinks some random tokens probable."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(ROWS, PREDICTIONS, CONFIG.vocab_size)).astype(np.float32)
    token_ids = np.argsort(-scores)[..., :top_k].astype(np.int32)
    log_probs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    top = np.take_along_axis(log_probs, token_ids, -1)
    return batch._replace(teacher=TeacherPredictions(token_ids, top))


@functools.cache
def initial_state(
    *,
    config: AlbertConfig = CONFIG,
    optimizer: optax.GradientTransformation = LAMB,
    devices: int = 1,
    fsdp: int = 1,
    tensor: int = 1,
) -> TrainState:
    """Initialize a state on a mesh, and bring it to the host."""
    model = AlbertForPreTraining(config)

    def initialize(key: jax.Array) -> Any:
        return model.init(key, jnp.zeros((1, LENGTH), jnp.int32))["params"]

    mesh = make_mesh(devices=jax.devices()[:devices], fsdp=fsdp, tensor=tensor)
    return jax.device_get(initialize_state(initialize, optimizer, jax.random.key(0), mesh))


@functools.cache
def lowered_step(
    *,
    config: AlbertConfig = CONFIG,
    execution: Execution = EXECUTION,
    optimizer: optax.GradientTransformation = LAMB,
    devices: int = 8,
    fsdp: int = 1,
    tensor: int = 1,
    distillation: DistillationConfig | None = None,
    **spread: Any,
) -> tuple[jax.stages.Lowered, Mesh]:
    """The step before it is compiled, and its mesh."""
    mesh = make_mesh(devices=jax.devices()[:devices], fsdp=fsdp, tensor=tensor)
    state = initial_state(config=config, optimizer=optimizer)
    objective = pretraining_objective(
        AlbertForPreTraining(config, execution=execution), distillation=distillation
    )
    step = compile_train_step(
        objective.loss_fn, optimizer, state, mesh, weight_fn=objective.weight_fn, **spread
    )
    batch, key = make_batch(0), jax.random.key(0)
    if distillation is not None:
        batch = teach(batch, distillation.top_k, seed=0)
    return step.lower(*jax.eval_shape(lambda *x: x, state, batch, key)), mesh


@functools.cache
def compiled_step(**spread: Any) -> tuple[jax.stages.Compiled, Mesh]:
    """The step and its mesh; arguments as for `lowered_step`."""
    lowered, mesh = lowered_step(**spread)
    return lowered.compile(), mesh
