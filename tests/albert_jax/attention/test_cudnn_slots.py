"""Parts of cuDNN's attention over sequence slots that run without a GPU."""

import dataclasses
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import spread_steps
from jax import Array
from jax._src.cudnn import fused_attention_stablehlo
from random_inputs import random_batch

from albert_jax import AlbertConfig, AlbertForPreTraining
from albert_jax.attention.cudnn import CUDNN
from albert_jax.attention.cudnn_slots import (
    batch_offsets,
    slot_kernels,
    slots_needed,
    slots_suffice,
    slotted_attention,
)
from albert_jax.attention.dispatch import Attention
from albert_jax.attention.implementation import AttentionImplementation, AttentionWorkload
from albert_jax.attention.mask import AttentionMask, packed_mask
from albert_jax.attention.reference import dot_product_attention
from albert_jax.attention.verification import error_of
from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.sharding import place_batch
from albert_jax.encoder import Execution
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.parallel import compile_train_step

ROWS = np.array([[1, 2, 2, 3, 0, 0, 0, 0], [1] * 8, [0] * 8, [1] * 7 + [0]])
CPU_CONFIG = dataclasses.replace(
    spread_steps.CONFIG, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0
)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for cuDNN's kernels. They find the sequences of all rows by offsets and lengths
    only, and write NaN where there is no sequence."""

    def attention(*operands: Any) -> tuple[Array, Callable[[Array], Any]]:
        query, key, value, _, lengths, key_lengths, offsets, key_offsets = operands[:8]
        assert lengths is key_lengths
        assert offsets is key_offsets
        batch, length, heads, width = query.shape
        assert offsets.shape == (batch, lengths.shape[1] + 1)
        starts = offsets.ravel()[: lengths.size, None] // (heads * width)
        within = np.arange(batch * length) - starts
        covers = (within >= 0) & (within < lengths.ravel()[:, None])
        number, named = (x.reshape(batch, length) for x in (jnp.argmax(covers, 0), covers.any(0)))

        def run(*x: Array) -> Array:
            return dot_product_attention(*x, packed_mask(number))

        context, pullback = jax.vjp(run, query, key, value)
        return jnp.where(named[..., None, None], context, jnp.nan), pullback

    def forward(*operands: Any, scale: float, **_: Any) -> list[Array]:
        assert scale == pytest.approx(operands[0].shape[-1] ** -0.5)
        return [attention(*operands)[0], jnp.zeros(())]

    def backward(*operands: Any, **_: Any) -> Any:
        return attention(*operands)[1](operands[-1])

    for name, bind in (("fwd", forward), ("bwd", backward)):
        primitive = f"_dot_product_attention_{name}_p"
        monkeypatch.setattr(fused_attention_stablehlo, primitive, SimpleNamespace(bind=bind))


def test_offsets_of_a_batch() -> None:
    ids = jnp.array([[1, 1, 2, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    starts, lengths = batch_offsets(ids, 2)
    np.testing.assert_array_equal(starts, [[0, 2, 3], [4, 8, 12], [12, 12, 12]])
    np.testing.assert_array_equal(lengths, [[2, 1], [1, 4], [4, 0]])


def test_slots_that_hold_a_batch() -> None:
    ids = np.array([[1, 2, 3, 0], [1, 1, 2, 2], [1, 1, 1, 1], [0, 0, 0, 0]])
    assert slots_needed(ids) == 2  # eight sequences
    assert slots_needed(ids[:3]) == 3  # seven in three rows
    assert slots_needed(ids, shards=2) == 3  # six in the first half
    assert slots_needed(ids, micro_batches=2) == 3  # five in rows 0 and 2
    assert slots_needed(ids, shards=2, micro_batches=2) == 4  # the first row alone
    assert slots_needed(ids[2:]) == 2  # never one
    assert bool(slots_suffice(jnp.asarray(ids), 2))
    assert not bool(slots_suffice(jnp.asarray(ids[:3]), 2))


@pytest.mark.parametrize("slots", [2, 3])
def test_slots_hold_sequences_of_any_row(kernels: None, slots: int) -> None:
    """Packed, full, empty and padded rows: values and gradients at every position."""
    ids = jnp.asarray(ROWS)
    query, key, value, cotangent = jax.random.normal(jax.random.key(0), (4, *ids.shape, 2, 8))

    def results(attend: Callable[..., Array]) -> list[Array]:
        context, pullback = jax.vjp(attend, query, key, value)
        return [context, *pullback(cotangent)]

    ours = results(lambda *x: slotted_attention(*x, ids, slots=slots))
    expected = results(lambda *x: dot_product_attention(*x, packed_mask(ids)))
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_verification_at_start_up_covers_slots(kernels: None) -> None:
    workload = AttentionWorkload(
        CPU_CONFIG, jnp.float32, (16,), packed=True, device=jax.devices()[0], slotted=True
    )
    assert error_of(CUDNN, workload) < 1e-5

    def bind_too_few(mask: AttentionMask) -> Callable[..., Array]:
        return CUDNN.bind(mask._replace(sequence_slots=2))

    wrong = AttentionImplementation(bind_too_few, CUDNN.unsupported_reason)
    assert not error_of(wrong, workload) < 1e-5


def test_steps_with_slots_on_eight_devices_are_those_of_the_reference(kernels: None) -> None:
    """Each device has two rows of its own: one with three sequences and one with a single one."""
    batch = spread_steps.make_batch(0)
    ids = np.array(batch.sequence_ids)
    ids[1::2] = 1
    weights = np.array(batch.sentence_order_weights)
    weights[1::2, 1] = 0
    batch = batch._replace(sequence_ids=ids, sentence_order_weights=weights)
    assert slots_needed(ids, shards=8) == 2
    mesh, key = make_mesh(), jax.random.key(0)

    def take(execution: Execution) -> Any:
        state = spread_steps.initial_state(config=CPU_CONFIG)
        objective = pretraining_objective(AlbertForPreTraining(CPU_CONFIG, execution=execution))
        step = compile_train_step(
            objective.loss_fn, spread_steps.LAMB, state, mesh, weight_fn=objective.weight_fn
        )
        after, metrics = step(state, place_batch(batch, mesh), key)
        return jax.device_get((after.params, metrics))

    ours = take(Execution(attention=Attention.CUDNN, sequence_slots=2))
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6),
        ours,
        take(Execution()),
    )


def test_a_batch_with_more_sequences_than_slots_gives_no_loss() -> None:
    rows = [[5, 4]]  # two pairs and padding: three sequences
    batch = random_batch(CPU_CONFIG, rows, 12, np.random.default_rng(0))
    params = spread_steps.initial_state(config=CPU_CONFIG).params

    def logits(slots: int | None) -> Array:
        model = AlbertForPreTraining(CPU_CONFIG, execution=Execution(sequence_slots=slots))
        outputs: Any = model.apply(
            {"params": params},
            batch.input_ids,
            position_ids=batch.position_ids,
            sequence_ids=batch.sequence_ids,
        )
        return outputs.prediction_logits

    np.testing.assert_array_equal(logits(3), logits(None))
    assert bool(jnp.isnan(logits(2)).all())


def test_the_private_primitives_of_jax_still_take_what_they_are_given() -> None:
    """Traced, not run: there is no kernel for a CPU."""
    assert slot_kernels() is fused_attention_stablehlo
    row = jax.ShapeDtypeStruct((4, 128, 2, 64), jnp.bfloat16)
    ids = jnp.ones((4, 128), jnp.int32)

    def run(query: Array, key: Array, value: Array) -> Any:
        context, pullback = jax.vjp(
            lambda *x: slotted_attention(*x, ids, slots=2), query, key, value
        )
        return context, pullback(context)

    shapes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(run, row, row, row))]
    assert shapes == [row.shape] * 4


@pytest.mark.parametrize("how", ["missing", "other arguments"])
def test_without_the_private_primitives_slots_are_unsupported(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "missing":
        monkeypatch.delattr(fused_attention_stablehlo, "_dot_product_attention_bwd_p")
    else:
        name = "_dot_product_attention_fwd_cuda_lowering"
        real = inspect.signature(getattr(fused_attention_stablehlo, name))
        lowering: Any = lambda *_: None  # noqa: E731
        lowering.__signature__ = real.replace(parameters=list(real.parameters.values())[:-1])
        monkeypatch.setattr(fused_attention_stablehlo, name, lowering)
    hopper: Any = SimpleNamespace(platform="gpu", compute_capability="9.0")
    workload = AttentionWorkload(
        AlbertConfig.from_name("base_v2"), jnp.bfloat16, (512,), True, hopper, slotted=True
    )
    reason = CUDNN.reason_against(workload)
    assert reason is not None
    assert reason.startswith("run.sequence_slots needs primitives of jax._src.cudnn")
    assert CUDNN.reason_against(workload._replace(slotted=False)) is None
    query = jnp.ones((1, 8, 1, 8), jnp.bfloat16)
    with pytest.raises(NotImplementedError, match="sequence_slots needs primitives"):
        slotted_attention(query, query, query, jnp.ones((1, 8), jnp.int32), slots=2)


def test_slots_are_unsupported_where_heads_are_split_over_devices() -> None:
    hopper: Any = SimpleNamespace(platform="gpu", compute_capability="9.0")
    config = AlbertConfig.from_name("base_v2")
    workload = AttentionWorkload(config, jnp.bfloat16, (512,), True, hopper, True, True)
    reason = CUDNN.reason_against(workload)
    assert reason is not None
    assert "run.tensor must be 1" in reason
