"""Stateless random numbers: functions of a key and a counter, and a keyed permutation."""

import hashlib

import numpy as np
from jaxtyping import Int64, UInt32

Integers = int | np.integer | np.ndarray

_PHILOX_ROUNDS = 10
_PHILOX_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_PHILOX_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)

_FEISTEL_ROUNDS = 8
_SPLITMIX_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def derive_key(*parts: object) -> int:
    """Return a 64-bit key for one stream of random numbers, as in `derive_key(seed, "masks")`.

    Streams with different names are independent, so no two uses of a seed share random numbers.
    """
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def random_bits(key: int, *counter: Integers) -> UInt32[np.ndarray, "*shape 4"]:
    """Return four uniform 32-bit words for each counter, by Philox 4x32-10 (Salmon et al. 2011).

    Args:
        key: 64 bits, as returned by `derive_key`.
        counter: up to three non-negative integers, or arrays that broadcast together. The first has
            up to 64 bits, the others 32 bits each.

    Example: `random_bits(0, 0)` is `[0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]`, the
    published values for an all-zero key and counter, and those of TensorFlow's Philox kernels.
    """
    first, *others = np.broadcast_arrays(*(np.asarray(part, np.uint64) for part in counter))
    words = [first & _LOW_WORD, first >> _WORD_BITS, *others]
    words += [np.zeros_like(first)] * (4 - len(words))
    c0, c1, c2, c3 = words
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(_PHILOX_ROUNDS):
        product0, product1 = _PHILOX_MULTIPLIERS[0] * c0, _PHILOX_MULTIPLIERS[1] * c2
        c0 = (product1 >> _WORD_BITS) ^ c1 ^ np.uint64(k0)
        c2 = (product0 >> _WORD_BITS) ^ c3 ^ np.uint64(k1)
        c1, c3 = product1 & _LOW_WORD, product0 & _LOW_WORD
        k0, k1 = (k0 + _PHILOX_WEYL[0]) & 0xFFFFFFFF, (k1 + _PHILOX_WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def scale_bits(bits: UInt32[np.ndarray, "*shape"], bound: Integers) -> Int64[np.ndarray, "*shape"]:
    """Map random 32-bit words to uniform integers in `[0, bound)`: the high half of `bits * bound`.

    The bias is at most `bound / 2**32`.

    Example: `scale_bits([0, 2**31, 2**32 - 1], 10)` is `[0, 5, 9]`.
    """
    product = bits.astype(np.uint64) * np.asarray(bound, np.uint64)
    return (product >> _WORD_BITS).astype(np.int64)


def permute(
    indices: Int64[np.ndarray, " rows"], size: int, *, key: int
) -> Int64[np.ndarray, " rows"]:
    """Apply the keyed permutation of `0..size-1` to each index, without an array of `size`.

    This is a Feistel network over the smallest even number of bits that holds `size`. Images
    outside the range are encrypted again until they fall inside (cycle walking: fewer than four
    passes on average). The map is one-to-one on the range; its cost depends on neither `size` nor
    the index.

    Example: `permute(np.arange(5), 5, key=7)` holds each of 0..4 once, in an order given by key 7.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    round_keys = random_bits(key, np.arange(_FEISTEL_ROUNDS)).view(np.uint64)[:, 0]
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
    """Apply the finalizer of SplitMix64 (Steele et al. 2014): each input bit affects all output."""
    values = (values ^ (values >> np.uint64(30))) * _SPLITMIX_MULTIPLIERS[0]
    values = (values ^ (values >> np.uint64(27))) * _SPLITMIX_MULTIPLIERS[1]
    return values ^ (values >> np.uint64(31))
