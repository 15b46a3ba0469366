"""Attention by blocks is the reference: results and gradients, under every mask."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from albert_jax.attention import blocked
from albert_jax.attention.blocked import blocked_attention, heads_per_block
from albert_jax.attention.mask import packed_mask, padding_mask
from albert_jax.attention.reference import dot_product_attention

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
    monkeypatch.setattr(blocked, "_MAX_SCORES", max_scores)
    expected = results(dot_product_attention, mask)
    for ours, theirs in zip(results(blocked_attention, *ids), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert np.abs(theirs).max() > 0.1


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
    _, pullback = jax.vjp(lambda *x: blocked_attention(*x, PACKED, PACKED), *OPERANDS)
    kept = [leaf.size for leaf in jax.tree.leaves(pullback)]
    assert kept
    assert max(kept) < ROWS * HEADS * LENGTH**2


def test_as_many_heads_at_once_as_fit_a_cache() -> None:
    assert [heads_per_block(12, length) for length in (1024, 512, 256, 128)] == [1, 1, 4, 12]
    assert heads_per_block(7, 256) == 1  # 7 has no divisor from 2 to 4
