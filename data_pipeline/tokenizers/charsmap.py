"""The compiled replacements of a SentencePiece model: what becomes of which characters.

The table is a double-array trie (Darts): its size in bytes, its 32-bit units, then the
replacements, each ended by a zero byte. A unit holds a label (bits 0 to 7 and 31), whether a value
is among its children (8), and how far they are (10 to 30, times 256 where bit 9 is set), which is
added to its own place without carrying. Units share their children where these are alike.
"""

import numpy as np
from jaxtyping import UInt32

_LABEL = 1 << 31 | 0xFF
_HAS_VALUE = 1 << 8


def with_same_replacement(charsmap: bytes, characters: str, other: str) -> bytes:
    """The table with what becomes of some ASCII characters changed to what becomes of another.

    Characters that the table does not know stay unknown.
    """
    size = int.from_bytes(charsmap[:4], "little")
    units = np.frombuffer(charsmap, "<u4", size // 4, offset=4).copy()
    model = _find(units, other)
    for char in characters:
        place = _find(units, char)
        if place is not None and model is not None:
            distance = place ^ _children(units, model)
            units[place] = distance << 10 | _HAS_VALUE | ord(char)
    return charsmap[:4] + units.tobytes() + charsmap[4 + size :]


def _find(units: UInt32[np.ndarray, " units"], char: str) -> int | None:
    """Where the unit of an ASCII character stands, if something becomes of it."""
    place = _children(units, 0) ^ ord(char)
    known = place < len(units) and int(units[place]) & _LABEL == ord(char)
    return place if known and int(units[place]) & _HAS_VALUE else None


def _children(units: UInt32[np.ndarray, " units"], parent: int) -> int:
    unit = int(units[parent])
    return parent ^ (unit >> 10 & 0x1FFFFF) << (unit >> 6 & 8)
