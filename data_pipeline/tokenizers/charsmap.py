"""The compiled character replacements of a SentencePiece model.

The table is a double-array trie (Darts): its size in bytes, its 32-bit units, then the
replacements, each ended by a zero byte. A unit holds a label (bits 0 to 7 and 31), a flag that one
of its children is a value (8), and the offset of its children (10 to 30, times 256 if bit 9 is
set), which is added to its own position without carrying. Units with equal children share them.
"""

import numpy as np
from jaxtyping import Int64, UInt32

_LABEL = 1 << 31 | 0xFF
_HAS_VALUE = 1 << 8


def is_charsmap(charsmap: bytes) -> bool:
    """Return True if no walk through the table leaves it; SentencePiece itself does not look."""
    size = int.from_bytes(charsmap[:4], "little")
    replacements = charsmap[4 + size :]
    if size % 4 or not size or 4 + size > len(charsmap) or not replacements.endswith(b"\0"):
        return False
    units = np.frombuffer(charsmap, "<u4", size // 4, offset=4)
    is_value = units >> 31 == 1
    # A walk goes on by any byte of the text, within the block of 256 that holds the children.
    children = np.arange(len(units)) ^ _offsets(units)
    stays_inside = (children | 0xFF) < len(units)
    has_value = is_value[np.minimum(children, len(units) - 1)]
    follows = stays_inside & (has_value | (units & _HAS_VALUE == 0))
    return bool(np.where(is_value, (units & 0x7FFFFFFF) < len(replacements), follows).all())


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
    return parent ^ int(_offsets(units[parent : parent + 1])[0])


def _offsets(units: UInt32[np.ndarray, " units"]) -> Int64[np.ndarray, " units"]:
    unit = units.astype(np.int64)
    return (unit >> 10 & 0x1FFFFF) << (unit >> 6 & 8)
