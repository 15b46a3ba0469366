"""Resumption of a run: the checks that a workdir holds the same experiment."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from albert_jax.input_files import read_json_object
from albert_jax.interop.workdir import CHECKPOINTS
from albert_jax.training.checkpoint.selection import committed_steps
from data_pipeline.errors import InputError
from experiments.cli.config_dicts import ConfigT, differences

DATA_KINDS = ("corpus", "records", "dataset")
DECAY_KIND, TEACHER_KIND = "decay_corpus", "teacher"


class DataIdentity(NamedTuple):
    """The data that a run is trained on, or its teacher."""

    # One of `DATA_KINDS`, `DECAY_KIND` or `TEACHER_KIND`; names its file in the workdir.
    kind: str
    flag: str  # the flag that names its path
    path: str
    fingerprint: str  # SHA-256 of its content
    former_fingerprint: str | None = None  # that earlier versions gave this content
    weights: Mapping[str, float] = {}  # of the sources, if they are part of the content
    first_step: int = 0  # the first step that reads it
    decay: "DataIdentity | None" = None  # what the decay is trained on, if that is another corpus
    teacher: "DataIdentity | None" = None  # what it is distilled from, if it is

    def is_known_as(self, fingerprint: str) -> bool:
        """Return True for the fingerprint of this content, now or by an earlier version."""
        return fingerprint in (self.fingerprint, self.former_fingerprint)

    def to_json(self) -> dict[str, Any]:
        """Return the content of its file in the workdir."""
        fields: dict[str, Any] = {"path": self.path, "fingerprint": self.fingerprint}
        if self.weights:
            fields["weights"] = dict(self.weights)
        return fields | ({"first_step": self.first_step} if self.first_step else {})


def check_resumable(old: ConfigT, new: ConfigT, *, workdir: str) -> dict[str, tuple[Any, Any]]:
    """Check that a workdir may be resumed with a configuration.

    Returns:
        The differences, all of them allowed, to be logged.

    Raises:
        InputError: something other than `run` and the locations of files differs.
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
    """Check that a workdir was trained on the same data as it would be now.

    Raises:
        InputError: it was trained on other data, or the file that names its data is damaged.
    """
    for kind in DATA_KINDS:
        trained = _read_identity(root / f"{kind}.json", data)
        if trained is None:  # other data, or stopped before the first step
            continue
        if kind != data.kind or not data.is_known_as(trained.fingerprint):
            other = "another" if kind == data.kind else "a"
            raise InputError(
                f"--workdir={root} was trained on {other} {kind} ({trained.path}, fingerprint "
                f"{trained.fingerprint[:12]}), not on {data.flag}={data.path} "
                f"({data.fingerprint[:12]}){_compare_weights(trained.weights, data.weights)}"
            )
    _check_decay(root, data)
    _check_teacher(root, data)


def _check_decay(root: epath.Path, data: DataIdentity) -> None:
    """Check that a decay that has begun still reads the corpus that it began with."""
    trained = _read_identity(root / f"{DECAY_KIND}.json", data.decay or data)
    before, now = (one and one.fingerprint for one in (trained, data.decay))
    if before == now or (before and data.decay and data.decay.is_known_as(before)):
        return
    first = min(one.first_step for one in (trained, data.decay) if one)
    saved = committed_steps(root / CHECKPOINTS)
    if saved and saved[-1] > first:
        names = [
            f"{one.path} ({one.fingerprint[:12]})" if one else "data.corpus_dir"
            for one in (trained, data.decay)
        ]
        raise InputError(
            f"--workdir={root} was trained up to step {saved[-1]}, from step {first + 1} on with "
            f"{names[0]}, not with {names[1]} as --config.data.decay_corpus_dir has it now: the "
            f"corpus of a decay may change before it begins; copy the workdir, and delete the "
            f"checkpoints after step {first} from the copy"
        )


def _read_identity(file: epath.Path, data: DataIdentity) -> DataIdentity | None:
    """Read what a workdir was trained on; None if there is no such file. `data` is for messages."""
    if not file.exists():
        return None
    try:
        trained = read_json_object(file, error=InputError)
        return DataIdentity(
            file.stem,
            data.flag,
            str(trained["path"]),
            str(trained["fingerprint"]),
            weights=trained.get("weights", {}),
            first_step=int(trained.get("first_step", 0)),
        )
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} is damaged ({error}): restore it, or delete it if {data.flag}="
            f"{data.path} is what the run was trained on"
        ) from error


def _check_teacher(root: epath.Path, data: DataIdentity) -> None:
    """Check that a workdir was trained with the same teacher as it would be now, or with none."""
    teacher = data.teacher
    trained = _read_identity(root / f"{TEACHER_KIND}.json", teacher or data)
    if trained is None:
        if teacher is not None and committed_steps(root / CHECKPOINTS):
            raise InputError(
                f"--workdir={root} was trained without a teacher, not with {teacher.flag}="
                f"{teacher.path}: choose another --workdir"
            )
        return
    before = f"the teacher {trained.path}, fingerprint {trained.fingerprint[:12]}"
    if teacher is None:
        raise InputError(f"--workdir={root} was trained with {before}: name it again")
    if trained.fingerprint != teacher.fingerprint:
        raise InputError(
            f"--workdir={root} was trained with {before}, not with {teacher.flag}={teacher.path} "
            f"({teacher.fingerprint[:12]})"
        )


def _compare_weights(before: Any, now: Mapping[str, float]) -> str:
    if not before or before == now:
        return ""
    return f"; the weights of its sources were {before} and are {dict(now)}"


def check_steps(root: epath.Path, changes: Mapping[str, tuple[Any, Any]]) -> None:
    """Check that a changed number of steps is not less than the steps already trained.

    Raises:
        InputError: it is less.
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
