"""Model inputs from texts (special tokens, pairs, padding, truncation, offsets), and decoding."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from data_pipeline.errors import InputError
from data_pipeline.tokenizers.export import write_tokenizer
from data_pipeline.tokenizers.pretrained import read_pretrained_tokenizer
from data_pipeline.tokenizers.tokenizer import EncodedText, Tokenizer

# How the mask token is written in texts that may contain it.
MASK_WORD = "[MASK]"


class Padding(StrEnum):
    """The length to which rows are padded."""

    NONE = "none"
    LONGEST = "longest"
    MAX_LENGTH = "max_length"


class AlbertTokenizer:
    """Encodes model inputs: `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`.

    Attributes:
        tokenizer: encodes and decodes without special tokens.
        vocab_size: the number of tokens in the vocabulary.
        pad_id, cls_id, sep_id, mask_id: ids of special tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size
        self.pad_id, self.cls_id = tokenizer.pad_id, tokenizer.cls_id
        self.sep_id, self.mask_id = tokenizer.sep_id, tokenizer.mask_id

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        lower_case: bool | None = None,
        keep_accents: bool | None = None,
    ) -> "AlbertTokenizer":
        """Read the tokenizer of a pretrained model.

        Args:
            path: a Hugging Face directory, a released TensorFlow directory (SentencePiece or
                WordPiece), a workdir or corpus of this project, or a single vocabulary file.
            lower_case: overrides the stored setting.
            keep_accents: overrides the stored setting.

        Raises:
            InputError: there is no supported tokenizer, or there is more than one.
        """
        return cls(
            read_pretrained_tokenizer(path, lower_case=lower_case, keep_accents=keep_accents)
        )

    def save_pretrained(self, directory: str | Path, *, model_max_length: int = 512) -> None:
        """Write the tokenizer files that transformers reads.

        Args:
            directory: created if it does not exist; files with the same names are replaced.
            model_max_length: number of positions of the model.

        Raises:
            InputError: transformers does not support the vocabulary.
        """
        write_tokenizer(self.tokenizer, Path(directory), model_max_length=model_max_length)

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
        """Encode one text, or several that have the same length or are padded to it.

        Example: with the released vocabulary `tokenizer("The the", "the")` is `input_ids`
        `[[2, 14, 14, 3, 14, 3]]`, `attention_mask` `[[1, 1, 1, 1, 1, 1]]` and `token_type_ids`
        `[[0, 0, 0, 0, 1, 1]]`.

        Args:
            text: one text, which gives one row, or several.
            text_pair: the second segment of each text.
            padding: the length to which rows are padded; True is `longest`.
            truncation: shorten rows longer than `max_length`, token by token at the end of the
                longer segment, or of the second if both are equally long.
            max_length: the maximum length of a row, and the length to which `max_length` pads.
            return_offsets: also return the span of each token in its text.
            mask_words: encode the literal "[MASK]" as the mask token, and the text around it
                separately. Otherwise it is ordinary text.

        Returns:
            `input_ids`, `attention_mask` (0 for padding) and `token_type_ids` (1 for the second
            segment), int32 `[texts, length]`. With `return_offsets` also `offsets`, int32
            `[texts, length, 2]`: where each token begins and ends in its own text, or 0 and 0 for
            special tokens and padding.

        Raises:
            InputError: a text is too long, lengths differ without padding, or arguments are
                inconsistent.
        """
        first, second = _as_list(text), None if text_pair is None else _as_list(text_pair)
        padding = _as_padding(padding)
        _check_arguments(first, second, padding, truncation, max_length)
        segments, rows = [first] if second is None else [first, second], []
        for number, texts in enumerate(zip(*segments, strict=True)):
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
        """Encode one text or pair as `__call__` does, without the axis of texts.

        Returns:
            `input_ids`, `attention_mask`, `token_type_ids`, int32 `[length]`, and `offsets`, int32
            `[length, 2]`.

        Raises:
            InputError: the row is longer than `max_length` and `truncation` is False.
        """
        texts = [text] if text_pair is None else [text, text_pair]
        segments = [self.encode_with_offsets(text, mask_words=mask_words) for text in texts]
        num_special = len(segments) + 1
        length = sum(len(ids) for ids, _ in segments) + num_special
        if max_length is not None and length > max_length:
            if not truncation:
                raise InputError(
                    f"it has {length} tokens with the special ones, and may have {max_length}: "
                    "shorten it or ask for truncation"
                )
            segments = _truncate(segments, max_length - num_special)
        cls, sep = (np.array([id], np.int32) for id in (self.cls_id, self.sep_id))
        no_span = np.zeros((1, 2), np.int32)
        ids, offsets, lengths = [cls], [no_span], [1]
        for segment_ids, segment_offsets in segments:
            ids += [segment_ids, sep]
            offsets += [segment_offsets, no_span]
            lengths.append(len(segment_ids) + 1)
        types = np.array([0, 0, 1], np.int32)[: len(lengths)]
        return {
            "input_ids": np.concatenate(ids),
            "attention_mask": np.ones(sum(lengths), np.int32),
            "token_type_ids": np.repeat(types, lengths),
            "offsets": np.concatenate(offsets),
        }

    def encode_with_offsets(self, text: str, *, mask_words: bool = False) -> EncodedText:
        """Return the ids of a text, without special tokens, and the span of each token.

        With `mask_words`, the literal "[MASK]" becomes the mask token. Ids and spans are those of
        `Tokenizer.encode_with_offsets`.
        """
        _check_unicode(text)
        if not mask_words:
            return self.tokenizer.encode_with_offsets(text)
        mask = np.array([self.mask_id], np.int32)
        parts: list[EncodedText] = []
        start = 0
        for part in text.split(MASK_WORD):
            if start:
                parts.append((mask, np.array([[start - len(MASK_WORD), start]], np.int32)))
            ids, offsets = self.tokenizer.encode_with_offsets(part)
            parts.append((ids, offsets + start))
            start += len(part) + len(MASK_WORD)
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([o for _, o in parts])

    def decode(self, ids: Sequence[int] | Int32[np.ndarray, " tokens"]) -> str:
        """Return readable text, without special tokens except for unknown."""
        return self.tokenizer.decode([int(id) for id in ids])


def _as_list(text: str | Sequence[str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text)


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"a text has half a surrogate pair at character {error.start}, which is not a character"
        ) from None


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
        option = "truncation" if truncation else f"padding={padding.value!r}"
        raise InputError(f"{option} needs max_length")
    fewest = 2 if second is None else 3
    if max_length is not None and max_length < fewest:
        raise InputError(f"max_length must be at least {fewest}, got {max_length}")


def _truncate(segments: Sequence[EncodedText], budget: int) -> list[EncodedText]:
    """Drop tokens at the end of the longer segment, or of the second on a tie, until all fit."""
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
            f"texts have {min(lengths)} to {max(lengths)} tokens, which do not form an array: set "
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
