"""Two thousand steps in float8 and in bfloat16, on the same batches of a language with a floor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.batch import PretrainingBatch
from albert_jax.devices.mesh import make_mesh
from albert_jax.encoder import Execution
from albert_jax.matmuls import Matmuls
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.config import OptimizerConfig, OptimizerName, ScheduleName
from albert_jax.training.losses import summarize
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.parallel import compile_train_step, initialize_state

WORDS, MASK, SUBJECTS = 32, 32, 8
ROWS, LENGTH, PREDICTIONS = 16, 24, 4
STEPS, LAST = 2000, 500
CONFIG = AlbertConfig(
    vocab_size=WORDS + 1,
    embedding_size=16,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=256,
    max_position_embeddings=LENGTH,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.1,
)
ADAMW = make_optimizer(
    OptimizerConfig(
        name=OptimizerName.ADAMW,
        schedule=ScheduleName.POLY,
        learning_rate=3e-3,
        num_train_steps=STEPS,
        num_warmup_steps=100,
        bias_correction=True,
    ),
    global_batch_size=ROWS,
)


def make_batch(rng: np.random.Generator) -> PretrainingBatch:
    """Each row has one of eight subjects, which prefer different words. The visible words predict
    the masked ones as well as possible, and the loss falls without sudden turns."""
    ranked = np.random.default_rng(0).permuted(np.tile(np.arange(WORDS), (SUBJECTS, 1)), axis=1)
    frequencies = 1 / np.arange(1, WORDS + 1) ** 1.5
    ranks = rng.choice(WORDS, (ROWS, LENGTH), p=frequencies / frequencies.sum())
    ids = ranked[rng.integers(SUBJECTS, size=(ROWS, 1)), ranks].astype(np.int32)
    places = rng.permuted(np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1)), axis=1)
    places = places[:, :PREDICTIONS]
    masked = ids.copy()
    np.put_along_axis(masked, places, MASK, axis=1)
    zeros = np.zeros((ROWS, LENGTH), np.int32)
    return PretrainingBatch(
        input_ids=masked,
        token_type_ids=zeros,
        position_ids=zeros + np.arange(LENGTH, dtype=np.int32),
        sequence_ids=zeros + 1,
        masked_lm_positions=places,
        masked_lm_ids=np.take_along_axis(ids, places, axis=1),
        masked_lm_weights=np.ones((ROWS, PREDICTIONS), np.float32),
        sentence_order_positions=zeros[:, :1],
        sentence_order_labels=zeros[:, :1],
        sentence_order_weights=np.zeros((ROWS, 1), np.float32),
    )


def losses(matmuls: Matmuls) -> np.ndarray:
    """The masked-LM loss of each step."""
    model = AlbertForPreTraining(CONFIG, jnp.bfloat16, Execution(matmuls=matmuls))
    mesh = make_mesh(devices=jax.devices()[:1])
    objective = pretraining_objective(model)
    state = initialize_state(model.initialize, ADAMW, jax.random.key(0), mesh)
    step = compile_train_step(objective.loss_fn, ADAMW, state, mesh, weight_fn=objective.weight_fn)
    rng, history = np.random.default_rng(1), []
    for _ in range(STEPS):
        state, metrics = step(state, make_batch(rng), jax.random.key(1))
        history.append(metrics)
    return np.array([summarize(m)["masked_lm_loss"] for m in jax.device_get(history)])


@pytest.mark.slow
def test_float8_learns_what_bfloat16_does() -> None:
    half, float8 = (losses(matmuls) for matmuls in (Matmuls.SAME, Matmuls.FLOAT8))
    means = [float(run[-LAST:].mean()) for run in (half, float8)]
    print(f"bfloat16 {means[0]:.4f}, float8 {means[1]:.4f}; at first {half[:10].mean():.2f}")
    assert half[:10].mean() > 3.3, "it begins with guessing among 32 words"
    assert means[0] < 2.25, "and learns nearly all that there is: 2.15 if subjects were known"
    assert not np.array_equal(half, float8)
    assert abs(means[1] - means[0]) < 0.02
