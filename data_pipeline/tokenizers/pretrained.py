"""The tokenizer of a pretrained model, in the layout of this project, Hugging Face or Google."""

import base64
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from albert_jax.input_files import is_remote, require_fields
from albert_jax.interop.hub import local_path
from data_pipeline.errors import InputError
from data_pipeline.remote import open_remote
from data_pipeline.tokenizers.declared_tokens import DECLARING_FILES, with_declared_tokens
from data_pipeline.tokenizers.export import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from data_pipeline.tokenizers.loading import load_tokenizer, read_tokenizer_json
from data_pipeline.tokenizers.sentencepiece import (
    CLS,
    MASK,
    SEP,
    USER_DEFINED,
    SentencePieceTokenizer,
)
from data_pipeline.tokenizers.sentencepiece_model import PieceType, make_model, remove_penalty
from data_pipeline.tokenizers.tokenizer import SETTINGS_FILE, TOKENIZER_DIRECTORY, Tokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

_Json = dict[str, Any]


class MissingTokenizerError(InputError):
    """A directory without any tokenizer, even a damaged or unsupported one."""


def read_pretrained_tokenizer(
    path: str | Path, *, lower_case: bool | None = None, keep_accents: bool | None = None
) -> Tokenizer:
    """Read a tokenizer of this project, of Hugging Face or of a released TensorFlow checkpoint.

    In a Hugging Face directory with several files, a `.model` takes precedence over the
    tokenizer.json that transformers derived from it.

    Args:
        path: a directory, or a `.model`, `.txt` or `.json` file, local or remote; or the name of a
            model on the Hugging Face Hub.
        lower_case: overrides the stored setting, which is True if absent.
        keep_accents: overrides the stored setting, which is False if absent.

    Raises:
        InputError: there is no supported tokenizer, or there is more than one.
        MissingTokenizerError: a directory has no tokenizer at all.
    """
    with _local(path) as local:
        if local.is_dir() and (local / TOKENIZER_DIRECTORY / SETTINGS_FILE).is_file():
            local = local / TOKENIZER_DIRECTORY
        file = _vocabulary_file(local) if local.is_dir() else local
        stored = read_tokenizer_json(file) if file.suffix == ".json" else {}
        if "kind" in stored:
            return load_tokenizer(file.parent, lower_case=lower_case, keep_accents=keep_accents)
        settings = {"lower_case": True, "keep_accents": False}
        settings |= _normalizer_settings(file, stored.get("normalizer"))
        settings |= _config_settings(file.parent / TOKENIZER_CONFIG_FILE) if local.is_dir() else {}
        overrides = {"lower_case": lower_case, "keep_accents": keep_accents}
        settings |= {name: value for name, value in overrides.items() if value is not None}
        if stored:
            tokenizer = _from_tokenizer_json(file, stored, settings)
        else:
            tokenizer = load_tokenizer(file, **settings)
        declaring = {TOKENIZER_FILE: file} if stored else {}
        if local.is_dir():
            beside = {name: local / name for name in DECLARING_FILES}
            declaring = {name: one for name, one in beside.items() if one.is_file()}
        return with_declared_tokens(tokenizer, declaring)


@contextmanager
def _local(path: str | Path) -> Iterator[Path]:
    """Yield a local path, or a local copy of the small files of a remote one."""
    path = local_path(path, error=InputError)
    if not is_remote(path):
        if not Path(path).exists():
            raise InputError(f"tokenizer {path}: there is no such file or directory")
        yield Path(path)
        return
    remote = open_remote(str(path))
    if not remote.exists():
        raise InputError(f"tokenizer {path}: there is no such file or directory")
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        if not remote.is_dir():
            (copy / remote.name).write_bytes(remote.read_bytes())
            yield copy / remote.name
            return
        if (remote / TOKENIZER_DIRECTORY).exists():
            remote = remote / TOKENIZER_DIRECTORY
        for file in remote.iterdir():
            if file.suffix in (".model", ".txt", ".json"):
                (copy / file.name).write_bytes(file.read_bytes())
        try:
            yield copy
        except InputError as error:  # name the given path in the message, not its copy
            raise type(error)(str(error).replace(directory, str(path))) from None


