"""The order of an epoch: a keyed permutation of row numbers that needs no array."""

import numpy as np
from jaxtyping import Int64

from data_pipeline import randomness as philox

_ROUNDS = 8
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def permute(
    indices: Int64[np.ndarray, " rows"], size: int, *, key: int
) -> Int64[np.ndarray, " rows"]:
    """Where the keyed permutation of 0..size-1 sends each index.

    A Feistel network over the smallest even number of bits that holds `size`; an image outside the
    range is sent through again until it falls inside (cycle walking: less than four passes on
    average), so the map is one-to-one on the range, and its cost depends neither on `size` nor on
    the index.

    Example: `permute(np.arange(5), 5, key=7)` holds each of 0..4 once, in an order of key 7's own.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    round_keys = philox.draw(key, np.arange(_ROUNDS)).view(np.uint64)[:, 0]
    image = indices.astype(np.uint64)
    pending = np.arange(len(indices))
    while len(pending):
        image[pending] = _encrypt(image[pending], half, round_keys)
        pending = pending[image[pending] >= size]
    return image.astype(np.int64)


def _encrypt(values: np.ndarray, half: int, round_keys: np.ndarray) -> np.ndarray:
    width, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> width, values & mask
    for round_key in round_keys:
        left, right = right, left ^ (_mix(right ^ round_key) & mask)
    return (left << width) | right


def _mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al. 2014): every input bit moves every output bit."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))
