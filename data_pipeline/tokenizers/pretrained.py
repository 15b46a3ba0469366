"""Finds and reads the tokenizer of a model, in whatever layout it was saved."""

import base64
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.remote import is_remote, open_remote
from data_pipeline.tokenizers.export import CONFIG_FILE, TOKENIZER_FILE
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.sentencepiece import (
    CLS,
    MASK,
    SEP,
    USER_DEFINED,
    SentencePieceTokenizer,
)
from data_pipeline.tokenizers.sentencepiece_proto import Piece, PieceType, UnigramModel, write_model
from data_pipeline.tokenizers.sentencepiece_scores import unsettle_scores
from data_pipeline.tokenizers.tokenizer import SETTINGS_FILE, Tokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

# Where a workdir and a corpus keep theirs.
_SUBDIRECTORY = "tokenizer"

_Json = dict[str, Any]


def read_tokenizer(
    path: str | Path, *, lower_case: bool | None = None, keep_accents: bool | None = None
) -> Tokenizer:
    """Reads a tokenizer of ours, of Hugging Face or of a released TensorFlow checkpoint.

    Of a Hugging Face directory with several files the `.model` is read rather than what
    transformers made of it.

    Args:
        path: a directory, or a `.model`, `.txt` or `.json` file; local or remote.
        lower_case: overrides what stands there; where nothing does, True.
        keep_accents: likewise; where nothing stands, False.

    Raises:
        InputError: there is no tokenizer that can be used, or several.
    """
    with _local(path) as local:
        if not local.exists():
            raise InputError(f"tokenizer {path}: there is no such file or directory")
        if local.is_dir() and (local / _SUBDIRECTORY / SETTINGS_FILE).is_file():
            local = local / _SUBDIRECTORY
        file = _vocabulary_file(local) if local.is_dir() else local
        stored = _read_json(file) if file.suffix == ".json" else {}
        if "kind" in stored:
            return load_tokenizer(file.parent, lower_case=lower_case, keep_accents=keep_accents)
        settings = {"lower_case": True, "keep_accents": False}
        settings |= _normalizer_settings(stored.get("normalizer"))
        settings |= _config_settings(file.parent / CONFIG_FILE) if local.is_dir() else {}
        asked = {"lower_case": lower_case, "keep_accents": keep_accents}
        settings |= {name: value for name, value in asked.items() if value is not None}
        if not stored:
            return load_tokenizer(file, **settings)
        return _from_tokenizer_json(file, stored, settings)


@contextmanager
def _local(path: str | Path) -> Iterator[Path]:
    """The path, or a copy of the small files of a remote one."""
    if not is_remote(path):
        yield Path(path)
        return
    remote = open_remote(str(path))
    if (remote / _SUBDIRECTORY).exists():
        remote = remote / _SUBDIRECTORY
    with tempfile.TemporaryDirectory() as copy:
        files = remote.iterdir() if remote.is_dir() else [remote]
        for file in files:
            if file.suffix in (".model", ".txt", ".json"):
                (Path(copy) / file.name).write_bytes(file.read_bytes())
        yield Path(copy)


def _vocabulary_file(directory: Path) -> Path:
    """The file that says most about how text is cut."""
    stored = directory / TOKENIZER_FILE
    if stored.is_file() and "kind" in _read_json(stored):
        return stored
    for pattern in ("*.model", "vocab*.txt"):
        found = sorted(directory.glob(pattern))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise InputError(f"tokenizer {directory} is one of {names}: name the file")
        if found:
            return found[0]
    if stored.is_file():
        return stored
    raise InputError(
        f"there is no tokenizer in {directory}: no {_SUBDIRECTORY}/, no .model, no vocab*.txt and "
        f"no {TOKENIZER_FILE}"
    )


def _read_json(path: Path) -> _Json:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"tokenizer {path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"tokenizer {path} must hold a JSON object")
    return content


def _config_settings(path: Path) -> dict[str, bool]:
    """What a tokenizer_config.json says, if there is one."""
    if not path.is_file():
        return {}
    config = _read_json(path)
    if config.get("tokenize_chinese_chars") is False:
        raise InputError(f"tokenizer {path}: tokenize_chinese_chars=false is not supported")
    settings = {}
    if isinstance(config.get("do_lower_case"), bool):
        settings["lower_case"] = config["do_lower_case"]
    if isinstance(config.get("keep_accents"), bool):
        settings["keep_accents"] = config["keep_accents"]
    elif isinstance(config.get("strip_accents"), bool):
        settings["keep_accents"] = not config["strip_accents"]
    elif config.get("tokenizer_class", "").startswith("Bert"):
        # Accents go with case there, unless told apart.
        settings["keep_accents"] = not settings.get("lower_case", True)
    return settings


def _normalizer_settings(normalizer: Any) -> dict[str, bool]:
    """What the normalizer of a tokenizer.json does to case and accents."""
    if not isinstance(normalizer, Mapping):
        return {}
    if normalizer.get("type") == "BertNormalizer":
        if not normalizer.get("handle_chinese_chars", True):
            raise InputError("a tokenizer.json with handle_chinese_chars=false is not supported")
        lower = bool(normalizer.get("lowercase", True))
        strip = normalizer.get("strip_accents")
        return {"lower_case": lower, "keep_accents": not (lower if strip is None else strip)}
    steps = {step.get("type") for step in normalizer.get("normalizers", [])}
    return {"lower_case": "Lowercase" in steps, "keep_accents": "StripAccents" not in steps}


def _from_tokenizer_json(path: Path, stored: _Json, settings: Mapping[str, bool]) -> Tokenizer:
    """The only file that transformers 5 saves."""
    model = stored.get("model")
    model = model if isinstance(model, dict) else {}
    kind = model.get("type")
    if kind not in ("Unigram", "WordPiece"):
        raise InputError(f"tokenizer {path}: its model must be Unigram or WordPiece, got {kind!r}")
    try:
        count = len(model["vocab"])
        added = [token for token in stored.get("added_tokens", []) if token["id"] >= count]
        if added:
            raise InputError(
                f"it has {len(added)} words beside its vocabulary, such as "
                f"{added[0]['content']!r}, which is not supported"
            )
        if kind == "WordPiece":
            pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
            return WordPieceTokenizer(pieces, **settings)
        return SentencePieceTokenizer(write_model(_unigram_model(stored)), **settings)
    except InputError as error:
        raise InputError(f"tokenizer {path} cannot be used: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"tokenizer {path} is not as transformers writes it: {type(error).__name__} {error}"
        ) from None


def _unigram_model(stored: _Json) -> UnigramModel:
    model = stored["model"]
    charsmaps = [
        base64.b64decode(step["precompiled_charsmap"])
        for step in stored["normalizer"]["normalizers"]
        if step["type"] == "Precompiled"
    ]
    special = {model["vocab"][0][0], CLS, SEP, MASK}

    def piece(id: int, text: str, score: float) -> Piece:
        if id == model["unk_id"]:
            return Piece(text, score, PieceType.UNKNOWN)
        if text in special:
            return Piece(text, score, PieceType.CONTROL)
        if text in USER_DEFINED and score == 0:
            return Piece(text, score, PieceType.USER_DEFINED)
        return Piece(text, score, PieceType.NORMAL)

    pieces = [piece(id, *entry) for id, entry in enumerate(model["vocab"])]
    return UnigramModel(unsettle_scores(pieces), charsmaps[0] if charsmaps else b"")
