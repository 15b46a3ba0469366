"""Loading a tokenizer of either kind, from files of this project or from a bare vocabulary."""

from pathlib import Path
from typing import Any

from albert_jax.input_files import read_bytes, read_json_object
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.added_tokens import AddedToken
from data_pipeline.tokenizers.sentencepiece import SentencePieceTokenizer
from data_pipeline.tokenizers.tokenizer import SETTINGS_FILE, Tokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer


def load_tokenizer(
    path: str | Path, *, lower_case: bool | None = None, keep_accents: bool | None = None
) -> Tokenizer:
    """Load a directory written by `Tokenizer.save`, a SentencePiece model or a vocab.txt.

    Args:
        path: the directory, or a file ending in `.model` or `.txt`.
        lower_case: overrides the directory's setting; True by default for a bare file.
        keep_accents: overrides the directory's setting; False by default for a bare file.

    Raises:
        InputError: there is no tokenizer, or it lacks a special token.
    """
    kinds = {kind.KIND: kind for kind in (SentencePieceTokenizer, WordPieceTokenizer)}
    path = Path(path)
    settings: dict[str, Any] = {"lower_case": True, "keep_accents": False}
    if path.is_dir():
        stored = _read_settings(path / SETTINGS_FILE)
        name = stored.get("kind")
        if not isinstance(name, str) or name not in kinds:
            raise InputError(
                f"tokenizer {path / SETTINGS_FILE}: kind must be one of {', '.join(kinds)}, got "
                f"{name!r}"
            )
        kind = kinds[name]
        settings = {key: bool(stored.get(key, default)) for key, default in settings.items()}
        added = stored.get("added_tokens", [])
        settings["added_tokens"] = _read_added_tokens(path / SETTINGS_FILE, added)
        path = path / kind.VOCABULARY_FILE
    elif path.suffix in (".model", ".txt"):
        kind = SentencePieceTokenizer if path.suffix == ".model" else WordPieceTokenizer
    else:
        raise InputError(
            f"tokenizer {path} must be a directory with {SETTINGS_FILE}, a SentencePiece .model "
            "or a WordPiece .txt"
        )
    if lower_case is not None:
        settings["lower_case"] = lower_case
    if keep_accents is not None:
        settings["keep_accents"] = keep_accents
    content = read_bytes(path, error=InputError, name=f"tokenizer {path}")
    try:
        return kind.from_bytes(content, **settings)
    except InputError as error:
        raise InputError(f"tokenizer {path} cannot be used: {error}") from None


def read_tokenizer_json(path: Path) -> dict[str, Any]:
    """Read a JSON file with settings of a tokenizer; null counts as absent.

    Raises:
        InputError: the file does not exist, or is not a JSON object.
    """
    return read_json_object(path, error=InputError, name=f"tokenizer {path}", drop_nulls=True)


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"tokenizer {path.parent} has no {SETTINGS_FILE}")
    return read_tokenizer_json(path)


def _read_added_tokens(path: Path, stored: Any) -> list[AddedToken]:
    try:
        return [AddedToken.from_json(token) for token in stored]
    except (InputError, TypeError, AttributeError) as error:
        raise InputError(f"tokenizer {path} has malformed added_tokens: {error}") from None
