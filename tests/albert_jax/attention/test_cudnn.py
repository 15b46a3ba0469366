"""Parts of cuDNN's attention that run without a GPU: offsets, padding, JAX's private module."""

import inspect
import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from albert_jax import AlbertConfig
from albert_jax.attention.cudnn import CUDNN, cudnn_attention, packed_offsets, private_cudnn
from albert_jax.attention.dispatch import Attention, choose_attention
from albert_jax.attention.implementation import AttentionWorkload
from albert_jax.attention.mask import AttentionMask, packed_mask
from albert_jax.attention.reference import dot_product_attention


def test_offsets_of_packed_rows() -> None:
    ids = jnp.array([[1, 1, 2, 0], [1, 2, 3, 3], [0, 0, 0, 0]])
    offsets, lengths = packed_offsets(ids, 3)
    np.testing.assert_array_equal(offsets, [[0, 2, -1, -1], [0, 1, 2, -1], [-1, -1, -1, -1]])
    np.testing.assert_array_equal(lengths, [[2, 1, -1], [1, 1, 2], [-1, -1, -1]])


def test_packed_rows_leave_no_position_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN's kernel writes only where the offsets place a sequence. A stand-in for it writes NaN
    elsewhere; whether the kernel itself is right is checked on the device, at the start of a run.
    """
    ids = jnp.array([[1, 1, 1, 2, 2, 0, 0, 0], [1, 2, 2, 2, 3, 3, 3, 3], [1] * 8, [0] * 8])
    received = []

    def kernel(
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        *,
        q_offsets: jax.Array,
        q_seqlen: jax.Array,
        kv_offsets: jax.Array,
        kv_seqlen: jax.Array,
        scale: float,
        mask_type: Any,
    ) -> jax.Array:
        received.append(q_seqlen)
        starts = q_offsets[:, :-1, None]
        within = np.arange(query.shape[1]) - starts
        covers = (starts >= 0) & (within >= 0) & (within < q_seqlen[:, :, None])
        number = jnp.argmax(covers, axis=1)
        context = dot_product_attention(query, key, value, packed_mask(number))
        return jnp.where(covers.any(1)[:, :, None, None], context, jnp.nan)

    monkeypatch.setattr(fused_attention_stablehlo, "dot_product_attention", kernel)
    operands = list(jax.random.normal(jax.random.key(0), (3, *ids.shape, 2, 8)))
    context = cudnn_attention(*operands, ids, max_sequences=3)
    np.testing.assert_allclose(
        context, dot_product_attention(*operands, packed_mask(ids)), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(
        received[0], [[3, 2, 3, -1], [1, 3, 4, -1], [8, -1, -1, -1], [8, -1, -1, -1]]
    )


def test_the_private_function_of_jax_still_takes_what_it_is_given() -> None:
    assert private_cudnn() is fused_attention_stablehlo
    taken = inspect.signature(fused_attention_stablehlo.dot_product_attention).parameters
    assert {"q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets", "scale", "mask_type"} <= set(taken)
    assert fused_attention_stablehlo.MaskType.PADDING


@pytest.mark.parametrize("how", ["missing", "other arguments"])
def test_without_the_private_module_packed_rows_fall_back_to_the_reference(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "missing":
        monkeypatch.delattr("jax._src.cudnn.fused_attention_stablehlo")
        monkeypatch.setitem(sys.modules, "jax._src.cudnn.fused_attention_stablehlo", None)
    else:
        monkeypatch.setattr(
            fused_attention_stablehlo, "dot_product_attention", lambda query, key, value: value
        )
    hopper: Any = SimpleNamespace(platform="gpu", compute_capability="9.0")
    workload = AttentionWorkload(
        AlbertConfig.from_name("base_v2"), jnp.bfloat16, (512,), True, hopper
    )
    assert CUDNN.reason_against(workload._replace(packed=False)) is None
    picked, line = choose_attention(Attention.AUTO, workload)
    assert picked is Attention.XLA
    assert line.startswith("attention: xla; not cudnn: packed rows need jax._src.cudnn.fused")
    assert f"JAX {jax.__version__} does not have" in line
    with pytest.raises(ValueError, match=r"packed rows need jax\._src.*; xla and auto can"):
        choose_attention(Attention.CUDNN, workload)
    ids = jnp.ones((1, 8), jnp.int32)
    query = jnp.ones((1, 8, 1, 8), jnp.bfloat16)
    with pytest.raises(NotImplementedError, match="packed rows need"):
        cudnn_attention(query, query, query, ids, max_sequences=2)


def test_packed_rows_need_a_bound_of_their_sequences() -> None:
    with pytest.raises(ValueError, match="cudnn needs pooled_positions"):
        CUDNN.bind(AttentionMask(sequence_ids=np.ones((1, 8), np.int32)))
