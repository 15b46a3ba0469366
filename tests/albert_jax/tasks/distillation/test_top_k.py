"""The highest scores of a row, found by blocks, against those of the whole row."""

import jax
import numpy as np
import pytest

from albert_jax.tasks.distillation.top_k import BLOCK, top_k


@pytest.mark.parametrize(("width", "count"), [(40 * BLOCK, 8), (23 * BLOCK + 5, 3), (BLOCK, 4)])
def test_scores_and_places_are_those_of_whole_rows(width: int, count: int) -> None:
    """Of equal scores the first win, even if a whole block or nearly a whole row is banned."""
    scores = np.random.default_rng(width).integers(9, size=(20, width)).astype(np.float32)
    scores[5:] *= np.random.default_rng(1).normal(size=(15, 1))
    scores[10:15, width // 3 :] = -np.inf
    scores[15, : width - 2] = scores[16] = -np.inf
    expected = jax.lax.top_k(scores, count)
    for actual, wanted in zip(top_k(jax.numpy.asarray(scores), count), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)
