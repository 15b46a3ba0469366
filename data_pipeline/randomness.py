"""Random numbers without state: every draw is a function of a key and a counter."""

import hashlib

import numpy as np
from jaxtyping import UInt32

Whole = int | np.integer | np.ndarray

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def derive_key(*parts: object) -> int:
    """A 64-bit key for one stream of draws, such as `derive_key(seed, "masks")`.

    Streams of different names are unrelated, so no two uses of one seed meet the same numbers.
    """
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def draw(key: int, *counter: Whole) -> UInt32[np.ndarray, "*shape 4"]:
    """Philox 4x32-10 (Salmon et al. 2011): four uniform 32-bit words for each counter.

    Args:
        key: 64 bits, as `derive_key` gives them.
        counter: up to three whole numbers or arrays that broadcast together: the first may hold 64
            bits, the others 32 bits each.

    Example: `draw(0, 0)` is `[0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]`, the published
    answer for an all-zero key and counter, and what TensorFlow's philox kernels give for it.
    """
    first, *others = np.broadcast_arrays(*(np.asarray(part, np.uint64) for part in counter))
    words = [first & _LOW, first >> _HALF, *others]
    words += [np.zeros_like(first)] * (4 - len(words))
    c0, c1, c2, c3 = words
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(_ROUNDS):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0 = (product1 >> _HALF) ^ c1 ^ np.uint64(k0)
        c2 = (product0 >> _HALF) ^ c3 ^ np.uint64(k1)
        c1, c3 = product1 & _LOW, product0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def scale(words: UInt32[np.ndarray, "*shape"], bound: Whole) -> np.ndarray:
    """Uniform whole numbers below `bound` (int64), by the high half of `word * bound`.

    The bias is at most `bound / 2**32`. Example: `scale([0, 2**31, 2**32 - 1], 10)` is `[0, 5, 9]`.
    """
    product = words.astype(np.uint64) * np.asarray(bound, np.uint64)
    return (product >> _HALF).astype(np.int64)
