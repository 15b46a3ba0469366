"""Attention by blocks is the reference: results and gradients, under every mask."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from albert_jax.attention import tiling
from albert_jax.attention.blocked import blocked_attention
from albert_jax.attention.cudnn import local_attention
from albert_jax.attention.mask import AttentionMask, packed_mask, padding_mask
from albert_jax.attention.reference import dot_product_attention
from albert_jax.attention.tiling import tile

ROWS, LENGTH, HEADS, WIDTH = 3, 24, 6, 5
KEYS = jax.random.split(jax.random.key(0), 4)
OPERANDS = [jax.random.normal(key, (ROWS, LENGTH, HEADS, WIDTH)) for key in KEYS[:3]]
COTANGENT = jax.random.normal(KEYS[3], (ROWS, LENGTH, HEADS, WIDTH))
PACKED = jnp.array(
    [[1] * 10 + [2] * 9 + [0] * 5, [1] * 24, [1] * 2 + [2] * 2 + [3] * 19 + [0]], jnp.int32
)
REAL = jnp.array([[1] * 20 + [0] * 4, [1] * 24, [0] * 24], jnp.int32)  # the last row has none


def results(attend: Any, *who: Any, dtype: Any = jnp.float32) -> list[Array]:
    operands = [x.astype(dtype) for x in OPERANDS]
    value, pullback = jax.vjp(lambda *x: attend(*x, *who), *operands)
    return [value, *pullback(COTANGENT.astype(dtype))]


@pytest.mark.parametrize("max_scores", [1, 2 * LENGTH**2, 6 * LENGTH**2])
@pytest.mark.parametrize(
    ("mask", "ids"),
    [
        (packed_mask(PACKED), (PACKED, PACKED)),
        (padding_mask(REAL), (jnp.ones_like(REAL), REAL)),
    ],
    ids=["packed", "padded"],
)
def test_results_and_gradients_are_those_of_the_reference(
    monkeypatch: pytest.MonkeyPatch, max_scores: int, mask: Array, ids: tuple[Array, Array]
) -> None:
    monkeypatch.setattr(tiling, "MOST_SCORES", max_scores)
    expected = results(dot_product_attention, mask)
    for ours, theirs in zip(results(blocked_attention, *ids), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert np.abs(theirs).max() > 0.1


@pytest.mark.parametrize("reach", [3, 5, 40])
@pytest.mark.parametrize("rows", ["packed", "padded"])
def test_local_attention_is_the_reference_where_there_is_a_token(
    monkeypatch: pytest.MonkeyPatch, rows: str, reach: int
) -> None:
    """CPUs use tiles of 4 queries or more, GPUs use blocks. 24 positions are whole tiles of some
    sizes but not of others, and a reach of 9 leaves nothing outside."""
    for module in ("tiling", "cudnn"):
        monkeypatch.setattr(f"albert_jax.attention.{module}._FEWEST_QUERIES", 4)
    monkeypatch.setattr(tiling, "MOST_SCORES", 300)
    packed = rows == "packed"
    ids = PACKED if packed else REAL
    mask = AttentionMask(None if packed else ids, ids if packed else None, reach=reach)
    real = (ids > 0)[:, :, None, None]
    assert (tile(HEADS, LENGTH, reach).margin is None) == (reach >= 9)

    def computed(attend: Any) -> list[Array]:
        """Results and gradients at tokens only, since padding may attend to anything."""

        @jax.jit
        def run(operands: Any) -> list[Array]:
            value, pullback = jax.vjp(attend, *operands)
            return [value * real, *pullback(COTANGENT * real)]

        return run(OPERANDS)

    expected = computed(lambda *x: dot_product_attention(*x, mask.dense(LENGTH)))
    query_ids = ids if packed else jnp.ones_like(ids)
    by_tiles = computed(lambda *x: blocked_attention(*x, query_ids, ids, reach))
    by_blocks = computed(lambda *x: local_attention(*x, ids, reach=reach))
    for ours, others, theirs in zip(by_tiles, by_blocks, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        np.testing.assert_allclose(others, theirs, atol=1e-5)


def test_bfloat16_is_as_near_to_float32_as_the_reference_in_bfloat16_is() -> None:
    exact = results(dot_product_attention, packed_mask(PACKED))
    rounded = results(dot_product_attention, packed_mask(PACKED), dtype=jnp.bfloat16)
    ours = results(blocked_attention, PACKED, PACKED, dtype=jnp.bfloat16)
    for mine, theirs, true in zip(ours, rounded, exact, strict=True):
        assert mine.dtype == jnp.bfloat16
        errors = [np.linalg.norm(np.asarray(x, np.float32) - true) for x in (mine, theirs)]
        assert errors[0] < 1.1 * errors[1]


def test_the_residuals_hold_no_scores() -> None:
    """The residuals grow with the length, not its square."""
    for reach in (None, 4):
        attend = functools.partial(blocked_attention, reach=reach)
        _, pullback = jax.vjp(lambda *x, f=attend: f(*x, PACKED, PACKED), *OPERANDS)
        kept = [leaf.size for leaf in jax.tree.leaves(pullback)]
        assert kept
        assert max(kept) < ROWS * HEADS * LENGTH**2


def test_as_many_heads_at_once_as_fit_a_cache_and_long_rows_in_tiles() -> None:
    heads = [tile(12, length).heads for length in (1024, 512, 256, 128)]
    assert heads == [1, 1, 4, 12]
    assert tile(7, 256).heads == 1  # 7 has no divisor from 2 to 4
    assert [tile(12, length).tiles for length in (512, 700, 1024, 4096)] == [1, 2, 4, 64]
    assert tile(12, 4096, 64) == (4096, 64, 64, 192, 12, 64, 64)


@pytest.mark.parametrize("reach", [None, 64])
def test_the_memory_of_long_rows_grows_with_their_length(reach: int | None) -> None:
    """If it grew with the square, twice the length would need four times as much."""

    def temporary(length: int) -> int:
        vectors = jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)
        ids = jax.ShapeDtypeStruct((1, length), jnp.int32)

        def gradient(query: Array, key: Array, value: Array, ids: Array) -> Any:
            attend = lambda *x: blocked_attention(*x, ids, ids, reach).sum()  # noqa: E731
            return jax.grad(attend, argnums=(0, 1, 2))(query, key, value)

        compiled = jax.jit(gradient).lower(vectors, vectors, vectors, ids).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(4096) < 2.2 * temporary(2048)
