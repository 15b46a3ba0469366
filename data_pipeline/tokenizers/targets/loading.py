"""Loading a vocabulary of targets, from this project or other models."""

from collections.abc import Mapping
from pathlib import Path

from albert_jax.input_files import read_bytes, read_json_object, require_fields
from albert_jax.interop.hub import local_path
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.targets.byte_level import ByteLevelTargets
from data_pipeline.tokenizers.targets.pretrained import has_byte_level, read_byte_level
from data_pipeline.tokenizers.targets.sentencepiece import SentencePieceTargets
from data_pipeline.tokenizers.targets.target_tokenizer import SETTINGS_FILE, TargetTokenizer

_KINDS: Mapping[str, type[TargetTokenizer]] = {
    kind.KIND: kind for kind in (SentencePieceTargets, ByteLevelTargets)
}


def load_target_tokenizer(path: str | Path, pad_token: str | None = None) -> TargetTokenizer:
    """Load a directory that `TargetTokenizer.save` wrote, a SentencePiece model or GPT-2's files.

    Args:
        path: the directory; a file that ends in `.model`; or a model with `tokenizer.json`, or
            `vocab.json` and `merges.txt`, given by its directory or its name on the Hugging Face
            Hub.
        pad_token: the padding token, for GPT-2's files, which have none; it is appended if it is
            not in the vocabulary. By default the one that the files declare.

    Raises:
        InputError: there is no vocabulary, it is malformed, or it lacks a special token.
    """
    local = Path(local_path(path, error=InputError))
    try:
        tokenizer = _load(local, pad_token)
    except InputError as error:
        raise InputError(f"target tokenizer {path}: {error}") from error.__cause__
    if pad_token not in (None, tokenizer.pad_token):
        raise InputError(
            f"--config.targets.pad_token={pad_token}: target tokenizer {path} has a "
            f"token for padding, {tokenizer.pad_token}"
        )
    return tokenizer


def _load(path: Path, pad_token: str | None) -> TargetTokenizer:
    if not path.exists():
        raise InputError("there is no such file or directory")
    if path.is_dir() and (path / SETTINGS_FILE).is_file():
        return _load_saved(path)
    if path.is_dir() and has_byte_level(path):
        return read_byte_level(path, pad_token)
    if path.is_file() and path.suffix == ".model":
        return SentencePieceTargets(read_bytes(path, error=InputError))
    raise InputError(
        f"it must be a directory with {SETTINGS_FILE}, tokenizer.json, or vocab.json and "
        "merges.txt, or a SentencePiece .model"
    )


def _load_saved(directory: Path) -> TargetTokenizer:
    settings = read_json_object(directory / SETTINGS_FILE, error=InputError)
    require_fields(settings, {"kind": str}, SETTINGS_FILE, error=InputError)
    if settings["kind"] not in _KINDS:
        raise InputError(
            f"{SETTINGS_FILE}: kind must be one of {', '.join(_KINDS)}, got {settings['kind']!r}"
        )
    tokenizer = _KINDS[settings["kind"]].from_files(directory, settings)
    for name, value in tokenizer.settings.items():
        if settings.get(name) != value:
            raise InputError(
                f"{SETTINGS_FILE}: {name} is {settings.get(name)!r}, by the vocabulary beside it "
                f"{value!r}"
            )
    return tokenizer
