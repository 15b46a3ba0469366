"""SentencePiece models as protobuf messages, and the scores by which words are segmented."""

import math

from google.protobuf.message import DecodeError
from sentencepiece.sentencepiece_model_pb2 import (  # type: ignore[attr-defined]
    ModelProto,
    TrainerSpec,
)

from data_pipeline.errors import InputError
from data_pipeline.tokenizers.charsmap import is_charsmap

PieceType = ModelProto.SentencePiece.Type

# SentencePiece adds scores as float32, other implementations as float64. Both add multiples of this
# without rounding while a sum is above -2048, so equally likely segmentations, such as those of a
# row of asterisks into the same pieces in another order, have equal scores in both. Of ten million
# words of Wikipedia some twenty are segmented differently than by the original scores.
_GRID = 2.0**-13

# Subtracted from the score of pieces such as `▁2011,`, so that they are never chosen.
NUMBER_PENALTY = 100.0


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
    """Make a unigram model with the settings of the released ones.

    Words get a mark in front, white space is collapsed, and there are no begin and end tokens.

    Args:
        pieces: text, score and type of each; the first is padding, one of them unknown.
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
    """Change the scores of a model to those by which words are segmented.

    They are rounded to multiples of 2⁻¹³, numbers with commas get a penalty, and user-defined
    symbols, which versions of SentencePiece treat differently, become normal pieces.
    """
    for piece in model.pieces:
        score = round(piece.score / _GRID) * _GRID
        if piece.type == PieceType.USER_DEFINED:
            piece.type = PieceType.NORMAL
        elif is_number_with_comma(piece.piece):
            score -= NUMBER_PENALTY
        piece.score = score


def remove_penalty(model: ModelProto) -> None:
    """Undo the penalty of numbers with commas, if the model has it."""
    numbers = [piece for piece in model.pieces if is_number_with_comma(piece.piece)]
    # No piece is that rare by itself.
    if numbers and max(piece.score for piece in numbers) <= -NUMBER_PENALTY:
        for piece in numbers:
            piece.score += NUMBER_PENALTY


def is_number_with_comma(piece: str) -> bool:
    """Return True if a piece ends in a digit and a comma, as `▁2011,` does."""
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()
