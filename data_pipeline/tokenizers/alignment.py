"""Text transformations that track the span of each new character in the original text."""

import functools
import itertools
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

# A character, and the start and end of its span in the original text. Both are nondecreasing along
# a text. Spans may be equal: all characters that replace one character share its span.
AlignedChar = tuple[str, int, int]
AlignedText = list[AlignedChar]
NormalForm = Literal["NFC", "NFD", "NFKC", "NFKD"]


def align(text: str) -> AlignedText:
    """Align a text with itself."""
    return [(char, index, index + 1) for index, char in enumerate(text)]


def text_of(aligned: Iterable[AlignedChar]) -> str:
    """Return the characters of an aligned text without their spans."""
    return "".join(char for char, _, _ in aligned)


def replace(aligned: AlignedText, old: str, new: str) -> AlignedText:
    """Replace each occurrence by one character, like `str.replace`.

    Example: `replace(align("''a"), "''", '"')` is `[('"', 0, 2), ("a", 2, 3)]`.
    """
    text = text_of(aligned)
    result: AlignedText = []
    start = 0
    while (found := text.find(old, start)) >= 0:
        result += aligned[start:found]
        start = found + len(old)
        result.append((new, aligned[found][1], aligned[start - 1][2]))
    return result + aligned[start:]


def map_characters(aligned: AlignedText, function: Callable[[str], str]) -> AlignedText:
    """Replace each character by zero or more characters."""
    return [(new, start, end) for char, start, end in aligned for new in function(char)]


def normalize_form(aligned: AlignedText, form: NormalForm) -> AlignedText:
    """Apply a Unicode normal form, like `unicodedata.normalize`.

    Example: NFKD of "ﬁx" is `[("f", 0, 1), ("i", 0, 1), ("x", 1, 2)]`; NFKC of an "e" before a
    combining accent is `[("é", 0, 2)]`.
    """
    result: AlignedText = []
    for segment in _segments(aligned):
        alone = map_characters(segment, lambda char: unicodedata.normalize(form, char))
        together = unicodedata.normalize(form, text_of(segment))
        if together != text_of(alone):
            alone = [(char, segment[0][1], segment[-1][2]) for char in together]
        result += alone
    return result


def drop_marks(aligned: AlignedText, is_mark: Callable[[str], bool]) -> AlignedText:
    """Delete marks such as accents, and extend the span of the preceding character over them."""
    result: AlignedText = []
    for char, start, end in aligned:
        if not is_mark(char):
            result.append((char, start, end))
        elif result and result[-1][2] == start:
            result[-1] = (*result[-1][:2], end)
    return result


def split_at_spaces(aligned: AlignedText) -> list[AlignedText]:
    """Split a text into the words between white space."""
    groups = itertools.groupby(aligned, lambda char: char[0].isspace())
    return [list(word) for is_space, word in groups if not is_space]


def collapse_spaces(aligned: AlignedText) -> AlignedText:
    """Strip white space at both ends, and replace other runs of it by single spaces."""
    result: AlignedText = []
    for word in split_at_spaces(aligned):
        if result:
            result.append((" ", result[-1][2], word[0][1]))
        result += word
    return result


def _segments(aligned: AlignedText) -> Iterator[AlignedText]:
    """Split a text into parts that can be normalized separately."""
    start = 0
    for index in range(1, len(aligned)):
        if _is_boundary(aligned[index][0]):
            yield aligned[start:index]
            start = index
    if aligned:
        yield aligned[start:]


def _is_boundary(char: str) -> bool:
    """Return True if a character is neither reordered nor composed with preceding ones."""
    if char.isascii():
        return True
    first = unicodedata.normalize("NFKD", char)[0]
    return not unicodedata.combining(first) and first not in _composing_characters()


@functools.cache
def _composing_characters() -> frozenset[str]:
    """Return the characters that compose with some preceding character."""
    composing = {chr(point) for point in range(0x1161, 0x11C3)}  # Hangul vowels and finals
    for point in range(0x80, sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            composing.add(chr(int(parts[1], 16)))
    return frozenset(composing)
