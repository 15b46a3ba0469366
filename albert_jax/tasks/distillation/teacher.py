"""A teacher of distillation: a frozen model that predicts the masked tokens of training batches.

It is a separate program, compiled in addition to the training step and run before it on the same
devices. The step takes its predictions as part of the batch, wherever they come from.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from albert_jax.batch import PretrainingBatch, TeacherPredictions
from albert_jax.devices.sharding import ROWS, P
from albert_jax.model import AlbertForPreTraining
from albert_jax.tasks.distillation.config import DistillationConfig
from albert_jax.tasks.distillation.top_k import top_k


def predict_top_tokens(
    model: AlbertForPreTraining, params: PyTree, batch: PretrainingBatch, config: DistillationConfig
) -> TeacherPredictions:
    """Return the teacher's most probable tokens at each slot, without dropout.

    Args:
        model: the teacher.
        params: its parameters, with or without those of the sentence head and the pooler.
        batch: the batch.
        config: how many tokens, and the temperature.
    """
    outputs: Any = model.apply(
        {"params": params},
        **batch.row_inputs(),
        masked_lm_positions=batch.masked_lm_positions,
        output_sop_logits=False,
    )
    scaled = outputs.prediction_logits / config.temperature
    rows, slots, vocabulary = scaled.shape
    highest, token_ids = top_k(scaled.reshape(-1, vocabulary), config.top_k)
    log_probs = highest.reshape(rows, slots, -1) - jax.nn.logsumexp(scaled, -1, keepdims=True)
    return TeacherPredictions(
        token_ids.reshape(rows, slots, -1).astype(jnp.int32), log_probs.astype(jnp.float32)
    )


def compile_teacher(
    model: AlbertForPreTraining, config: DistillationConfig, mesh: Mesh, *, micro_batches: int = 1
) -> jax.stages.Wrapped:
    """Jit ``(params, batch) -> TeacherPredictions`` for a mesh.

    Each device has all of the parameters and predicts its own rows; devices that share matmuls in
    training predict the same rows.

    Args:
        model: the teacher.
        config: how many tokens, and the temperature.
        mesh: the devices.
        micro_batches: number of parts in which a device takes its rows; must divide their number.
    """

    def predict(params: PyTree, batch: PretrainingBatch) -> TeacherPredictions:
        if micro_batches == 1:
            return predict_top_tokens(model, params, batch, config)

        def split(field: Array) -> Array:
            return field.reshape(micro_batches, -1, *field.shape[1:])

        parts = jax.lax.map(
            lambda micro: predict_top_tokens(model, params, micro, config),
            jax.tree.map(split, batch),
        )
        joined: Any = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)
        return joined

    return jax.jit(
        jax.shard_map(
            predict,
            mesh=mesh,
            in_specs=(P(), ROWS),
            out_specs=ROWS,
            check_vma=False,  # as for the step: kernels cannot be called where it is checked
        ),
        out_shardings=NamedSharding(mesh, ROWS),
    )
