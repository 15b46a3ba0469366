"""Damage to checkpoints: an intact one is used, or all are refused; never other parameters.

Checkpoints whose every value follows from their step are damaged in one to three ways, and opened
as a run, `evaluate` and `from_pretrained` open them.
"""

import json
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from albert_jax.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    resolve_step,
    restore_params,
)
from experiments.cli.command import call
from tests.campaigns.campaign import Campaign
from tests.campaigns.file_damage import FILE_DAMAGES

STEPS = (10, 20, 30, 40)
BEST = 20


class State(NamedTuple):
    """A state like that of a run, small."""

    step: Any
    params: Any
    opt_state: Any


def make_state(step: int) -> State:
    values = np.random.default_rng(step).standard_normal(3000, dtype=np.float32)
    params = {"layer": {"kernel": jnp.asarray(values), "bias": jnp.full(3, step, jnp.float32)}}
    return State(jnp.int32(step), params, ({"m": params}, jnp.int32(step)))


def write_checkpoints(directory: Path) -> None:
    with Checkpoints(directory, keep=9) as checkpoints:
        for step in STEPS:
            metrics = {"masked_lm_accuracy": 0.9 if step == BEST else 0.5}
            checkpoints.save(step, make_state(step), finite=True, metrics=metrics)


def _checkpoint(directory: Path, choose: random.Random) -> Path:
    """Choose a checkpoint, mostly the newest."""
    there = [path for path in directory.iterdir() if path.name.isdigit()]
    newest = max(there, key=lambda path: int(path.name))
    return newest if choose.random() < 0.6 else choose.choice(there)


def _file(directory: Path, choose: random.Random) -> Path:
    files = [path for path in _checkpoint(directory, choose).rglob("*") if path.is_file()]
    return choose.choice(sorted(files))


def damage_file(directory: Path, choose: random.Random) -> None:
    choose.choice(FILE_DAMAGES)(_file(directory, choose), choose)


def delete_part(directory: Path, choose: random.Random) -> None:
    parts = [path for path in _checkpoint(directory, choose).rglob("*") if path.is_dir()]
    shutil.rmtree(choose.choice(sorted(parts)))


def delete_whole(directory: Path, choose: random.Random) -> None:
    if len([path for path in directory.iterdir() if path.name.isdigit()]) > 1:
        shutil.rmtree(_checkpoint(directory, choose))


def swap(directory: Path, choose: random.Random) -> None:
    left, right = _checkpoint(directory, choose), _checkpoint(directory, choose)
    if left != right:
        left.rename(directory / "aside")
        right.rename(left)
        (directory / "aside").rename(right)


def rename(directory: Path, choose: random.Random) -> None:
    path = _checkpoint(directory, choose)
    name = choose.choice(["5", "15", "50", "999", "0", f"0{path.name}", f"{path.name}.bak"])
    if not (directory / name).exists():
        path.rename(directory / name)


def copy(directory: Path, choose: random.Random) -> None:
    name = choose.choice(["5", "15", "50", "999"])
    if not (directory / name).exists():
        shutil.copytree(_checkpoint(directory, choose), directory / name)


def exchange_files(directory: Path, choose: random.Random) -> None:
    """Put a file, perhaps with the manifest, of one checkpoint into another."""
    source, target = _checkpoint(directory, choose), _checkpoint(directory, choose)
    names = [
        str(path.relative_to(source))
        for path in source.rglob("*")
        if path.is_file() and (target / path.relative_to(source)).exists()
    ]
    if source != target and names:
        for name in [choose.choice(sorted(names)), *choose.choice([[], ["manifest.json"]])]:
            if (source / name).exists() and (target / name).exists():
                shutil.copy(source / name, target / name)


def exchange_states(directory: Path, choose: random.Random) -> None:
    """Put the whole state of one checkpoint into another, which keeps its manifest."""
    source, target = _checkpoint(directory, choose), _checkpoint(directory, choose)
    if source != target and (source / "state").exists():
        shutil.rmtree(target / "state", ignore_errors=True)
        shutil.copytree(source / "state", target / "state")


def forge_manifest(directory: Path, choose: random.Random) -> None:
    forged = ["", "{}", "[]", "null", "7", '{"step": 40}', '{"step": 40, "files": {}}', "{" * 9000]
    (_checkpoint(directory, choose) / "manifest.json").write_text(choose.choice(forged))


