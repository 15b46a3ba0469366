"""A run's directory: what is in it besides checkpoints, and whether it may be used."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from data_pipeline.corpus import TOKENIZER_DIRECTORY, Corpus
from data_pipeline.errors import InputError
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
    `albert_config.json` and the tokenizer.

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
        recorded = json.loads((root / CORPUS_FILE).read_text())["fingerprint"]
        if recorded != corpus.metadata.fingerprint:
            raise InputError(
                f"--workdir={path} was trained on another corpus than "
                f"--config.data.corpus_dir={config.data.corpus_dir} (fingerprint "
                f"{recorded[:12]}, found {corpus.metadata.fingerprint[:12]})"
            )
    elif root.exists() and any(root.iterdir()):
        raise InputError(
            f"--workdir={path} is not empty and holds no run of ours; choose another directory"
        )
    if write:
        _write(root, config, corpus)
    return Workdir(root, changes)


def _write(root: epath.Path, config: ExperimentConfig, corpus: Corpus) -> None:
    root.mkdir(parents=True, exist_ok=True)
    tokenizer = root / TOKENIZER_DIRECTORY
    tokenizer.mkdir(exist_ok=True)
    for file in Path(corpus.path / TOKENIZER_DIRECTORY).iterdir():
        with file.open("rb") as source, (tokenizer / file.name).open("wb") as target:
            shutil.copyfileobj(source, target)
    (root / ALBERT_CONFIG_FILE).write_text(json.dumps(config.model.to_dict(), indent=2) + "\n")
    (root / CORPUS_FILE).write_text(
        json.dumps(
            {"path": config.data.corpus_dir, "fingerprint": corpus.metadata.fingerprint}, indent=2
        )
        + "\n"
    )
    (root / CONFIG_FILE).write_text(to_json(config))  # last: without it there is no run here
