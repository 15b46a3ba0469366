"""SentencePiece models as protobuf messages: scores of pieces, and replacements of characters."""

import math

import numpy as np
from google.protobuf.message import DecodeError
from jaxtyping import Int64, UInt32
from sentencepiece.sentencepiece_model_pb2 import (  # type: ignore[attr-defined]
    ModelProto,
    TrainerSpec,
)

from data_pipeline.errors import InputError

PieceType = ModelProto.SentencePiece.Type

# SentencePiece adds scores in float32, other implementations in float64. Both add multiples of this
# unit without rounding while a sum is above -2048. So equally likely segmentations, such as a row
# of asterisks in the same pieces in a different order, have equal scores in both. Of ten million
# words of Wikipedia, about twenty are segmented differently than with the original scores.
_GRID = 2.0**-13

# Subtracted from the score of pieces such as `▁2011,`, so that they are never chosen.
NUMBER_PENALTY = 100.0

# The table of replacements is a double-array trie (Darts): its size in bytes, its 32-bit units, and
# the replacements, each terminated by a zero byte. A unit holds a label (bits 0 to 7 and 31), a
# flag that one of its children is a value (bit 8), and the offset of its children (bits 10 to 30,
# times 256 if bit 9 is set), which is XORed with the position of the unit. Units with equal
# children share them.
_LABEL = 1 << 31 | 0xFF
_HAS_VALUE = 1 << 8


def parse_model(serialized: bytes) -> ModelProto:
    """Parse a serialized model.

    Raises:
        InputError: it is not a SentencePiece model, or not a unigram model.
    """
    try:
        model = ModelProto.FromString(serialized)
    except DecodeError:
        raise InputError("it is not a SentencePiece model") from None
    if model.trainer_spec.model_type != TrainerSpec.UNIGRAM:
        raise InputError("it is a SentencePiece model of another type than unigram")
    for spec in (model.normalizer_spec, model.denormalizer_spec):
        if spec.precompiled_charsmap and not is_charsmap(spec.precompiled_charsmap):
            raise InputError("its table of replaced characters is damaged")
    if not all(math.isfinite(piece.score) for piece in model.pieces):
        raise InputError("it has a score that is not finite")
    return model


def make_model(pieces: list[tuple[str, float, int]], charsmap: bytes) -> ModelProto:
    """Make a unigram model with the settings of the released models.

    Each word is prefixed with a mark, white space is collapsed, and there are no begin and end
    tokens.

    Args:
        pieces: text, score and type of each piece; the first one is padding, and one is unknown.
        charsmap: the compiled table of character replacements.
        charsmap: the compiled replacements of characters.
    """
    model = ModelProto()
    for text, score, type in pieces:
        model.pieces.add(piece=text, score=score, type=type)
    types = [type for _, _, type in pieces]
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = TrainerSpec.UNIGRAM
    trainer.vocab_size = len(pieces)
    trainer.pad_id, trainer.pad_piece = 0, pieces[0][0]
    trainer.unk_id = types.index(PieceType.UNKNOWN)
    trainer.unk_piece = pieces[trainer.unk_id][0]
    trainer.bos_id = trainer.eos_id = -1
    normalizer.name = "nmt_nfkc"
    normalizer.precompiled_charsmap = charsmap
    normalizer.add_dummy_prefix = True
    normalizer.remove_extra_whitespaces = True
    normalizer.escape_whitespaces = True
    return model


def adjust_scores(model: ModelProto) -> None:
    """Change the scores of a model, in place, to those used to segment words.

    Scores are rounded to multiples of 2⁻¹³, and numbers with commas get a penalty. User-defined
    symbols, which SentencePiece treats differently from version to version, become normal pieces.
    """
    for piece in model.pieces:
        score = round(piece.score / _GRID) * _GRID
        if piece.type == PieceType.USER_DEFINED:
            piece.type = PieceType.NORMAL
        elif is_number_with_comma(piece.piece):
            score -= NUMBER_PENALTY
        piece.score = score


def remove_penalty(model: ModelProto) -> None:
    """Undo the penalty for numbers with commas, if the model has it."""
    numbers = [piece for piece in model.pieces if is_number_with_comma(piece.piece)]
    # No piece is that rare without the penalty.
    if numbers and max(piece.score for piece in numbers) <= -NUMBER_PENALTY:
        for piece in numbers:
            piece.score += NUMBER_PENALTY


def is_number_with_comma(piece: str) -> bool:
    """Return True if a piece ends in a digit and a comma, such as `▁2011,`."""
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def is_charsmap(charsmap: bytes) -> bool:
    """Return True if no walk through the table leaves it; SentencePiece does not check this."""
    size = int.from_bytes(charsmap[:4], "little")
    replacements = charsmap[4 + size :]
    if size % 4 or not size or 4 + size > len(charsmap) or not replacements.endswith(b"\0"):
        return False
    units = np.frombuffer(charsmap, "<u4", size // 4, offset=4)
    is_value = units >> 31 == 1
    # A walk continues with any byte of the text, in the block of 256 units with the children.
    children = np.arange(len(units)) ^ _offsets(units)
    stays_inside = (children | 0xFF) < len(units)
    has_value = is_value[np.minimum(children, len(units) - 1)]
    follows = stays_inside & (has_value | (units & _HAS_VALUE == 0))
    return bool(np.where(is_value, (units & 0x7FFFFFFF) < len(replacements), follows).all())


def with_same_replacement(charsmap: bytes, characters: str, other: str) -> bytes:
    """Change the table to replace some ASCII characters in the same way as another one.

    Characters that are not in the table remain without a replacement.
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
    """Return the position of the unit of an ASCII character, or None if it has no replacement."""
    position = _children(units, 0) ^ ord(char)
    is_present = position < len(units) and int(units[position]) & _LABEL == ord(char)
    return position if is_present and int(units[position]) & _HAS_VALUE else None


def _children(units: UInt32[np.ndarray, " units"], parent: int) -> int:
    return parent ^ int(_offsets(units[parent : parent + 1])[0])


def _offsets(units: UInt32[np.ndarray, " units"]) -> Int64[np.ndarray, " units"]:
    unit = units.astype(np.int64)
    return (unit >> 10 & 0x1FFFFF) << (unit >> 6 & 8)
