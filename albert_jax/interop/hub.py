"""Models of the Hugging Face Hub: names like ``albert/albert-base-v2``, downloads and uploads."""

import functools
import os
import re
from pathlib import Path
from typing import Any, NoReturn, TypeVar

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
# What is downloaded: configuration, tokenizer and weights, but no file that could hold code.
_FILES = ("*.json", "*.safetensors", "*.model", "vocab*.txt", "merges.txt")
_IN_FOLDERS = "*/*"
_CARD = "README.md"
_LIBRARIES = frozenset({"huggingface_hub", "httpx", "httpx2", "requests"})

PathT = TypeVar("PathT", bound=str | os.PathLike[str])


class HubError(Exception):
    """A model cannot be downloaded or uploaded; the message is one line that says what to do."""


def is_hub_name(path: str | os.PathLike[str]) -> bool:
    """Return True for ``user/model`` if neither that path nor a directory ``user`` is here.

    Example: if there is a directory ``runs``, ``runs/bsae`` is a path that does not exist, and not
    a model of a user called runs.
    """
    text = os.fspath(path)
    return bool(_NAME.fullmatch(text)) and not os.path.exists(os.path.dirname(text))


def local_path(path: PathT, *, error: type[Exception] = HubError) -> PathT | str:
    """Return a path as it is, or for a name on the hub the directory that it is downloaded to.

    What is in the hub's cache is not downloaded again, and is used if the hub cannot be reached.

    Args:
        path: a path, local or remote, or a name on the hub.
        error: the exception to raise.

    Raises:
        error: it is a name, and there is no such model, no connection, no package for it, or the
            model has only pickled weights.
    """
    if not is_hub_name(path):
        return path
    try:
        return _download(str(path))
    except HubError as failure:
        raise error(str(failure)) from failure.__cause__


@functools.cache
def _download(name: str) -> str:
    by_hand = (
        f"`hf download {name} --local-dir DIR` gets it where there is a connection, and DIR can be "
        "given instead of the name, as in --model=DIR"
    )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as failure:
        raise HubError(
            f"there is no directory {name}; to read the model of that name from the Hugging Face "
            f"Hub: pip install 'albert-jax[hub]'; {by_hand}"
        ) from failure
    try:
        directory = snapshot_download(
            name, allow_patterns=list(_FILES), ignore_patterns=_IN_FOLDERS
        )
    except Exception as failure:
        what = f"there is no directory {name}, and it cannot be read from the Hugging Face Hub"
        _raise_hub_error(what, failure, by_hand)
    if not any(Path(directory).glob("*.safetensors")):
        raise HubError(
            f"{name} on the hub has no .safetensors, and pickled weights are not downloaded by "
            f"name; {by_hand}"
        )
    return directory


def check_upload(name: str) -> None:
    """Check that a directory can be uploaded, before doing the work of making it.

    Raises:
        HubError: the name is malformed, the package is missing, or there is no token.
    """
    if not _NAME.fullmatch(name):
        raise HubError(f"--push_to_hub must be a name of the form user/model, got {name}")
    if _import_hub().get_token() is None:
        raise HubError(
            "--push_to_hub needs a token of the Hugging Face Hub: `hf auth login`, or HF_TOKEN=..."
        )


def upload(directory: Path, name: str, *, private: bool) -> bool:
    """Upload a directory's files as a model, which is created if it does not exist.

    A card that the model already has is kept, since somebody may have written it.

    Args:
        directory: the files.
        name: ``user/model``.
        private: True to create a private model, and to upload to private ones only; False to create
            a public model, and to leave the visibility of an existing one unchanged.

    Returns:
        True if the directory's card was uploaded, or it has none.

    Raises:
        HubError: the model is not private, the hub refuses, or it cannot be reached.
    """
    api = _import_hub().HfApi()
    try:
        api.create_repo(name, exist_ok=True, private=private)
        if private and not api.model_info(name).private:
            raise HubError(
                f"{directory} is written, but not uploaded: {name} on the hub is visible to all; "
                f"--private=false publishes there, `hf upload {name} {directory}` too"
            )
        has_card = (directory / _CARD).exists() and api.file_exists(name, _CARD)
        api.upload_folder(
            repo_id=name,
            folder_path=directory,
            ignore_patterns=[_CARD] if has_card else None,
            commit_message="Upload model",
        )
    except HubError:
        raise
    except Exception as failure:
        again = f"`hf upload {name} {directory}` tries again"
        _raise_hub_error(f"{directory} is written, but not uploaded to {name}", failure, again)
    return not has_card


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as failure:
        raise HubError("--push_to_hub needs pip install 'albert-jax[hub]'") from failure
    return huggingface_hub


def _raise_hub_error(what: str, failure: Exception, remedy: str) -> NoReturn:
    """Raise a `HubError` for a failure of the hub or of the connection; reraise any other."""
    if type(failure).__module__.partition(".")[0] not in _LIBRARIES:
        raise failure
    reason = " ".join(str(failure).split()).partition(". ")[0]
    raise HubError(f"{what} ({type(failure).__name__}: {reason[:160]}); {remedy}") from failure
