"""WordPiece vocabularies, as used by BERT and the released Chinese models."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from albert_jax.input_files import BYTE_ORDER_MARK
from data_pipeline.config import WordStartRule
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.added_tokens import AddedToken
from data_pipeline.tokenizers.alignment import (
    AlignedText,
    align,
    drop_marks,
    map_characters,
    normalize_form,
    split_at_spaces,
    text_of,
)
from data_pipeline.tokenizers.normalization import lower
from data_pipeline.tokenizers.tokenizer import Tokenizer

PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
CONTINUATION = "##"

# Longer words become unknown.
MAX_WORD_CHARACTERS = 200

# CJK ideographs, which are written without spaces; each one is a word.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPieceTokenizer(Tokenizer):
    """Words and punctuation marks, each split greedily into the longest known tokens.

    Attributes:
        vocabulary: the tokens except for added ones.
    """

    KIND = "wordpiece"
    VOCABULARY_FILE = "vocab.txt"

    def __init__(
        self,
        tokens: Iterable[str],
        *,
        lower_case: bool = True,
        keep_accents: bool = False,
        added_tokens: Sequence[AddedToken] = (),
    ) -> None:
        """Initialize from the tokens in the order of their ids.

        Raises:
            InputError: a special token is missing, [PAD] is not the first one, or an added token
                can never be found in a text.
        """
        super().__init__(lower_case=lower_case, keep_accents=keep_accents)
        self.tokens = tuple(tokens)
        self._id_of_token = {token: id for id, token in enumerate(self.tokens)}
        special = (PAD, UNKNOWN, CLS, SEP, MASK)
        missing = [token for token in special if token not in self._id_of_token]
        if missing:
            raise InputError(f"it lacks the special tokens {', '.join(missing)}")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            self._id_of_token[token] for token in special
        )
        if self.pad_id != 0:
            raise InputError(f"{PAD} must be its first token, and is number {self.pad_id}")
        self._longest_token = max(map(len, self.tokens))
        self.vocabulary = self.tokens
        self._add_tokens(added_tokens)

    @classmethod
    def from_bytes(
        cls,
        vocabulary: bytes,
        *,
        lower_case: bool = True,
        keep_accents: bool = False,
        added_tokens: Sequence[AddedToken] = (),
    ) -> "WordPieceTokenizer":
        """Read a vocabulary with one token per line; a blank line is the token of one space."""
        try:
            # Only line feeds end a line: the Chinese vocabulary has U+2028 as a token.
            text = vocabulary.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
            lines = text.removesuffix("\n").split("\n")
        except UnicodeDecodeError:
            raise InputError("it is not UTF-8") from None
        tokens = [line.split()[0] if line.strip() else " " for line in lines]
        return cls(
            tokens, lower_case=lower_case, keep_accents=keep_accents, added_tokens=added_tokens
        )

    def _decode(self, ids: list[int]) -> str:
        dropped = (self.pad_id, self.cls_id, self.sep_id, self.mask_id)
        kept = [self.tokens[id] for id in ids if id not in dropped]
        return " ".join(kept).replace(f" {CONTINUATION}", "")

    def _surface_form(self, id: int) -> tuple[str, bool]:
        token = self.tokens[id]
        return token.removeprefix(CONTINUATION), not token.startswith(CONTINUATION)

    def split_words(self, text: str) -> list[str]:
        """Split a text into normalized words and punctuation marks.

        Example: `" \\tHeLLo!how  \\n Are yoU?  "` gives `hello ! how are you ?`, and `"ah博推zz"`
        gives `ah 博 推 zz`.
        """
        words = "".join(map(_clean_character, text)).split()
        if self.lower_case:
            words = [lower(word) for word in words]
        if not self.keep_accents:
            words = [word if word.isascii() else _strip_accents(word) for word in words]
        return [part for word in words for part in _split_punctuation(word)]

    def _encode_words(self, words: list[str]) -> list[list[int]]:
        return [
            [id for word in self.split_words(text) for id in self._split_word(word)]
            for text in words
        ]

    def _encode_word_with_offsets(self, word: str) -> list[tuple[int, int, int]]:
        rows: list[tuple[int, int, int]] = []
        for part in self._split_aligned(word):
            start = 0
            for id in self._split_word(text_of(part)):
                known = len(self.tokens[id].removeprefix(CONTINUATION))
                end = len(part) if id == self.unk_id else start + known
                rows.append((id, part[start][1], part[end - 1][2]))
                start = end
        return rows

    def _split_aligned(self, text: str) -> Iterator[AlignedText]:
        """Split a text as `split_words` does, with the span of each character."""
        for word in split_at_spaces(self._normalize_word(text)):
            start = 0
            for part in _split_punctuation(text_of(word)):
                yield word[start : start + len(part)]
                start += len(part)

    def _normalize_word(self, word: str) -> AlignedText:
        aligned = map_characters(align(word), _clean_character)
        if self.lower_case:
            aligned = map_characters(aligned, lower)
        if not self.keep_accents:
            aligned = drop_marks(normalize_form(aligned, "NFD"), _is_accent)
        return aligned

    def _split_word(self, word: str) -> list[int]:
        if len(word) > MAX_WORD_CHARACTERS:
            return [self.unk_id]
        ids: list[int] = []
        start = 0
        while start < len(word):
            for end in range(min(len(word), start + self._longest_token), start, -1):
                token = (CONTINUATION if start else "") + word[start:end]
                if token in self._id_of_token:
                    break
            else:
                return [self.unk_id]
            ids.append(self._id_of_token[token])
            start = end
        return ids

    def _starts_word(self, token: str, rule: WordStartRule) -> bool:
        del rule  # Continuations are marked in the vocabulary.
        return not token.startswith(CONTINUATION)

    def vocabulary_bytes(self) -> bytes:
        return "".join(f"{token}\n" for token in self.vocabulary).encode()


def _clean_character(char: str) -> str:
    """Put spaces around ideographs, turn white space into spaces, and drop control characters."""
    if char.isascii() and char.isprintable():
        return char
    category = unicodedata.category(char)
    if char in "\t\n\r" or category == "Zs":
        return " "
    if char == "\ufffd" or category in ("Cc", "Cf"):
        return ""
    point = ord(char)
    if any(first <= point <= last for first, last in _IDEOGRAPHS):
        return f" {char} "
    return char


def _strip_accents(word: str) -> str:
    decomposed = unicodedata.normalize("NFD", word)
    return "".join(char for char in decomposed if not _is_accent(char))


def _is_accent(char: str) -> bool:
    return unicodedata.category(char) == "Mn"


def _split_punctuation(word: str) -> list[str]:
    if word.isalnum():
        return [word]
    parts: list[str] = []
    open_word = False
    for char in word:
        mark = _is_punctuation(char)
        if mark or not open_word:
            parts.append(char)
        else:
            parts[-1] += char
        open_word = not mark
    return parts


def _is_punctuation(char: str) -> bool:
    """Return True for Unicode punctuation, and for ASCII except letters, digits and spaces."""
    if char.isascii():
        return not char.isalnum() and char.isprintable() and char != " "
    return unicodedata.category(char).startswith("P")
