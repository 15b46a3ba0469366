"""SentencePiece vocabularies of targets, trained on the targets themselves or from other models."""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sentencepiece

from albert_jax.input_files import read_bytes
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.sentencepiece_model import parse_model
from data_pipeline.tokenizers.targets.export import describe_sentencepiece
from data_pipeline.tokenizers.targets.target_tokenizer import TargetTokenizer

PAD, UNKNOWN, BOS, EOS = "<pad>", "<unk>", "<s>", "</s>"

# The trainer's internal name for unknown text; it skips texts with this character.
_RESERVED = "▅"
_LONGEST_TEXT = 1 << 30  # bytes; by default the trainer silently skips texts of more than 4192
_MOST_TEXTS = 10_000_000  # if there are more, they are sampled; the trainer holds them in memory
# Scores are rounded to multiples of this. SentencePiece adds them in float32, transformers in
# float64. Both sums are exact above -16384, so both make the same choice among ties.
_GRID = 2.0**-10


class SentencePieceTargets(TargetTokenizer):
    """A unigram SentencePiece model with pieces for padding, begin and end.

    Attributes:
        model: the serialized model.
    """

    KIND = "sentencepiece"
    # Not the name of a source vocabulary, which may be in the same directory.
    VOCABULARY_FILE = "target.model"

    def __init__(self, model: bytes) -> None:
        """Load a serialized model, whatever the ids of its special pieces are.

        For a model from elsewhere, text without a piece and without byte pieces is `<unk>`.

        Raises:
            InputError: it is not a unigram model, or lacks a special piece.
        """
        self.model = model
        self._parsed = parse_model(model)
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError:
            raise InputError("it is not a SentencePiece model") from None
        special = {
            "pad": self._processor.pad_id(),
            "bos": self._processor.bos_id(),
            "eos": self._processor.eos_id(),
        }
        if missing := [name for name, id in special.items() if id < 0]:
            raise InputError(
                f"it lacks the special pieces {', '.join(missing)}; spm_train makes a vocabulary "
                "of targets with --pad_id=0 --unk_id=1 --bos_id=2 --eos_id=3"
            )
        self.pad_id, self.bos_id, self.eos_id = special.values()
        self.vocab_size = self._processor.get_piece_size()
        self.pad_token = self._processor.id_to_piece(self.pad_id)
        self._require_separate_padding()

    @classmethod
    def from_files(cls, directory: Path, settings: Mapping[str, Any]) -> "SentencePieceTargets":
        del settings  # the model has them
        return cls(read_bytes(directory / cls.VOCABULARY_FILE, error=InputError))

    def vocabulary_files(self) -> dict[str, bytes]:
        return {self.VOCABULARY_FILE: self.model}

    def _encode(self, lines: list[str]) -> list[list[int]]:
        encoded: list[list[int]] = self._processor.encode(lines, out_type=int)
        return encoded

    def _decode(self, ids: list[int]) -> str:
        text: str = self._processor.decode(ids)
        return text

    def _describe_huggingface(self) -> tuple[dict[str, Any], dict[str, Any]]:
        ids = (self.pad_id, self._processor.unk_id(), self.bos_id, self.eos_id)
        return describe_sentencepiece(self._parsed, *ids)


def train_target_tokenizer(texts: Iterable[str], vocab_size: int) -> SentencePieceTargets:
    """Train a vocabulary on the targets of a training set, in memory.

    Its first pieces are `<pad>`, `<unk>`, `<s>`, `</s>` and 256 bytes. Characters without a piece
    are split into bytes, so nothing becomes unknown. Text is not normalized, so decoding returns
    what was encoded, with two exceptions: runs of spaces (U+0020) become a single space, or none at
    either end; and "▁" (U+2581), SentencePiece's own mark, becomes a space. The same texts in the
    same order give the same bytes.

    Args:
        texts: the targets; if there are more than 10 million, they are sampled.
        vocab_size: number of pieces, including special ones and bytes.

    Raises:
        InputError: the texts have too few words for this number of pieces, or too many characters,
            or all texts are empty.
    """
    model, lines = io.BytesIO(), _TrainingTexts(texts)
    sentencepiece.set_random_generator_seed(0)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            normalization_rule_name="identity",
            character_coverage=0.99995,
            byte_fallback=True,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_piece=PAD,
            unk_piece=UNKNOWN,
            bos_piece=BOS,
            eos_piece=EOS,
            max_sentence_length=_LONGEST_TEXT,
            input_sentence_size=_MOST_TEXTS,
            shuffle_input_sentence=True,
            num_threads=16,  # the order of summation depends on it
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(_explain(str(error), vocab_size, lines.count)) from None
    parsed = parse_model(model.getvalue())
    for piece in parsed.pieces:
        piece.score = round(piece.score / _GRID) * _GRID
    return SentencePieceTargets(parsed.SerializeToString(deterministic=True))


class _TrainingTexts:
    """Iterates over texts in the form that the trainer needs, and counts them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.count = 0
        self._texts = texts

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            if text.strip():
                self.count += 1
                yield text.replace(_RESERVED, " ")


def _explain(message: str, vocab_size: int, texts: int) -> str:
    """Return the trainer's message in clearer words, with the flag and the values allowed."""
    if not texts:
        return "a vocabulary of targets cannot be trained: all targets are empty"
    start = f"--config.targets.vocab_size={vocab_size}: for these {texts} targets it "
    if found := re.search(r"value <= (\d+)", message):
        return f"{start}may be at most {found[1]}"
    if found := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"{start}must be at least {found[1]} (4 special pieces, 256 bytes, and characters)"
    return f"{start}cannot be used: {message.rsplit('] ', 1)[-1].strip()}"
