"""Added tokens: words that stay whole wherever they occur, whatever the vocabulary's rules.

They are matched as in transformers: from left to right, the longest of those that begin at the same
place, without overlaps.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.tokenizers.alignment import AlignedText, align, text_of

# An id, and the start and end of its token in a text; None for the text between two tokens.
EncodedToken = tuple[int, int, int]
Part = tuple[int | None, int, int]

# Symbols that Unicode counts as letters (Other_Alphabetic).
_CIRCLED = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))
_JOINERS = "\u200c\u200d"
# Precedes an added token that is a word of its own; a Unicode character for internal use.
_MARK = "\ufdd0"


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A word that is one token wherever it occurs, with the flags that transformers gives it.

    Attributes:
        content: the word, without white space.
        special: omitted when ids are decoded.
        normalized: matched in normalized text, so that "[ENT]" also matches "[ent]" if case is
            ignored. Other tokens are matched in the text as written.
        single_word: not matched next to a letter, a digit or an underscore.
        lstrip, rstrip: in transformers, white space before or after belongs to the token. That
            changes no ids, and spans exclude white space here; the flags are kept for export.
    """

    content: str
    special: bool = False
    normalized: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any], content: str | None = None) -> "AddedToken":
        """Read transformers' description of a token; other keys are ignored.

        Args:
            values: flags, and the content unless it is given.
            content: the content.

        Raises:
            InputError: a value has the wrong type.
        """
        content = values.get("content") if content is None else content
        if not isinstance(content, str):
            raise InputError(f"an added token must have a content, which is text, got {content!r}")
        flags = {name: values[name] for name in _FLAGS if name in values}
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise InputError(
                    f"{name} of the added token {content!r} must be true or false, got {value!r}"
                )
        flags.setdefault("normalized", not flags.get("special", False))
        return cls(content, **flags)


_FLAGS = tuple(field.name for field in dataclasses.fields(AddedToken) if field.type is bool)


