"""Resumption of a run: the checks that a workdir holds the same experiment."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from albert_jax.input_files import read_json_object
from albert_jax.interop.workdir import CHECKPOINTS
from albert_jax.training.checkpoint.selection import committed_steps
from data_pipeline.errors import InputError
from experiments.cli.config_dicts import ConfigT, differences

_DATA_KINDS = ("corpus", "records", "dataset")
DECAY_KIND = "decay_corpus"


class DataIdentity(NamedTuple):
    """The data that a run is trained on."""

    kind: str  # one of `_DATA_KINDS`, or `DECAY_KIND`; names its file in the workdir
    flag: str  # names its place
    path: str
    fingerprint: str  # SHA-256 of its content
    former_fingerprint: str | None = None  # by which earlier versions knew the same content
    weights: Mapping[str, float] = {}  # of the sources, where they are part of the content
    decay: "DataIdentity | None" = None  # what the decay is trained on, if that is another corpus

    def to_json(self) -> dict[str, Any]:
        """Return what the file says."""
        weights = {"weights": dict(self.weights)} if self.weights else {}
        return {"path": self.path, "fingerprint": self.fingerprint, **weights}


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


def check_data(root: epath.Path, data: DataIdentity) -> None:
    """Check that a workdir was trained on the data that it shall be trained on.

    Raises:
        InputError: it was trained on other data, or its file that says so is damaged.
    """
    if data.decay is not None:
        _check_files(root, data.decay, [DECAY_KIND])
    decay = root / f"{DECAY_KIND}.json"
    had_decay, has_decay = decay.exists(), data.decay is not None
    if has_decay != had_decay and (had_decay or (root / f"{data.kind}.json").exists()):
        began, now = ("with", "name it again") if had_decay else ("without", "leave it out")
        raise InputError(
            f"--workdir={root} was started {began} --config.data.decay_corpus_dir: {now}, or "
            "choose another --workdir"
        )
    _check_files(root, data, _DATA_KINDS)


def _check_files(root: epath.Path, data: DataIdentity, kinds: Sequence[str]) -> None:
    for kind in kinds:
        file = root / f"{kind}.json"
        if not file.exists():  # of another kind, or stopped before its first step
            continue
        try:
            trained = read_json_object(file, error=InputError)
            fingerprint, place = str(trained["fingerprint"]), str(trained["path"])
        except (InputError, KeyError) as error:
            raise InputError(
                f"{file} is damaged ({error}): restore it, or delete it if {data.flag}="
                f"{data.path} is what the run was trained on"
            ) from error
        if kind != data.kind or fingerprint not in (data.fingerprint, data.former_fingerprint):
            other = "another" if kind == data.kind else "a"
            raise InputError(
                f"--workdir={root} was trained on {other} {kind} ({place}, fingerprint "
                f"{fingerprint[:12]}), not on {data.flag}={data.path} ({data.fingerprint[:12]})"
                f"{_compare_weights(trained.get('weights'), data.weights)}"
            )


def _compare_weights(before: Any, now: Mapping[str, float]) -> str:
    if not before or before == now:
        return ""
    return f"; the weights of its sources were {before} and are {dict(now)}"


def check_steps(root: epath.Path, changes: Mapping[str, tuple[Any, Any]]) -> None:
    """Check that a number of steps, where it changed, is not less than what was trained.

    Raises:
        InputError: it is.
    """
    steps = changes.get("optimizer.num_train_steps")
    saved = committed_steps(root / CHECKPOINTS)
    if steps is not None and saved and saved[-1] > steps[1]:
        raise InputError(
            f"--workdir={root} was trained for {saved[-1]} steps already, "
            f"--config.optimizer.num_train_steps={steps[1]} are fewer: a run cannot be made "
            f"shorter than it is; take one of its checkpoints ({', '.join(map(str, saved))}), or "
            "choose another --workdir"
        )
