"""What a SentencePiece `.model` holds: the few fields of its protobuf that other formats need.

Reading the wire format takes fewer lines than a dependency on protobuf would.
"""

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from data_pipeline.errors import InputError


class PieceType(IntEnum):
    """What a piece is for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    """A piece, and its log probability."""

    text: str
    score: float
    type: PieceType


class UnigramModel(NamedTuple):
    """A vocabulary, and the compiled table of what is replaced in a text before it is cut."""

    pieces: tuple[Piece, ...]
    charsmap: bytes


# Kinds of values on the wire.
_VARINT, _BYTES, _FLOAT = 0, 2, 5
_SIZES = {1: 8, _FLOAT: 4}  # bytes of the kinds that have a fixed size
# Fields: of ModelProto, of a piece, of TrainerSpec, of NormalizerSpec.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _VOCAB_SIZE, _UNK_ID, _BOS_ID, _EOS_ID, _PAD_ID = 3, 4, 40, 41, 42, 43
_UNK_PIECE, _PAD_PIECE = 45, 48
_NAME, _CHARSMAP, _ADD_PREFIX, _REMOVE_SPACES, _ESCAPE_SPACES = 1, 2, 3, 4, 5
_UNIGRAM = 1


def read_model(model: bytes) -> UnigramModel:
    """Reads a serialized model.

    Raises:
        InputError: it is none, or not a unigram model.
    """
    pieces: list[Piece] = []
    charsmap, model_type = b"", _UNIGRAM
    try:
        for field, value in _fields(model):
            if field == _PIECES:
                found = dict(_fields(value))
                score = struct.unpack("<f", found.get(_SCORE, bytes(4)))[0]
                pieces.append(Piece(found[_TEXT].decode(), score, PieceType(found.get(_TYPE, 1))))
            elif field == _TRAINER:
                model_type = dict(_fields(value)).get(_MODEL_TYPE, _UNIGRAM)
            elif field == _NORMALIZER:
                charsmap = dict(_fields(value)).get(_CHARSMAP, b"")
    except (KeyError, IndexError, ValueError, TypeError, struct.error, AttributeError):
        raise InputError("it is no SentencePiece model") from None
    if model_type != _UNIGRAM:
        raise InputError("it is a SentencePiece model of another kind than unigram")
    return UnigramModel(tuple(pieces), charsmap)


def write_model(model: UnigramModel) -> bytes:
    """A serialized model with the settings of the released ones.

    Words get a mark in front, white space is collapsed, and there are no ids of begin and end.
    """
    types = [piece.type for piece in model.pieces]
    unknown = types.index(PieceType.UNKNOWN)
    trainer = (
        _field(_MODEL_TYPE, _UNIGRAM)
        + _field(_VOCAB_SIZE, len(model.pieces))
        + _field(_UNK_ID, unknown)
        + _field(_BOS_ID, -1)
        + _field(_EOS_ID, -1)
        + _field(_PAD_ID, 0)
        + _field(_UNK_PIECE, model.pieces[unknown].text.encode())
        + _field(_PAD_PIECE, model.pieces[0].text.encode())
    )
    normalizer = (
        _field(_NAME, b"nmt_nfkc")
        + _field(_CHARSMAP, model.charsmap)
        + b"".join(_field(name, 1) for name in (_ADD_PREFIX, _REMOVE_SPACES, _ESCAPE_SPACES))
    )
    return _write_pieces(model.pieces) + _field(_TRAINER, trainer) + _field(_NORMALIZER, normalizer)


def with_pieces(model: bytes, pieces: Sequence[Piece]) -> bytes:
    """A serialized model with other pieces, and all else as it was."""
    others = (_field(field, value) for field, value in _fields(model) if field != _PIECES)
    return _write_pieces(pieces) + b"".join(others)


def _write_pieces(pieces: Sequence[Piece]) -> bytes:
    messages = (
        _field(_TEXT, piece.text.encode())
        + _field(_SCORE, piece.score)
        + _field(_TYPE, int(piece.type))
        for piece in pieces
    )
    return b"".join(_field(_PIECES, message) for message in messages)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The numbers of a message's fields, and their values: int, or bytes that are not read yet."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield field, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("cut off")
        yield field, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, int):
        return _encode_varint(number << 3 | _VARINT) + _encode_varint(value % (1 << 64))
    if isinstance(value, float):
        return _encode_varint(number << 3 | _FLOAT) + struct.pack("<f", value)
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(value)) + value


def _encode_varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
