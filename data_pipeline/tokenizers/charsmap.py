"""The compiled character replacements of a SentencePiece model.

The table is a double-array trie (Darts): its size in bytes, its 32-bit units, then the
replacements, each ended by a zero byte. A unit holds a label (bits 0 to 7 and 31), a flag that one
of its children is a value (8), and the offset of its children (10 to 30, times 256 if bit 9 is
set), which is added to its own position without carrying. Units with equal children share them.
"""

import numpy as np
from jaxtyping import UInt32

_LABEL = 1 << 31 | 0xFF
_HAS_VALUE = 1 << 8


def with_same_replacement(charsmap: bytes, characters: str, other: str) -> bytes:
    """Change the table so that it replaces some ASCII characters as it replaces another one.

    Characters that are not in the table stay without a replacement.
    """
    size = int.from_bytes(charsmap[:4], "little")
    units = np.frombuffer(charsmap, "<u4", size // 4, offset=4).copy()
    model = _find(units, other)
    for char in characters:
        position = _find(units, char)
        if position is not None and model is not None:
            distance = position ^ _children(units, model)
            units[position] = distance << 10 | _HAS_VALUE | ord(char)
    return charsmap[:4] + units.tobytes() + charsmap[4 + size :]


def _find(units: UInt32[np.ndarray, " units"], char: str) -> int | None:
    """Return the position of the unit of an ASCII character, if it has a replacement."""
    position = _children(units, 0) ^ ord(char)
    is_present = position < len(units) and int(units[position]) & _LABEL == ord(char)
    return position if is_present and int(units[position]) & _HAS_VALUE else None


def _children(units: UInt32[np.ndarray, " units"], parent: int) -> int:
    unit = int(units[parent])
    return parent ^ (unit >> 10 & 0x1FFFFF) << (unit >> 6 & 8)
