"""Byte-level vocabularies in the directories of Hugging Face models."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from albert_jax.input_files import read_json_object, require_fields, shorten
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.targets.byte_level import (
    MERGES_FILE,
    TOKENS_FILE,
    ByteLevelTargets,
    read_merges,
)

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
SPECIAL_FILE, ADDED_FILE = "special_tokens_map.json", "added_tokens.json"
END_OF_TEXT = "<|endoftext|>"

_Json = dict[str, Any]


def has_byte_level(directory: Path) -> bool:
    """Return True if a directory has the files of a vocabulary that may be byte-level."""
    return (directory / TOKENIZER_FILE).is_file() or (directory / TOKENS_FILE).is_file()


def read_byte_level(directory: Path, pad_token: str | None) -> ByteLevelTargets:
    """Read `tokenizer.json`, or `vocab.json` and `merges.txt`.

    The begin and end tokens are the ones that the files declare, or else `<|endoftext|>`. Padding
    is `pad_token`, or else the declared token if it is neither begin nor end. If the vocabulary
    lacks it, it is appended with the next id, as in transformers.

    Raises:
        InputError: the files are missing or malformed, have another kind of vocabulary, or have
            added tokens other than these; or there is no padding.
    """
    stored = {
        name: read_json_object(directory / name, error=InputError, drop_nulls=True)
        for name in (TOKENIZER_FILE, CONFIG_FILE, SPECIAL_FILE, ADDED_FILE)
        if (directory / name).is_file()
    }
    if TOKENIZER_FILE in stored:
        tokens, merges = _read_model(directory / TOKENIZER_FILE, stored[TOKENIZER_FILE])
    else:
        tokens = read_json_object(directory / TOKENS_FILE, error=InputError)
        merges = read_merges(directory / MERGES_FILE)
    bos = _declared(stored, "bos_token") or END_OF_TEXT
    eos = _declared(stored, "eos_token") or END_OF_TEXT
    pad = pad_token or _declared(stored, "pad_token")
    if pad is None or pad in (bos, eos):
        found = "no padding" if pad is None else f"{pad!r} for padding, which is not its own"
        raise InputError(
            f"it has {found}; --config.targets.pad_token=<pad> appends <pad> to its "
            f"{len(tokens)} tokens"
        )
    for token, id in sorted(_added_tokens(directory, stored), key=lambda item: item[1]):
        if token not in tokens and token not in (bos, eos, pad):
            raise InputError(
                f"it has the added token {token!r}; a vocabulary of targets may have those that "
                "begin, end and pad alone"
            )
        if tokens.setdefault(token, id) != id:
            raise InputError(f"its added token {token!r} has the ids {tokens[token]} and {id}")
    tokens.setdefault(pad, len(tokens))
    return ByteLevelTargets(tokens, merges, bos_token=bos, eos_token=eos, pad_token=pad)


def _read_model(path: Path, stored: _Json) -> tuple[_Json, list[tuple[str, str]]]:
    """Return the tokens and merges of a tokenizer.json, provided that it encodes like GPT-2."""
    require_fields(stored, {"model": dict}, str(path), error=InputError)
    model, place = stored["model"], f"{path}: model"
    if model.get("type") != "BPE":
        raise InputError(
            f"its {path.name} has a model of type {model.get('type')!r}, expected BPE; of a "
            "SentencePiece vocabulary, give the .model"
        )
    require_fields(model, {"vocab": dict, "merges": list}, place, error=InputError)
    options = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    others = {name: model[name] for name in options if model.get(name)}
    splitter = stored.get("pre_tokenizer", {})
    usual = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    if not isinstance(splitter, dict) or {"use_regex": True, **splitter} != {**splitter, **usual}:
        others["pre_tokenizer"] = splitter
    if stored.get("normalizer"):
        others["normalizer"] = stored["normalizer"]
    if others:
        raise InputError(
            f"its {path.name} does not encode as GPT-2 does, which alone is supported: "
            f"{shorten(others)}"
        )
    return dict(model["vocab"]), [_pair(merge, place) for merge in model["merges"]]


def _pair(merge: Any, place: str) -> tuple[str, str]:
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(pair, list) or [type(part) for part in pair] != [str, str]:
        raise InputError(f"{place}: a merge must be of two tokens, got {shorten(merge)}")
    return pair[0], pair[1]


def _declared(stored: Mapping[str, _Json], name: str) -> str | None:
    """Return the special token declared under a name, or None."""
    for file in (CONFIG_FILE, SPECIAL_FILE):
        value = stored.get(file, {}).get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            return value
    return None


def _added_tokens(directory: Path, stored: Mapping[str, _Json]) -> Iterator[tuple[str, int]]:
    """Yield the tokens that the files add to the vocabulary, or repeat from it."""
    added = list(_field(stored, TOKENIZER_FILE, "added_tokens", list))
    for id, token in _field(stored, CONFIG_FILE, "added_tokens_decoder", dict).items():
        if not isinstance(token, dict) or not id.isdecimal():
            raise InputError(f"{CONFIG_FILE}: added_tokens_decoder must map ids to tokens")
        added.append({**token, "id": int(id)})
    added += [{"content": token, "id": id} for token, id in stored.get(ADDED_FILE, {}).items()]
    for token in added:
        place = f"{directory}: an added token"
        require_fields(token, {"content": str, "id": int}, place, error=InputError)
        yield token["content"], token["id"]


def _field(stored: Mapping[str, _Json], file: str, name: str, kind: type) -> Any:
    """Return a field of a file, or an empty value if there is none."""
    content = stored.get(file, {})
    require_fields({name: kind(), **content}, {name: kind}, file, error=InputError)
    return content.get(name, kind())