class AddedTokens:
    """The added tokens of a vocabulary: their ids, and where they occur in a text.

    Tokens that are in the vocabulary keep their ids. The others get the ids after it, in order.

    Attributes:
        tokens, by_id: all added tokens, in order and by id.
        new: the contents of the tokens that the vocabulary lacks.

    Args:
        tokens: the added tokens, in the order of their ids.
        vocabulary: the tokens of the vocabulary, in the order of their ids.
        normalize: normalizes a word.

    Raises:
        InputError: a token can never be found in a text, or two tokens are the same.
        InputError: a token cannot be found in any text, or two are the same.
    """

    def __init__(
        self,
        tokens: Sequence[AddedToken],
        vocabulary: Sequence[str],
        normalize: Callable[[str], AlignedText],
    ) -> None:
        self.tokens = tuple(tokens)
        ids = {token: id for id, token in enumerate(vocabulary)} if tokens else {}
        self.new = tuple(token.content for token in tokens if token.content not in ids)
        ids |= {content: len(vocabulary) + place for place, content in enumerate(self.new)}
        self.by_id = {ids[token.content]: token for token in tokens}
        self._ids = ids
        self._normalize = normalize
        written = [token for token in tokens if not token.normalized]
        self._written = _Finder((align(token.content), token) for token in written)
        others = [token for token in tokens if token.normalized]
        self._normalized = _Finder((normalize(token.content), token) for token in others)

    def find_written(self, text: str) -> list[EncodedToken]:
        """Find the tokens that are matched in the text as written."""
        return [
            (self._ids[token.content], start, end) for token, start, end in self._written.find(text)
        ]

    def separate(self, text: str) -> str:
        """Turn the tokens that are matched as written into separate, marked words."""
        if not self._written.forms:
            return text
        pieces, last = [], 0
        for _, start, end in self.find_written(text):
            pieces += [text[last:start], _MARK + text[start:end]]
            last = end
        return " ".join([*pieces, text[last:]])

    def split_text(self, text: str) -> Iterator[tuple[str, int]]:
        """Yield the words of a text as separated by `separate`, and where each begins."""
        last = 0
        for _, start, end in [*self.find_written(text), (None, len(text), len(text))]:
            for word in text[last:start].split(" "):
                yield word, last
                last += len(word) + 1
            if start < end:
                yield _MARK + text[start:end], start
            last = end

    def encode_words(
        self, words: list[str], encode: Callable[[list[str]], list[list[int]]]
    ) -> list[list[int]]:
        """Encode words from `separate` or `split_text`.

        Args:
            words: the words.
            encode: encodes words without added tokens.
        """
        if not self.tokens:
            return encode(words)
        split = [self.split(word) for word in words]
        texts = [
            word[start:end]
            for word, parts in zip(words, split, strict=True)
            for id, start, end in parts
            if id is None
        ]
        encoded = iter(encode(texts))
        return [
            [id for added, _, _ in parts for id in (next(encoded) if added is None else [added])]
            for parts in split
        ]

    def encode_word(
        self, word: str, encode: Callable[[str], list[EncodedToken]]
    ) -> list[EncodedToken]:
        """Encode a word with spans, given a function that encodes words without added tokens."""
        rows: list[EncodedToken] = []
        for added, start, end in self.split(word):
            if added is not None:
                rows.append((added, start, end))
                continue
            rows += [
                (id, start + first, start + last) for id, first, last in encode(word[start:end])
            ]
        return rows

    def split(self, word: str) -> list[Part]:
        """Split a word at its tokens; it is a marked token, or has none matched as written.

        Example: with [ENT] normalized as token 1000 and case ignored, `split("x[ent]")` is
        `[(None, 0, 1), (1000, 1, 6)]`.
        """
        if word.startswith(_MARK) and word[1:] in self._written.forms:
            return [(self._ids[word[1:]], 0, len(word) - 1)]
        parts: list[Part] = []
        last = 0
        for id, start, end in self._find_normalized(word):
            if last < start:
                parts.append((None, last, start))
            parts.append((id, start, end))
            last = end
        return parts if last == len(word) and parts else [*parts, (None, last, len(word))]

    def _find_normalized(self, word: str) -> Iterator[EncodedToken]:
        if not self._normalized.forms:
            return
        aligned = self._normalize(word)
        for token, first, end in self._normalized.find(text_of(aligned)):
            start, stop = aligned[first][1], aligned[end - 1][2]
            # A character whose normal form has several characters, such as "½", cannot be split.
            before, after = aligned[:first], aligned[end:]
            if not (before and before[-1][2] > start) and not (after and after[0][1] < stop):
                yield self._ids[token.content], start, stop


class _Finder:
    """Finds tokens by their forms: the leftmost match, and the longest of those."""

    def __init__(self, tokens: Iterable[tuple[AlignedText, AddedToken]]) -> None:
        self.forms: dict[str, AddedToken] = {}
        for aligned, token in tokens:
            form = text_of(aligned)
            if not form.strip() or _is_split_at_spaces(aligned):
                raise InputError(
                    f"the added token {token.content!r} is empty or has white space, which is not "
                    "supported"
                )
            if form in self.forms:
                raise InputError(
                    f"the added tokens {self.forms[form].content!r} and {token.content!r} are the "
                    f"same in a text: {form!r}"
                )
            self.forms[form] = token
        longest_first = sorted(self.forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def find(self, text: str) -> list[tuple[AddedToken, int, int]]:
        found = []
        for match in self._pattern.finditer(text):
            token, (start, end) = self.forms[match[0]], match.span()
            neighbors = text[start - 1 : start] + text[end : end + 1]
            if not (token.single_word and any(map(_is_word_character, neighbors))):
                found.append((token, start, end))
        return found


def _is_split_at_spaces(aligned: AlignedText) -> bool:
    """Return True if there is white space, except for what WordPiece puts around ideographs."""
    words = {(start, end) for char, start, end in aligned if not char.isspace()}
    return any(char.isspace() and (start, end) not in words for char, start, end in aligned)


def _is_word_character(char: str) -> bool:
    """Return True for letters, marks, decimal digits and connectors, as in Unicode's `\\w`."""
    category = unicodedata.category(char)
    return (
        category[0] in "LM"
        or category in ("Nd", "Nl", "Pc")
        or char in _JOINERS
        or any(first <= ord(char) <= last for first, last in _CIRCLED)
    )