def _vocabulary_file(directory: Path) -> Path:
    """Find the file that best describes the tokenizer."""
    stored = directory / TOKENIZER_FILE
    if stored.is_file() and "kind" in read_tokenizer_json(stored):
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
    raise MissingTokenizerError(
        f"there is no tokenizer in {directory}: no {TOKENIZER_DIRECTORY}/, no .model, no "
        f"vocab*.txt and no {TOKENIZER_FILE}"
    )


def _config_settings(path: Path) -> dict[str, bool]:
    """Read the settings of a tokenizer_config.json, if there is one."""
    if not path.is_file():
        return {}
    config = read_tokenizer_json(path)
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
        # BERT drops accents if it drops case, unless set separately.
        settings["keep_accents"] = not settings.get("lower_case", True)
    return settings


def _normalizer_settings(file: Path, normalizer: Any) -> dict[str, bool]:
    """Read the treatment of case and accents from the normalizer of a tokenizer.json."""
    if not isinstance(normalizer, Mapping):
        return {}
    if normalizer.get("type") == "BertNormalizer":
        if not normalizer.get("handle_chinese_chars", True):
            raise InputError(f"tokenizer {file}: handle_chinese_chars=false is not supported")
        lower = bool(normalizer.get("lowercase", True))
        strip = normalizer.get("strip_accents")
        return {"lower_case": lower, "keep_accents": not (lower if strip is None else strip)}
    place = f"tokenizer {file}: normalizer"
    normalizer = {"normalizers": [], **normalizer}
    require_fields(normalizer, {"normalizers": list}, place, error=InputError)
    for step in normalizer["normalizers"]:
        require_fields(step, {"type": str}, f"{place}: a step", error=InputError)
    steps = {step["type"] for step in normalizer["normalizers"]}
    return {"lower_case": "Lowercase" in steps, "keep_accents": "StripAccents" not in steps}


def _from_tokenizer_json(path: Path, stored: _Json, settings: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer of a tokenizer.json, the only file that transformers 5 saves."""
    model = stored.get("model")
    model = model if isinstance(model, dict) else {}
    kind = model.get("type")
    if kind not in ("Unigram", "WordPiece"):
        raise InputError(f"tokenizer {path}: its model must be Unigram or WordPiece, got {kind!r}")
    try:
        if kind == "WordPiece":
            require_fields(model, {"vocab": dict}, "its model", error=InputError)
            tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
            return WordPieceTokenizer(tokens, **settings)
        return SentencePieceTokenizer(_unigram_model(stored), **settings)
    except InputError as error:
        raise InputError(f"tokenizer {path} cannot be used: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"tokenizer {path} is not as transformers writes it: {type(error).__name__} {error}"
        ) from None


def _unigram_model(stored: _Json) -> bytes:
    """Serialize the SentencePiece model from which a tokenizer.json was made."""
    model = stored["model"]
    charsmaps = [
        base64.b64decode(step["precompiled_charsmap"])
        for step in stored["normalizer"]["normalizers"]
        if step["type"] == "Precompiled"
    ]
    special = {model["vocab"][0][0], CLS, SEP, MASK}

    def type_of(id: int, text: str, score: float) -> int:
        if id == model["unk_id"]:
            return PieceType.UNKNOWN
        if text in special:
            return PieceType.CONTROL
        if text in USER_DEFINED and score == 0:
            return PieceType.USER_DEFINED
        return PieceType.NORMAL

    pieces = [
        (text, score, type_of(id, text, score)) for id, (text, score) in enumerate(model["vocab"])
    ]
    unigram = make_model(pieces, charsmaps[0] if charsmaps else b"")
    remove_penalty(unigram)
    return unigram.SerializeToString()
