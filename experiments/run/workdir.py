"""A run's directory: its files besides checkpoints, and the check that a run may use it."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath
from jax.experimental import multihost_utils

from albert_jax.config import AlbertConfig
from albert_jax.input_files import read_text
from albert_jax.interop.workdir import ALBERT_CONFIG_FILE, CHECKPOINTS
from albert_jax.training.first_process import on_first_process
from data_pipeline.corpus.metadata import METADATA_FILE, CorpusMetadata
from data_pipeline.corpus.reader import Corpus, open_corpus, read_metadata
from data_pipeline.errors import InputError
from data_pipeline.locks import LOCK_FILE, lock
from data_pipeline.remote import make_directory, open_path
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY
from experiments.cli.config_dicts import Config, ConfigT, from_json, to_json
from experiments.cli.config_flag import ConfigFlag, GivenConfig, read_given_config
from experiments.metrics.metrics_file import replace
from experiments.run.config import ExperimentConfig
from experiments.run.resumption import (
    DECAY_KIND,
    DataIdentity,
    check_data,
    check_resumable,
    check_steps,
)

CONFIG_FILE = "config.json"
REPORT_FILE = "report.json"


class Workdir(NamedTuple):
    """An opened workdir, locked, and the settings that changed since it was last used."""

    path: epath.Path
    changes: dict[str, tuple[Any, Any]]
    check_lock: Callable[[], None]  # raises an InputError if another run has taken its place

    @property
    def checkpoints(self) -> epath.Path:
        """The directory of checkpoints."""
        return self.path / CHECKPOINTS


def read_config(path: epath.PathLike, kind: type[ConfigT]) -> ConfigT:
    """Read the configuration that a workdir holds.

    Raises:
        InputError: there is none, or it is damaged.
    """
    file = open_path(path) / CONFIG_FILE
    if not file.exists():
        raise InputError(f"--workdir={path} holds no run: it has no {CONFIG_FILE}")
    return from_json(read_text(file, error=InputError), kind, source=str(file))


def read_run_flags(
    flag: ConfigFlag, kind: type[ConfigT], path: epath.PathLike
) -> GivenConfig[ConfigT]:
    """Return the experiment that a command line describes for a workdir, new or to be resumed.

    Raises:
        InputError: a value is not allowed, or the workdir's configuration is damaged.
    """
    resumed = (open_path(path) / CONFIG_FILE).exists()
    stored = read_config(path, kind) if resumed else None
    return read_given_config(flag, kind, stored=stored)


def model_files(model: AlbertConfig, tokenizer: epath.Path) -> dict[str, bytes]:
    """Return the files that make a workdir loadable as a model.

    These are `albert_config.json` and the tokenizer's files.

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


@contextlib.contextmanager
def open_workdir(
    path: epath.PathLike, config: Config, data: DataIdentity, files: Mapping[str, bytes]
) -> Iterator[Workdir]:
    """Open a workdir for a run: a new one, or one that holds the same experiment.

    Inside the context it is locked against other runs. All processes of a run open it together;
    process 0 holds the lock and writes.

    Args:
        path: local or remote.
        config: the resolved experiment, which is written.
        data: the data that it trains on.
        files: further files of the workdir, such as `model_files`.

    Raises:
        InputError: the directory holds another experiment, or something else, or another run is
            using it; it is left as it was.
    """
    if str(path).startswith("s3://"):
        raise InputError(
            f"--workdir={path}: Orbax, which writes the checkpoints, writes to local directories "
            "and gs:// only; train in one of them, and copy the workdir to s3:// at the end: all "
            "commands read it there"
        )
    root = open_path(path)
    changes = check_workdir(root, config, data)
    multihost_utils.sync_global_devices("workdir checked")  # before anybody changes it
    with contextlib.ExitStack() as exits:
        checks: list[Callable[[], None]] = []

        def lock_and_write() -> None:
            make_directory(root)
            checks.append(exits.enter_context(lock(root, "run")))
            check_workdir(root, config, data)  # again: a run that was just ending may have written
            _write(root, config, data, files)

        failure = InputError(f"process 0 cannot use --workdir={path}; its message says why")
        on_first_process(lock_and_write, failure)
        yield Workdir(root, changes, checks[0] if checks else lambda: None)


def open_pretraining_corpus(config: ExperimentConfig) -> Corpus:
    """Open the corpus of an experiment.

    Raises:
        InputError: there is none, or its vocabulary has another size than the model's.
    """
    if not config.data.corpus_dir:
        raise InputError(
            "--config.data.corpus_dir is missing: the text, as data_pipeline.build_corpus writes it"
        )
    corpus = open_corpus(config.data.corpus_dir)
    _check_vocabulary_size(config, corpus.metadata)
    return corpus


def open_decay_corpus(config: ExperimentConfig, corpus: Corpus) -> Corpus | None:
    """Open the corpus of an experiment's decay, if it has one of its own.

    Raises:
        InputError: there is none, or it was encoded with another tokenizer.
    """
    directory = config.data.decay_corpus_dir
    if not directory:
        return None
    decay = open_corpus(directory)
    if _tokenizer_hashes(decay) != _tokenizer_hashes(corpus):
        raise InputError(
            f"--config.data.decay_corpus_dir={directory} was encoded with another tokenizer than "
            f"--config.data.corpus_dir={corpus.path}: build it again with "
            f"--tokenizer={corpus.path / TOKENIZER_DIRECTORY}"
        )
    return decay


