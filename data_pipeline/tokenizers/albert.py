"""Texts to a model's inputs and back: special tokens, pairs, padding, truncation, offsets."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from data_pipeline.errors import InputError
from data_pipeline.tokenizers.export import write_tokenizer
from data_pipeline.tokenizers.pretrained import read_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer

# The word that stands for a hidden one, where it may.
MASK_WORD = "[MASK]"

# Ids and offsets of a segment.
_Encoded = tuple[Int32[np.ndarray, " _"], Int32[np.ndarray, "_ 2"]]


class Padding(StrEnum):
    """Up to which length rows are filled."""

    NONE = "none"
    LONGEST = "longest"
    MAX_LENGTH = "max_length"


class AlbertTokenizer:
    """Rows of ids as the model reads them: `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`.

    Attributes:
        tokenizer: encodes and decodes without special tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        lower_case: bool | None = None,
        keep_accents: bool | None = None,
    ) -> "AlbertTokenizer":
        """Reads the tokenizer of a model, whoever saved it.

        Args:
            path: a Hugging Face directory, a released TensorFlow directory (SentencePiece or
                WordPiece), a workdir or corpus of this project, or the bare file.
            lower_case: overrides what stands there.
            keep_accents: likewise.

        Raises:
            InputError: there is no tokenizer that can be used, or there are several.
        """
        return cls(read_tokenizer(Path(path), lower_case=lower_case, keep_accents=keep_accents))

    def save_pretrained(self, directory: str | Path, *, model_max_length: int = 512) -> None:
        """Writes the files that transformers reads.

        Args:
            directory: is made if there is none; files of the same names are replaced.
            model_max_length: the positions that the model has.

        Raises:
            InputError: the vocabulary cannot be expressed in their files.
        """
        write_tokenizer(self.tokenizer, Path(directory), model_max_length=model_max_length)

    @property
    def vocab_size(self) -> int:
        """The number of pieces."""
        return self.tokenizer.vocab_size

    @property
    def pad_id(self) -> int:
        """The id of padding."""
        return self.tokenizer.pad_id

    @property
    def cls_id(self) -> int:
        """The id that every row begins with."""
        return self.tokenizer.cls_id

    @property
    def sep_id(self) -> int:
        """The id that ends each segment."""
        return self.tokenizer.sep_id

    @property
    def mask_id(self) -> int:
        """The id of a hidden piece."""
        return self.tokenizer.mask_id

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        padding: Padding | bool | str = Padding.NONE,
        truncation: bool = False,
        max_length: int | None = None,
        return_offsets: bool = False,
        mask_words: bool = False,
    ) -> dict[str, np.ndarray]:
        """Encodes one text, or several of the same length or padded to it.

        Example: with the released vocabulary `tokenizer("The the", "the")` is `input_ids`
        `[[2, 14, 14, 3, 14, 3]]`, `attention_mask` `[[1, 1, 1, 1, 1, 1]]` and `token_type_ids`
        `[[0, 0, 0, 0, 1, 1]]`.

        Args:
            text: one text, which gives one row, or several.
            text_pair: the second segment of each.
            padding: up to which length rows are filled; True is `longest`.
            truncation: shorten rows longer than `max_length`, piece by piece at the end of the
                longer segment, or of the second where both are equally long.
            max_length: the length that no row may exceed, and which `max_length` fills up to.
            return_offsets: also return where each piece stands in its text.
            mask_words: the literal "[MASK]" becomes the id of a hidden piece, and what stands
                around it is encoded by itself. Otherwise it is text like any other.

        Returns:
            `input_ids`, `attention_mask` (0 for padding) and `token_type_ids` (1 for the second
            segment), int32 `[texts, length]`; and with `return_offsets` `offsets`, int32
            `[texts, length, 2]`: where each piece begins and ends in its own text, 0 and 0 for
            special tokens and padding.

        Raises:
            InputError: a text is too long, lengths differ without padding, or arguments do not fit
                together.
        """
        first, second = _listed(text), None if text_pair is None else _listed(text_pair)
        padding = _as_padding(padding)
        _check_arguments(first, second, padding, truncation, max_length)
        sides, rows = [first] if second is None else [first, second], []
        for number, texts in enumerate(zip(*sides, strict=True)):
            try:
                row = self.encode_row(
                    *texts, truncation=truncation, max_length=max_length, mask_words=mask_words
                )
            except InputError as error:
                raise InputError(f"text {number + 1} of {len(first)}: {error}") from None
            rows.append(row)
        arrays = _stack(rows, padding, max_length, self.pad_id)
        return arrays if return_offsets else {n: a for n, a in arrays.items() if n != "offsets"}

    def encode_row(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        truncation: bool = False,
        max_length: int | None = None,
        mask_words: bool = False,
    ) -> dict[str, np.ndarray]:
        """What a call gives for one text or pair, without the axis of texts: of any length.

        Returns:
            `input_ids`, `attention_mask`, `token_type_ids`, int32 `[length]`, and `offsets`, int32
            `[length, 2]`.

        Raises:
            InputError: the row is longer than `max_length` and not to be truncated.
        """
        texts = [text] if text_pair is None else [text, text_pair]
        segments = [self.encode_with_offsets(text, mask_words=mask_words) for text in texts]
        num_special = len(segments) + 1
        length = sum(len(ids) for ids, _ in segments) + num_special
        if max_length is not None and length > max_length:
            if not truncation:
                raise InputError(
                    f"it has {length} pieces with the special ones, and may have {max_length}: "
                    "shorten it or ask for truncation"
                )
            segments = _truncate(segments, max_length - num_special)
        cls, sep = (np.array([id], np.int32) for id in (self.cls_id, self.sep_id))
        nowhere = np.zeros((1, 2), np.int32)
        ids, offsets, lengths = [cls], [nowhere], [1]
        for segment_ids, segment_offsets in segments:
            ids += [segment_ids, sep]
            offsets += [segment_offsets, nowhere]
            lengths.append(len(segment_ids) + 1)
        types = np.array([0, 0, 1], np.int32)[: len(lengths)]
        return {
            "input_ids": np.concatenate(ids),
            "attention_mask": np.ones(sum(lengths), np.int32),
            "token_type_ids": np.repeat(types, lengths),
            "offsets": np.concatenate(offsets),
        }

    def encode_with_offsets(self, text: str, *, mask_words: bool = False) -> _Encoded:
        """The ids of a text, without special tokens, and where each piece stands in it.

        Args:
            text: any text.
            mask_words: the literal "[MASK]" becomes the id of a hidden piece.

        Returns:
            Ids and, for each, where in the text it begins and ends; see
            `Tokenizer.encode_with_offsets`.
        """
        if not mask_words:
            return self.tokenizer.encode_with_offsets(_checked(text))
        mask = np.array([self.mask_id], np.int32)
        parts: list[_Encoded] = []
        start = 0
        for part in _checked(text).split(MASK_WORD):
            if start:
                parts.append((mask, np.array([[start - len(MASK_WORD), start]], np.int32)))
            ids, offsets = self.tokenizer.encode_with_offsets(part)
            parts.append((ids, offsets + start))
            start += len(part) + len(MASK_WORD)
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([o for _, o in parts])

    def decode(self, ids: Sequence[int] | Int32[np.ndarray, " tokens"]) -> str:
        """Readable text; special pieces other than unknown vanish."""
        return self.tokenizer.decode([int(id) for id in ids])


