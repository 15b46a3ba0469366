"""A run's directory: its files besides checkpoints, and the check that a run may use it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath
from jax.experimental import multihost_utils

from albert_jax.config import AlbertConfig
from albert_jax.durable_files import write_atomically
from albert_jax.interop.workdir import ALBERT_CONFIG_FILE, CHECKPOINTS
from data_pipeline.corpus.reader import Corpus, open_corpus
from data_pipeline.errors import InputError
from data_pipeline.remote import is_remote
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY
from experiments.cli.config_dicts import Config, ConfigT, differences, from_json, to_json
from experiments.run.config import ExperimentConfig

CONFIG_FILE = "config.json"
REPORT_FILE = "report.json"
_DATA_KINDS = ("corpus", "records", "dataset")


class DataIdentity(NamedTuple):
    """The data that a run is trained on."""

    kind: str  # one of `_DATA_KINDS`; names its file in the workdir
    flag: str  # names its place
    path: str
    fingerprint: str  # SHA-256 of its content
    former_fingerprint: str | None = None  # by which earlier versions knew the same content
    weights: Mapping[str, float] = {}  # of the sources, where they are part of the content


class Workdir(NamedTuple):
    """An opened workdir, and the settings that changed since it was last used."""

    path: epath.Path
    changes: dict[str, tuple[Any, Any]]

    @property
    def checkpoints(self) -> epath.Path:
        """The directory of checkpoints."""
        return self.path / CHECKPOINTS


def read_config(path: epath.PathLike, kind: type[ConfigT]) -> ConfigT:
    """Read the configuration that a workdir holds.

    Raises:
        InputError: there is none.
    """
    file = epath.Path(path) / CONFIG_FILE
    if not file.exists():
        raise InputError(f"--workdir={path} holds no run: it has no {CONFIG_FILE}")
    return from_json(file.read_text(), kind, source=str(file))


def model_files(model: AlbertConfig, tokenizer: epath.Path) -> dict[str, bytes]:
    """Return the files that make a workdir loadable as a model: `albert_config.json` and the
    tokenizer.

    Args:
        model: the configuration.
        tokenizer: a directory with the tokenizer's files.

    Returns:
        Content by name, such as ``tokenizer/spiece.model``.
    """
    files = {ALBERT_CONFIG_FILE: (json.dumps(model.to_dict(), indent=2) + "\n").encode()}
    for file in sorted(tokenizer.iterdir()):
        files[f"{TOKENIZER_DIRECTORY}/{file.name}"] = file.read_bytes()
    return files


def open_workdir(
    path: epath.PathLike,
    config: Config,
    data: DataIdentity,
    files: Mapping[str, bytes],
    *,
    write: bool = True,
) -> Workdir:
    """Open a workdir for a run: a new one, or one that holds the same experiment.

    All processes of a run open it together.

    Args:
        path: local or remote.
        config: the experiment; written as it is resolved.
        data: the data that it trains on.
        files: further files of a new workdir, such as `model_files`.
        write: True on the one process that writes.

    Raises:
        InputError: the directory holds another experiment, or something else; it is left as it was.
    """
    root = epath.Path(path)
    if root.exists() and not root.is_dir():
        raise InputError(f"--workdir={path} is no directory")
    changes: dict[str, tuple[Any, Any]] = {}
    if (root / CONFIG_FILE).exists():
        changes = check_resumable(read_config(root, type(config)), config, workdir=str(path))
        _check_data(root, data)
    elif root.exists() and any(not _is_leftover(entry) for entry in root.iterdir()):
        raise InputError(
            f"--workdir={path} is not empty and holds no run; choose another directory"
        )
    multihost_utils.sync_global_devices("workdir checked")  # before anybody changes it
    if write:
        _write(root, config, data, files)
    return Workdir(root, changes)


def open_pretraining_corpus(config: ExperimentConfig) -> Corpus:
    """Open the corpus of an experiment.

    Raises:
        InputError: there is none, or its vocabulary has another size than the model's.
    """
    corpus = open_corpus(config.data.corpus_dir)
    if corpus.metadata.vocab_size != config.model.vocab_size:
        raise InputError(
            f"--config.data.corpus_dir={config.data.corpus_dir} has a vocabulary of "
            f"{corpus.metadata.vocab_size} tokens, --config.model.vocab_size is "
            f"{config.model.vocab_size}"
        )
    return corpus


def open_pretraining_workdir(
    path: epath.PathLike,
    config: ExperimentConfig,
    corpus: Corpus,
    data: DataIdentity,
    *,
    write: bool = True,
) -> Workdir:
    """Open the workdir of a run on a corpus; see `open_workdir`."""
    files = model_files(config.model, corpus.path / TOKENIZER_DIRECTORY)
    return open_workdir(path, config, data, files, write=write)


def check_tokenizer(path: epath.PathLike, corpus: Corpus) -> None:
    """Check that a corpus was encoded with the tokenizer that a run was trained with.

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


