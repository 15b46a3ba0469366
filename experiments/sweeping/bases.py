"""The config files that the sweeps under `sweeps` start from, with seeds and tasks."""

from collections.abc import Mapping
from typing import Any

from experiments.sweeping.sweep import Size

SMALL_STEPS = 400  # of a run of the small size
TASKS = ("squad_v1", "squad_v2", "mnli", "sst2", "race")  # the paper's five


def config_name(size: Size, paper: str = "base") -> str:
    """Return the config of a released size of version 1, or of the tiny model."""
    name = f"{paper}_v1" if size is Size.PAPER else "tiny_cpu"
    return f"albert_{name}"


def base_overrides(size: Size) -> Mapping[str, Any]:
    """Return the overrides of all rows.

    The paper's recipe stays as it is. The small one is cut to an eighth of its steps, which is more
    than enough to leave the plateau of token frequencies; a loss leaves it suddenly
    (experiments/LOG.md).
    """
    if size is Size.PAPER:
        return {}
    return {
        "optimizer.num_train_steps": SMALL_STEPS,
        "optimizer.num_warmup_steps": 40,
        "run.evaluate_every": 100,
        "run.checkpoint_every": SMALL_STEPS,
        "run.keep_checkpoints": 1,
    }


def paper_steps(number: int) -> Mapping[str, int]:
    """Return the overrides for another number of steps, with the paper's warm-up.

    Without an override, the warm-up would be scaled with the steps.
    """
    return {"optimizer.num_train_steps": number, "optimizer.num_warmup_steps": 3125}


def seeds(size: Size) -> tuple[int, ...]:
    """Return one seed for the paper's size, two for the small one."""
    return (12345,) if size is Size.PAPER else (12345, 12346)


def tasks(size: Size) -> tuple[str, ...]:
    """Return the fine-tuning tasks of the points: the paper's, or none for the small size."""
    return TASKS if size is Size.PAPER else ()