def forget_step(directory: Path, choose: random.Random) -> None:
    """Give a checkpoint a manifest of the earlier format, under its own name or another's."""
    path = _checkpoint(directory, choose)
    try:
        files = json.loads((path / "manifest.json").read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    (path / "manifest.json").write_text(json.dumps(files))
    if choose.random() < 0.5 and not (directory / "50").exists():
        path.rename(directory / "50")


def damage_best(directory: Path, choose: random.Random) -> None:
    junk = [b"", b"\0\0\0", b"\xff\xfe", b"twenty\n", b"2", b"-20\n", b"9" * 40, b"40.0\n"]
    (directory / "best").write_bytes(choose.choice(junk))


def replace_with_file(directory: Path, choose: random.Random) -> None:
    path = _checkpoint(directory, choose)
    shutil.rmtree(path)
    path.write_bytes(b"")


def stray(directory: Path, choose: random.Random) -> None:
    """Leave files like those that editors, copies and Orbax itself leave."""
    name = choose.choice([".DS_Store", "lost+found", "60.orbax-checkpoint-tmp", "deleted", "x"])
    if choose.random() < 0.5:
        (directory / name).mkdir(exist_ok=True)
    else:
        (directory / name).write_bytes(b"x")


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    *[damage_file] * 7,
    *(delete_part, delete_whole),
    *(swap, swap, rename, rename, copy, exchange_files, exchange_states),
    *(forge_manifest, forget_step, damage_best, replace_with_file, stray),
)


def fault_of_resuming(directory: Path) -> str | None:
    """Open the checkpoints as a run does; say what is wrong with what it gets."""
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), make_state(0)
    )
    restored: list[Any] = []

    def resume() -> None:
        with Checkpoints(directory, keep=9) as checkpoints:
            restored.append((checkpoints.manager.latest_step(), checkpoints.restore(abstract)))

    status = call(resume)
    if status == 2:
        intact = [step for step in STEPS if _same_files(directory / str(step), step)]
        return f"refused, though {intact} are intact" if intact else None
    if status != 0:
        return f"status {status}"
    step, state = restored[0]
    if state is None:
        return "resumed from nothing"
    return _difference(state, step) or fault_of_resuming_again(directory, step)


def fault_of_resuming_again(directory: Path, step: int) -> str | None:
    """Save the next step, and open the best one, as a resumed run does."""
    with Checkpoints(directory, keep=9) as checkpoints:
        checkpoints.save(step + 1, make_state(step + 1), finite=True)
    fault = _difference(restore_params(directory), step + 1)
    best = resolve_step(epath.Path(directory), None)
    return fault or _difference(restore_params(directory, best), best)


def fault_of_reading(directory: Path, step: int | None) -> str | None:
    """Read parameters as `evaluate` does; say what is wrong with them."""
    read: list[Any] = []

    def evaluate() -> None:
        chosen = resolve_step(epath.Path(directory), step)
        read.append((chosen, restore_params(directory, chosen)))

    return None if call(evaluate) == 2 else _difference(read[0][1], read[0][0])


def _same_files(checkpoint: Path, step: int) -> bool:
    """Return True if nothing was done to a checkpoint."""
    intact = checkpoint.parents[1] / "intact" / str(step)
    if not checkpoint.is_dir():
        return False
    names = {path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file()}
    expected = {path.relative_to(intact) for path in intact.rglob("*") if path.is_file()}
    return names == expected and all(
        (checkpoint / name).read_bytes() == (intact / name).read_bytes() for name in names
    )


def _difference(found: Any, step: int) -> str | None:
    expected = make_state(step)
    other = expected if isinstance(found, State) else expected.params
    same = jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), found, other)
    return None if all(jax.tree.leaves(same)) else f"step {step} has other parameters"


def attempt(place: Path, intact: Path, choose: random.Random) -> tuple[str, str | None]:
    """Damage a copy and open it; return what was done to it, and what is wrong with the result."""
    shutil.copytree(intact, place)
    damages = choose.sample(DAMAGES, choose.choice([1, 1, 1, 2, 3]))
    kind = " and ".join(damage.__name__ for damage in damages)
    try:
        for damage in damages:
            damage(place, choose)
        before = set(place.rglob("*"))
        fault = fault_of_reading(place, choose.choice([None, *STEPS]))
        if fault is None and before != set(place.rglob("*")):
            fault = "reading has changed files"
        fault = fault or fault_of_resuming(place)
    except CheckpointError as error:
        fault = f"refused what was just accepted: {error}"
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    if fault is None:
        shutil.rmtree(place)
    return kind, fault and f"{kind}, in {place}: {fault}"


def main() -> None:
    """Damage, open, compare."""
    campaign = Campaign(
        "damaged_checkpoints", count=200, description=str(__doc__).partition("\n")[0]
    )
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("albert_jax").setLevel(logging.ERROR)
    with campaign.directory() as directory:
        write_checkpoints(directory / "intact")
        for number in campaign.numbers:
            choose = random.Random(f"{campaign.seed} {number}")
            kind, fault = attempt(directory / str(number), directory / "intact", choose)
            campaign.count_case("several" if " and " in kind else kind, fault, number=number)
    campaign.finish()


if __name__ == "__main__":
    main()