def _check_data(root: epath.Path, data: DataIdentity) -> None:
    for kind in _DATA_KINDS:
        file = root / f"{kind}.json"
        if not file.exists():  # of another kind, or stopped before its first step
            continue
        trained = json.loads(file.read_text())
        known = (data.fingerprint, data.former_fingerprint)
        if kind != data.kind or trained["fingerprint"] not in known:
            other = "another" if kind == data.kind else "a"
            raise InputError(
                f"--workdir={root} was trained on {other} {kind} ({trained['path']}, fingerprint "
                f"{trained['fingerprint'][:12]}), not on {data.flag}={data.path} "
                f"({data.fingerprint[:12]}){_compare_weights(trained.get('weights'), data.weights)}"
            )


def _compare_weights(before: Any, now: Mapping[str, float]) -> str:
    if not before or before == now:
        return ""
    return f"; the weights of its sources were {before} and are {dict(now)}"


def _is_leftover(entry: epath.Path) -> bool:
    """True for the remains of a run that was killed in its first moments."""
    return entry.name.startswith(f".{CONFIG_FILE}.")


def _write(
    root: epath.Path, config: Config, data: DataIdentity, files: Mapping[str, bytes]
) -> None:
    """Write the files that are missing. `config.json` comes first: the remains of a killed run are
    then known as a run's, and completed by the next start."""
    root.mkdir(parents=True, exist_ok=True)
    identity: dict[str, Any] = {"path": data.path, "fingerprint": data.fingerprint}
    if data.weights:
        identity["weights"] = dict(data.weights)
    write_text(root / CONFIG_FILE, to_json(config))
    write_text(root / f"{data.kind}.json", json.dumps(identity, indent=2) + "\n")
    for name, content in files.items():
        target = root / name
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content)


def write_text(path: epath.Path, text: str) -> None:
    """Replace a file as a whole, as object stores always do."""
    if is_remote(path):
        path.write_text(text)
    else:
        write_atomically(Path(path), text)


def check_resumable(old: ConfigT, new: ConfigT, *, workdir: str) -> dict[str, tuple[Any, Any]]:
    """Check that a workdir may be resumed with a configuration.

    Returns:
        The differences, all of them allowed, to be logged.

    Raises:
        InputError: something other than `run` and the places of files differs.
    """
    allowed = set(new.LOCATIONS)
    if new.run.change_num_train_steps:
        allowed.add("optimizer.num_train_steps")
    found = differences(old, new)
    fixed = [n for n in found if not n.startswith("run.") and n not in allowed]
    if fixed:
        listed = ", ".join(f"{n} was {found[n][0]!r} and is {found[n][1]!r}" for n in fixed)
        hint = "choose another --workdir"
        if fixed == ["optimizer.num_train_steps"]:
            hint = "add --config.run.change_num_train_steps to train it for longer"
        raise InputError(f"--workdir={workdir} holds another experiment: {listed}; {hint}")
    return found
