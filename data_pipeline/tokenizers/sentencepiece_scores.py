"""Scores by which every implementation cuts a word alike, and commas behind numbers apart."""

from collections.abc import Sequence

from data_pipeline.tokenizers.sentencepiece_proto import Piece, PieceType

# SentencePiece adds scores as float32, others as float64. Multiples of this are added without
# rounding by both while a sum is above -2048, so equally likely cuts, such as those of a row of
# asterisks into the same pieces in another order, are equal for both. Of ten million words of
# Wikipedia some twenty are cut otherwise than by the scores as they were.
_GRID = 2.0**-13

# What pieces such as `▁2011,` lose of their score, so that they are never chosen.
NUMBER_PENALTY = 100.0


def is_number_with_comma(piece: str) -> bool:
    """Whether a piece holds the end of a number and the comma behind it, as `▁2011,` does."""
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def settle_scores(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces with the scores that words are cut by.

    They are rounded to 2⁻¹³, the penalty of numbers with commas is subtracted, and symbols defined
    by the user, which versions of SentencePiece treat differently, become pieces like others.
    """
    return tuple(_settle(piece) for piece in pieces)


def unsettle_scores(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Takes the penalty back, from pieces that may have it or not."""
    numbers = [piece.score for piece in pieces if is_number_with_comma(piece.text)]
    # No piece is that rare by itself.
    penalty = NUMBER_PENALTY if numbers and max(numbers) <= -NUMBER_PENALTY else 0.0
    return tuple(
        piece._replace(score=piece.score + penalty) if is_number_with_comma(piece.text) else piece
        for piece in pieces
    )


def _settle(piece: Piece) -> Piece:
    score = round(piece.score / _GRID) * _GRID
    if piece.type is PieceType.USER_DEFINED:
        return Piece(piece.text, score, PieceType.NORMAL)
    if is_number_with_comma(piece.text):
        score -= NUMBER_PENALTY
    return piece._replace(score=score)