def _listed(text: str | Sequence[str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text)


def _checked(text: str) -> str:
    """The text, if it can be written down."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"a text has half a surrogate pair at character {error.start}, which is no character"
        ) from None
    return text


def _as_padding(padding: Padding | bool | str) -> Padding:
    if isinstance(padding, bool):
        return Padding.LONGEST if padding else Padding.NONE
    try:
        return Padding(padding)
    except ValueError:
        raise InputError(
            f"padding must be one of {', '.join(Padding)}, True or False, got {padding!r}"
        ) from None


def _check_arguments(
    first: Sequence[str],
    second: Sequence[str] | None,
    padding: Padding,
    truncation: bool,
    max_length: int | None,
) -> None:
    if not first:
        raise InputError("there are no texts to encode")
    if second is not None and len(second) != len(first):
        raise InputError(f"there are {len(first)} texts and {len(second)} to pair them with")
    if max_length is None and (truncation or padding is Padding.MAX_LENGTH):
        asked = "truncation" if truncation else f"padding={padding.value!r}"
        raise InputError(f"{asked} needs max_length")
    fewest = 2 if second is None else 3
    if max_length is not None and max_length < fewest:
        raise InputError(f"max_length must be at least {fewest}, got {max_length}")


def _truncate(segments: Sequence[_Encoded], budget: int) -> list[_Encoded]:
    """Drops pieces at the end of the longer segment until all fit; of two equal, the second."""
    lengths = [len(ids) for ids, _ in segments]
    while sum(lengths) > budget:
        longest = max(range(len(lengths)), key=lambda side: (lengths[side], side))
        lengths[longest] -= 1
    return [
        (ids[:length], offsets[:length])
        for (ids, offsets), length in zip(segments, lengths, strict=True)
    ]


def _stack(
    rows: Sequence[dict[str, np.ndarray]], padding: Padding, max_length: int | None, pad_id: int
) -> dict[str, np.ndarray]:
    lengths = [len(row["input_ids"]) for row in rows]
    if padding is Padding.NONE and min(lengths) != max(lengths):
        raise InputError(
            f"texts have {min(lengths)} to {max(lengths)} pieces, which makes no array: ask for "
            f"padding, such as padding={Padding.LONGEST.value!r}"
        )
    width = max_length if padding is Padding.MAX_LENGTH and max_length else max(lengths)
    arrays = {}
    for name, example in rows[0].items():
        fill = pad_id if name == "input_ids" else 0
        arrays[name] = np.full((len(rows), width, *example.shape[1:]), fill, np.int32)
        for number, row in enumerate(rows):
            arrays[name][number, : lengths[number]] = row[name]
    return arrays
