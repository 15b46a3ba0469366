"""A run's directory: what is in it besides checkpoints, and whether it may be used."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath
from jax.experimental import multihost_utils

from data_pipeline.corpus import TOKENIZER_DIRECTORY, Corpus
from data_pipeline.durable_files import write_atomically
from data_pipeline.errors import InputError
from data_pipeline.remote import is_remote
from experiments.config import ExperimentConfig, check_resumable, from_json, to_json

CONFIG_FILE = "config.json"
ALBERT_CONFIG_FILE = "albert_config.json"
CORPUS_FILE = "corpus.json"
CHECKPOINTS = "checkpoints"


class Workdir(NamedTuple):
    """An opened workdir, and what changed since it was last used."""

    path: epath.Path
    changes: dict[str, tuple[Any, Any]]

    @property
    def checkpoints(self) -> epath.Path:
        """Where the checkpoints lie."""
        return self.path / CHECKPOINTS


def read_config(path: epath.PathLike) -> ExperimentConfig:
    """The experiment that a workdir holds.

    Raises:
        InputError: there is none.
    """
    file = epath.Path(path) / CONFIG_FILE
    if not file.exists():
        raise InputError(f"--workdir={path} holds no run: it has no {CONFIG_FILE}")
    return from_json(file.read_text(), source=str(file))


def open_workdir(
    path: epath.PathLike, config: ExperimentConfig, corpus: Corpus, *, write: bool = True
) -> Workdir:
    """Opens a workdir for a run: a new one, or one that holds the same experiment.

    Beside the resolved configuration it gets what makes it loadable as a model: the released-format
    `albert_config.json` and the tokenizer. All processes of a run open it together.

    Args:
        path: local or remote.
        config: the experiment.
        corpus: the corpus that it trains on.
        write: whether this process is the one that writes.

    Raises:
        InputError: the directory holds another experiment, or something else; it is left as it was.
    """
    root = epath.Path(path)
    if root.exists() and not root.is_dir():
        raise InputError(f"--workdir={path} is no directory")
    changes: dict[str, tuple[Any, Any]] = {}
    if (root / CONFIG_FILE).exists():
        changes = check_resumable(read_config(root), config, workdir=str(path))
        _check_corpus(root, corpus)
    elif root.exists() and any(not _is_ours(entry) for entry in root.iterdir()):
        raise InputError(
            f"--workdir={path} is not empty and holds no run of ours; choose another directory"
        )
    multihost_utils.sync_global_devices("workdir checked")  # before anybody changes it
    if write:
        _write(root, config, corpus)
    return Workdir(root, changes)


def check_tokenizer(path: epath.PathLike, corpus: Corpus) -> None:
    """Whether a corpus was encoded with the tokenizer that a run was trained with.

    Args:
        path: the run's workdir.
        corpus: any corpus.

    Raises:
        InputError: its tokenizer has other files.
    """
    directory = epath.Path(path) / TOKENIZER_DIRECTORY
    trained = {
        f"{TOKENIZER_DIRECTORY}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.iterdir()
    }
    encoded = {
        name: file["sha256"]
        for name, file in corpus.metadata.files.items()
        if name.startswith(f"{TOKENIZER_DIRECTORY}/")
    }
    if trained != encoded:
        raise InputError(
            f"corpus {corpus.path} was encoded with another tokenizer than --workdir={path} was "
            f"trained with: build it again with {directory}"
        )


def _check_corpus(root: epath.Path, corpus: Corpus) -> None:
    file = root / CORPUS_FILE
    if not file.exists():  # stopped before its first step
        return
    trained = json.loads(file.read_text())
    if trained["fingerprint"] != corpus.metadata.fingerprint:
        raise InputError(
            f"--workdir={root} was trained on another corpus ({trained['path']}, fingerprint "
            f"{trained['fingerprint'][:12]}) than --config.data.corpus_dir={corpus.path} "
            f"({corpus.metadata.fingerprint[:12]})"
        )


def _is_ours(entry: epath.Path) -> bool:
    """Whether a new workdir may hold it: what a run leaves that is killed in its first moments."""
    return entry.name.startswith(f".{CONFIG_FILE}.")


def _write(root: epath.Path, config: ExperimentConfig, corpus: Corpus) -> None:
    """Writes what is not there yet. `config.json` comes first: whatever a killed run leaves behind
    is then known as a run's, and is completed by the next start."""
    root.mkdir(parents=True, exist_ok=True)
    identity = {"path": config.data.corpus_dir, "fingerprint": corpus.metadata.fingerprint}
    _write_text(root / CONFIG_FILE, to_json(config))
    _write_text(root / CORPUS_FILE, json.dumps(identity, indent=2) + "\n")
    _write_text(root / ALBERT_CONFIG_FILE, json.dumps(config.model.to_dict(), indent=2) + "\n")
    tokenizer = root / TOKENIZER_DIRECTORY
    tokenizer.mkdir(exist_ok=True)
    for file in sorted((corpus.path / TOKENIZER_DIRECTORY).iterdir()):
        target, content = tokenizer / file.name, file.read_bytes()
        if not target.exists() or target.read_bytes() != content:
            target.write_bytes(content)


def _write_text(path: epath.Path, text: str) -> None:
    """Replaces a file as a whole; object stores do nothing else."""
    if is_remote(path):
        path.write_text(text)
    else:
        write_atomically(Path(path), text)
