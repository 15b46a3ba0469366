"""Contents of Hugging Face tokenizer files, with which transformers produces the same ids."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

from data_pipeline.errors import InputError
from data_pipeline.tokenizers.sentencepiece import WORD_MARK
from data_pipeline.tokenizers.sentencepiece_model import PieceType

_Json = dict[str, Any]


def describe_sentencepiece(
    model: ModelProto, pad_id: int, unk_id: int, bos_id: int, eos_id: int
) -> tuple[_Json, _Json]:
    """Return tokenizer.json and tokenizer_config.json of a unigram model.

    Two kinds of text get other ids in transformers: text that spells a piece for a byte, such as
    `<0x0A>`, and text with "▁" (U+2581). A model not made by `train_target_tokenizer`, whose scores
    are not rounded, may also have ties, which float32 and float64 break differently.

    Raises:
        InputError: it has user-defined pieces, which transformers matches in another way.
    """
    pieces = model.pieces
    if any(piece.type == PieceType.USER_DEFINED for piece in pieces):
        raise InputError("a vocabulary of targets with user-defined pieces cannot be exported")
    spec = model.normalizer_spec
    normalizers = []
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        # `\A` and `\z` match at the ends of the text; `^` and `$` would match at those of lines.
        normalizers += [_replace({"Regex": r"\A +| +\z"}, ""), _replace({"Regex": " {2,}"}, " ")]
    special = {
        "pad_token": pieces[pad_id].piece,
        "unk_token": pieces[unk_id].piece,
        "bos_token": pieces[bos_id].piece,
        "eos_token": pieces[eos_id].piece,
    }
    described = _describe(
        added={pieces[id].piece: id for id in sorted((pad_id, unk_id, bos_id, eos_id))},
        normalizer={"type": "Sequence", "normalizers": normalizers},
        pre_tokenizer={
            "type": "Metaspace",
            "replacement": WORD_MARK,
            "prepend_scheme": "always" if spec.add_dummy_prefix else "never",
            "split": not any(WORD_MARK in piece.piece[1:] for piece in pieces),
        },
        decoder={
            "type": "Sequence",
            "decoders": [
                _replace({"String": WORD_MARK}, " "),
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": int(spec.add_dummy_prefix), "stop": 0},
            ],
        },
        model={
            "type": "Unigram",
            "unk_id": unk_id,
            "vocab": [[piece.piece, piece.score] for piece in pieces],
            "byte_fallback": any(piece.type == PieceType.BYTE for piece in pieces),
        },
    )
    return described, _config("PreTrainedTokenizerFast", special)


def describe_byte_level(
    tokens: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    bos_token: str,
    eos_token: str,
    pad_token: str,
) -> tuple[_Json, _Json]:
    """Return tokenizer.json and tokenizer_config.json of a byte-level vocabulary."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    added = sorted({bos_token, eos_token, pad_token}, key=tokens.__getitem__)
    described = _describe(
        added={token: tokens[token] for token in added},
        normalizer=None,
        pre_tokenizer={**byte_level, "use_regex": True},
        decoder={**byte_level, "use_regex": True},
        model={
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": dict(tokens),
            "merges": [f"{left} {right}" for left, right in merges],
        },
    )
    special = {"bos_token": bos_token, "eos_token": eos_token, "pad_token": pad_token}
    config = _config("GPT2Tokenizer", special | {"unk_token": eos_token})
    return described, config | {"add_prefix_space": False}


def _replace(pattern: _Json, content: str) -> _Json:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _describe(
    *,
    added: Mapping[str, int],
    normalizer: _Json | None,
    pre_tokenizer: _Json,
    decoder: _Json,
    model: _Json,
) -> _Json:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": id,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token, id in added.items()
        ],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def _config(tokenizer_class: str, special: Mapping[str, str]) -> _Json:
    return {
        "tokenizer_class": tokenizer_class,
        **special,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
