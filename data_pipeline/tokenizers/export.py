"""Export to Hugging Face tokenizer files, with which transformers produces the same ids."""

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

from albert_jax.durable_files import write_atomically
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.sentencepiece import WORD_MARK, SentencePieceTokenizer
from data_pipeline.tokenizers.sentencepiece_model import (
    adjust_scores,
    parse_model,
    with_same_replacement,
)
from data_pipeline.tokenizers.tokenizer import Tokenizer
from data_pipeline.tokenizers.wordpiece import (
    CONTINUATION,
    MAX_WORD_CHARACTERS,
    WordPieceTokenizer,
)

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SENTENCEPIECE_FILE = "spiece.model"
WORDPIECE_FILE = "vocab.txt"

# White space that separates words. In transformers, the character table would delete it before the
# text is split at spaces.
_DELETED_SPACES = "\x0b\x1c\x1d\x1e\x1f"

_Json = dict[str, Any]


def write_tokenizer(tokenizer: Tokenizer, directory: Path, *, model_max_length: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and the vocabulary in its own format.

    Transformers 5 reads the scores and the table of replacements from tokenizer.json, and the
    treatment of case and accents from tokenizer_config.json. Other versions read the vocabulary.

    Args:
        tokenizer: a SentencePiece or WordPiece tokenizer.
        directory: created if it does not exist.
        model_max_length: number of positions of the model.

    Raises:
        InputError: transformers' classes do not support the vocabulary.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        name, config, described = SENTENCEPIECE_FILE, *_describe_sentencepiece(tokenizer)
    elif isinstance(tokenizer, WordPieceTokenizer):
        name, config, described = WORDPIECE_FILE, *_describe_wordpiece(tokenizer)
    else:
        raise TypeError(f"{type(tokenizer).__name__} has no Hugging Face format")
    config["model_max_length"] = model_max_length
    # Without this, version 5 leaves out the token_type_ids.
    config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    if special := [token.content for token in tokenizer.added_tokens.tokens if token.special]:
        config["additional_special_tokens"] = special
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(tokenizer.vocabulary_bytes())
    for name, content in ((TOKENIZER_FILE, described), (TOKENIZER_CONFIG_FILE, config)):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        write_atomically(directory / name, text + "\n")


def _describe_sentencepiece(tokenizer: SentencePieceTokenizer) -> tuple[_Json, _Json]:
    if (tokenizer.pad_id, tokenizer.unk_id) != (0, 1):
        raise InputError(
            "transformers requires padding and unknown to be ids 0 and 1, they are "
            f"{tokenizer.pad_id} and {tokenizer.unk_id}"
        )
    model = parse_model(tokenizer.model)
    if not model.normalizer_spec.precompiled_charsmap:
        raise InputError("the vocabulary has no replacements of characters, such as nmt_nfkc")
    adjust_scores(model)
    accents = [] if tokenizer.keep_accents else [{"type": "NFKD"}, {"type": "StripAccents"}]
    case = [{"type": "Lowercase"}] if tokenizer.lower_case else []
    charsmap = with_same_replacement(
        model.normalizer_spec.precompiled_charsmap, _DELETED_SPACES, "\t"
    )
    normalizers = [
        _replace({"String": "``"}, '"'),
        _replace({"String": "''"}, '"'),
        *accents,
        *case,
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()},
        _replace({"Regex": " {2,}"}, " "),
    ]
    metaspace = {
        "type": "Metaspace",
        "replacement": WORD_MARK,
        "prepend_scheme": "always",
        "split": True,
    }
    described = _describe(
        tokenizer,
        normalizer={"type": "Sequence", "normalizers": normalizers},
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace],
        },
        decoder=metaspace,
        model={
            "type": "Unigram",
            "unk_id": tokenizer.unk_id,
            "vocab": [[piece.piece, piece.score] for piece in model.pieces],
            "byte_fallback": False,
        },
    )
    return _sentencepiece_config(tokenizer), described


