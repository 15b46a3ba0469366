"""One step, however it is spread: devices, micro-batches and pmap give the same parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.batch import PretrainingBatch
from albert_jax.losses import make_pretraining_loss, pretraining_weights, summarize
from albert_jax.parallel import (
    Parallelism,
    compile_eval_step,
    compile_train_step,
    initialize_state,
    make_mesh,
    place_batch,
)

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
