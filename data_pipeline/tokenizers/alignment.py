"""Changes of text that remember which characters of the original each new one came from."""

import functools
import itertools
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

# A character, and where what it came from begins and ends in the original. Both ends of the spans
# rise along a text, but spans may be equal: all that one character became shares its span.
AlignedChar = tuple[str, int, int]
AlignedText = list[AlignedChar]
NormalForm = Literal["NFC", "NFD", "NFKC", "NFKD"]


def align(text: str) -> AlignedText:
    """A text that nothing was done to yet."""
    return [(char, place, place + 1) for place, char in enumerate(text)]


def text_of(aligned: Iterable[AlignedChar]) -> str:
    """The characters alone."""
    return "".join(char for char, _, _ in aligned)


def replace(aligned: AlignedText, old: str, new: str) -> AlignedText:
    """Puts one character in the place of each occurrence, as `str.replace` does.

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


def change_each(aligned: AlignedText, change: Callable[[str], str]) -> AlignedText:
    """Makes none, one or several characters of each."""
    return [(new, start, end) for char, start, end in aligned for new in change(char)]


def change_form(aligned: AlignedText, form: NormalForm) -> AlignedText:
    """A Unicode normal form, as `unicodedata.normalize` makes it.

    Example: NFKD of "ﬁx" is `[("f", 0, 1), ("i", 0, 1), ("x", 1, 2)]`; NFKC of an "e" before a
    combining accent is `[("é", 0, 2)]`.
    """
    result: AlignedText = []
    for segment in _segments(aligned):
        alone = change_each(segment, lambda char: unicodedata.normalize(form, char))
        together = unicodedata.normalize(form, text_of(segment))
        if together != text_of(alone):
            alone = [(char, segment[0][1], segment[-1][2]) for char in together]
        result += alone
    return result


def drop_marks(aligned: AlignedText, is_mark: Callable[[str], bool]) -> AlignedText:
    """Deletes marks, such as accents; each still counts to the character that it stood on."""
    result: AlignedText = []
    for char, start, end in aligned:
        if not is_mark(char):
            result.append((char, start, end))
        elif result and result[-1][2] == start:
            result[-1] = (*result[-1][:2], end)
    return result


def split_at_spaces(aligned: AlignedText) -> list[AlignedText]:
    """The words between white space."""
    groups = itertools.groupby(aligned, lambda char: char[0].isspace())
    return [list(word) for is_space, word in groups if not is_space]


def collapse_spaces(aligned: AlignedText) -> AlignedText:
    """White space at the ends is dropped, and other white space made one space."""
    result: AlignedText = []
    for word in split_at_spaces(aligned):
        if result:
            result.append((" ", result[-1][2], word[0][1]))
        result += word
    return result


def _segments(aligned: AlignedText) -> Iterator[AlignedText]:
    """Parts whose normal forms, one after the other, are the normal form of all."""
    start = 0
    for place in range(1, len(aligned)):
        if _begins_anew(aligned[place][0]):
            yield aligned[start:place]
            start = place
    if aligned:
        yield aligned[start:]


def _begins_anew(char: str) -> bool:
    """Whether a character neither changes places with those before it nor joins them."""
    if char.isascii():
        return True
    first = unicodedata.normalize("NFKD", char)[0]
    return not unicodedata.combining(first) and first not in _joining_characters()


@functools.cache
def _joining_characters() -> frozenset[str]:
    """The characters that some other one composes with when it stands before them."""
    joining = {chr(point) for point in range(0x1161, 0x11C3)}  # vowels and finals of Hangul
    for point in range(0x80, sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            joining.add(chr(int(parts[1], 16)))
    return frozenset(joining)