def _sentencepiece_config(tokenizer: SentencePieceTokenizer) -> _Json:
    return {
        "tokenizer_class": "AlbertTokenizer",
        "do_lower_case": tokenizer.lower_case,
        "keep_accents": tokenizer.keep_accents,
        "bos_token": tokenizer.tokens[tokenizer.cls_id],
        "eos_token": tokenizer.tokens[tokenizer.sep_id],
        **_special_tokens(tokenizer),
        # The mask token includes the white space before it; a word after it has its own mark.
        "mask_token": _added_token(tokenizer.tokens[tokenizer.mask_id], lstrip=True)
        | {"__type": "AddedToken"},
    }


def _replace(pattern: _Json, content: str) -> _Json:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _describe_wordpiece(tokenizer: WordPieceTokenizer) -> tuple[_Json, _Json]:
    tokens = tokenizer.vocabulary
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        raise InputError("transformers requires the tokens of a vocabulary to be unique")
    described = _describe(
        tokenizer,
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": not tokenizer.keep_accents,
            "lowercase": tokenizer.lower_case,
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        decoder={"type": "WordPiece", "prefix": CONTINUATION, "cleanup": True},
        model={
            "type": "WordPiece",
            "unk_token": tokenizer.tokens[tokenizer.unk_id],
            "continuing_subword_prefix": CONTINUATION,
            "max_input_chars_per_word": MAX_WORD_CHARACTERS,
            "vocab": vocabulary,
        },
    )
    config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": tokenizer.lower_case,
        "strip_accents": not tokenizer.keep_accents,
        "tokenize_chinese_chars": True,
        **_special_tokens(tokenizer),
        "mask_token": tokenizer.tokens[tokenizer.mask_id],
    }
    return config, described


def _describe(
    tokenizer: Tokenizer, *, normalizer: _Json, pre_tokenizer: _Json, decoder: _Json, model: _Json
) -> _Json:
    """Return the content of a tokenizer.json."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(tokenizer),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _template(tokenizer),
        "decoder": decoder,
        "model": model,
    }


def _special_tokens(tokenizer: Tokenizer) -> _Json:
    return {
        f"{name}_token": tokenizer.tokens[id]
        for name, id in (
            ("pad", tokenizer.pad_id),
            ("unk", tokenizer.unk_id),
            ("cls", tokenizer.cls_id),
            ("sep", tokenizer.sep_id),
        )
    }


def _added_tokens(tokenizer: Tokenizer) -> list[_Json]:
    """List the special tokens, which transformers finds in a text before normalizing it, and the
    added tokens."""
    strips = isinstance(tokenizer, SentencePieceTokenizer)
    return [
        {"id": id, **_added_token(tokenizer.tokens[id], strips and id == tokenizer.mask_id)}
        for id in sorted(tokenizer.special_ids.tolist())
    ] + [
        {"id": id, **dataclasses.asdict(token)}
        for id, token in sorted(tokenizer.added_tokens.by_id.items())
    ]


def _added_token(token: str, lstrip: bool) -> _Json:
    return {
        "content": token,
        "single_word": False,
        "lstrip": lstrip,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _template(tokenizer: Tokenizer) -> _Json:
    """Return the template that puts [CLS] and [SEP] around one text or two."""
    cls, sep = (tokenizer.tokens[id] for id in (tokenizer.cls_id, tokenizer.sep_id))

    def special(token: str, segment: int) -> _Json:
        return {"SpecialToken": {"id": token, "type_id": segment}}

    def text(name: str, segment: int) -> _Json:
        return {"Sequence": {"id": name, "type_id": segment}}

    single = [special(cls, 0), text("A", 0), special(sep, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, text("B", 1), special(sep, 1)],
        "special_tokens": {
            token: {"id": token, "ids": [id], "tokens": [token]}
            for token, id in ((cls, tokenizer.cls_id), (sep, tokenizer.sep_id))
        },
    }
