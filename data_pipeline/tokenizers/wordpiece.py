"""WordPiece vocabularies, as BERT and the released Chinese models use them."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data_pipeline.config import WordStartRule
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.alignment import (
    AlignedText,
    align,
    change_each,
    change_form,
    drop_marks,
    split_at_spaces,
    text_of,
)
from data_pipeline.tokenizers.normalization import lower
from data_pipeline.tokenizers.tokenizer import Tokenizer

PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
CONTINUATION = "##"

# Longer words are unknown.
MAX_WORD_CHARACTERS = 200

# Blocks that are written without spaces (CJK ideographs), each character a word.
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
    """Words and punctuation marks apart, each cut greedily into the longest pieces known."""

    KIND = "wordpiece"
    VOCABULARY_FILE = "vocab.txt"

    def __init__(
        self, pieces: Iterable[str], *, lower_case: bool = True, keep_accents: bool = False
    ) -> None:
        """Takes the pieces in the order of their ids.

        Raises:
            InputError: a special piece is missing, or [PAD] is not the first.
        """
        super().__init__(lower_case=lower_case, keep_accents=keep_accents)
        self.tokens = tuple(pieces)
        self._id_of_piece = {piece: id for id, piece in enumerate(self.tokens)}
        special = (PAD, UNKNOWN, CLS, SEP, MASK)
        missing = [piece for piece in special if piece not in self._id_of_piece]
        if missing:
            raise InputError(f"it lacks the special pieces {', '.join(missing)}")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            self._id_of_piece[piece] for piece in special
        )
        if self.pad_id != 0:
            raise InputError(f"{PAD} must be its first piece, and is number {self.pad_id}")
        self._longest_piece = max(map(len, self.tokens))

    @classmethod
    def from_file(
        cls, path: Path, *, lower_case: bool = True, keep_accents: bool = False
    ) -> "WordPieceTokenizer":
        """Reads a vocabulary of one piece a line; a blank line is the piece of one space."""
        try:
            # Only line feeds end a line: the Chinese vocabulary has U+2028 as a piece.
            lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
            pieces = [line.split()[0] if line.strip() else " " for line in lines]
            return cls(pieces, lower_case=lower_case, keep_accents=keep_accents)
        except OSError as error:
            raise InputError(f"tokenizer {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"tokenizer {path} cannot be used: it is not UTF-8") from None
        except InputError as error:
            raise InputError(f"tokenizer {path} cannot be used: {error}") from None

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text; special pieces other than unknown vanish."""
        hidden = (self.pad_id, self.cls_id, self.sep_id, self.mask_id)
        shown = [self.tokens[id] for id in ids if id not in hidden]
        return " ".join(shown).replace(f" {CONTINUATION}", "")

    def surface_form(self, id: int) -> tuple[str, bool]:
        """A piece as it stands in a text, and whether it stands apart from what is before it."""
        piece = self.tokens[id]
        return piece.removeprefix(CONTINUATION), not piece.startswith(CONTINUATION)

    def split_words(self, text: str) -> list[str]:
        """Normalized words and punctuation marks.

        Example: `" \\tHeLLo!how  \\n Are yoU?  "` is `hello ! how are you ?`, and `"ah博推zz"` is
        `ah 博 推 zz`.
        """
        words = "".join(map(_space_or_drop, text)).split()
        if self.lower_case:
            words = [lower(word) for word in words]
        if not self.keep_accents:
            words = [word if word.isascii() else _strip_accents(word) for word in words]
        return [part for word in words for part in _split_punctuation(word)]

    def _encode_words(self, words: list[str]) -> list[list[int]]:
        return [
            [id for word in self.split_words(text) for id in self._cut_word(word)] for text in words
        ]

    def _encode_aligned(self, word: str) -> list[tuple[int, int, int]]:
        rows: list[tuple[int, int, int]] = []
        for part in self._split_aligned(word):
            start = 0
            for id in self._cut_word(text_of(part)):
                known = len(self.tokens[id].removeprefix(CONTINUATION))
                end = len(part) if id == self.unk_id else start + known
                rows.append((id, part[start][1], part[end - 1][2]))
                start = end
        return rows

    def _split_aligned(self, text: str) -> Iterator[AlignedText]:
        """What `split_words` gives, with the spans that it came from."""
        for word in split_at_spaces(change_each(align(text), _space_or_drop)):
            if self.lower_case:
                word = change_each(word, lower)
            if not self.keep_accents:
                word = drop_marks(change_form(word, "NFD"), _is_accent)
            start = 0
            for part in _split_punctuation(text_of(word)):
                yield word[start : start + len(part)]
                start += len(part)

    def _cut_word(self, word: str) -> list[int]:
        if len(word) > MAX_WORD_CHARACTERS:
            return [self.unk_id]
        ids: list[int] = []
        start = 0
        while start < len(word):
            for end in range(min(len(word), start + self._longest_piece), start, -1):
                piece = (CONTINUATION if start else "") + word[start:end]
                if piece in self._id_of_piece:
                    break
            else:
                return [self.unk_id]
            ids.append(self._id_of_piece[piece])
            start = end
        return ids

    def _starts_word(self, piece: str, rule: WordStartRule) -> bool:
        del rule  # The mark of a continuation leaves no choice.
        return not piece.startswith(CONTINUATION)

    def vocabulary_bytes(self) -> bytes:
        return "".join(f"{piece}\n" for piece in self.tokens).encode()


def _space_or_drop(char: str) -> str:
    """Spaces around ideographs, a plain space for any other, nothing for control characters."""
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
    """Unicode punctuation, and all of ASCII that is neither letter, digit nor space."""
    if char.isascii():
        return not char.isalnum() and char.isprintable() and char != " "
    return unicodedata.category(char).startswith("P")