def with_corpus_vocabulary(
    given: GivenConfig[ExperimentConfig], path: epath.PathLike | None = None
) -> GivenConfig[ExperimentConfig]:
    """Give the model the vocabulary size of its corpus.

    If the command line names a size, or the config file has another one than the default, that size
    must be the corpus's.

    Args:
        given: the experiment.
        path: a workdir whose configuration decides if the corpus is not available; None: the
            corpus must be available.

    Raises:
        InputError: there is no such corpus, or the size that is set is not the corpus's.
    """
    config = given.config
    is_set = "model.vocab_size" in given.named
    is_set = is_set or config.model.vocab_size != AlbertConfig.vocab_size
    corpus_dir = config.data.corpus_dir
    if not corpus_dir:
        return given
    if path is not None and not (open_path(corpus_dir) / METADATA_FILE).exists():
        if is_set or not (open_path(path) / CONFIG_FILE).exists():
            return given
        size = read_config(path, ExperimentConfig).model.vocab_size
    else:
        metadata = read_metadata(corpus_dir)
        if is_set:
            _check_vocabulary_size(config, metadata)
        size = metadata.vocab_size
    model = dataclasses.replace(config.model, vocab_size=size)
    lines = given.lines
    if model != config.model:
        lines = (*lines, f"the model has the corpus's vocabulary of {size:,} tokens")
    return given._replace(config=dataclasses.replace(config, model=model), lines=lines)


def _check_vocabulary_size(config: ExperimentConfig, metadata: CorpusMetadata) -> None:
    if metadata.vocab_size != config.model.vocab_size:
        raise InputError(
            f"--config.data.corpus_dir={config.data.corpus_dir} has a vocabulary of "
            f"{metadata.vocab_size:,} tokens, --config.model.vocab_size is "
            f"{config.model.vocab_size:,}: leave it out, and the model has the corpus's"
        )


def open_pretraining_workdir(
    path: epath.PathLike, config: ExperimentConfig, corpus: Corpus, data: DataIdentity
) -> contextlib.AbstractContextManager[Workdir]:
    """Open the workdir of a run on a corpus; see `open_workdir`."""
    return open_workdir(
        path, config, data, model_files(config.model, corpus.path / TOKENIZER_DIRECTORY)
    )


def check_tokenizer(path: epath.PathLike, corpus: Corpus) -> None:
    """Check that a corpus was encoded with the tokenizer that a run was trained with.

    Args:
        path: the run's workdir.
        corpus: any corpus.

    Raises:
        InputError: the corpus's tokenizer has other files.
    """
    directory = epath.Path(path) / TOKENIZER_DIRECTORY
    trained = {
        f"{TOKENIZER_DIRECTORY}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.iterdir()
    }
    if trained != _tokenizer_hashes(corpus):
        raise InputError(
            f"corpus {corpus.path} was encoded with another tokenizer than --workdir={path} was "
            f"trained with: build it again with {directory}"
        )


def _tokenizer_hashes(corpus: Corpus) -> dict[str, str]:
    """Return the checksums of the tokenizer that a corpus was encoded with, by file."""
    return {
        name: file["sha256"]
        for name, file in corpus.metadata.files.items()
        if name.startswith(f"{TOKENIZER_DIRECTORY}/")
    }


def check_workdir(
    path: epath.PathLike, config: Config, data: DataIdentity
) -> dict[str, tuple[Any, Any]]:
    """Check that a run may use a directory, and return the settings that changed.

    Raises:
        InputError: it holds another experiment, or something else.
    """
    root = open_path(path)
    if root.exists() and not root.is_dir():
        raise InputError(f"--workdir={path} is no directory")
    if (root / CONFIG_FILE).exists():
        changes = check_resumable(read_config(root, type(config)), config, workdir=str(root))
        check_data(root, data)
        check_steps(root, changes)
        return changes
    if root.exists() and any(not _is_leftover(entry) for entry in root.iterdir()):
        raise InputError(
            f"--workdir={root} is not empty and holds no run; choose another directory"
        )
    return {}


def _is_leftover(entry: epath.Path) -> bool:
    """Return True for a file left by a run that was killed in its first moments."""
    return entry.name == LOCK_FILE or entry.name.startswith(f".{CONFIG_FILE}.")


def _write(
    root: epath.Path, config: Config, data: DataIdentity, files: Mapping[str, bytes]
) -> None:
    """Write `config.json` and the files that are missing or differ.

    `config.json` comes first. What a killed run leaves is then known to be a run's, and the next
    start completes it.
    """
    make_directory(root)
    write_text(root / CONFIG_FILE, to_json(config))
    for part in filter(None, (data, data.decay, data.teacher)):
        write_text(root / f"{part.kind}.json", json.dumps(part.to_json(), indent=2) + "\n")
    if data.decay is None:
        (root / f"{DECAY_KIND}.json").unlink(missing_ok=True)
    for name, content in files.items():
        target = root / name
        if not target.exists() or target.read_bytes() != content:
            make_directory(target.parent)
            replace(target, content)


def write_text(path: epath.Path, text: str) -> None:
    """Replace a file as a whole."""
    replace(path, text.encode())
