"""What the sweeps under `sweeps` start out from, in the paper's size and in a small one."""

from collections.abc import Mapping
from typing import Any

from experiments.sweeping.points import Size

TASKS = ("squad_v1", "squad_v2", "mnli", "sst2", "race")  # the paper's five


def config_file(size: Size, paper: str = "base") -> str:
    """The config file of a sweep over a released size of version 1, or of the small model."""
    name = f"{paper}_v1" if size is Size.PAPER else "small_wiki"
    return f"experiments/configs/albert_{name}.py"


def base_overrides(size: Size) -> Mapping[str, Any]:
    """What a sweep changes in its config file before any row does.

    The paper's recipe stays as it is. The small one is cut to a third of its steps: enough to
    leave the plateau of frequencies behind, which a loss does suddenly, and no more.
    """
    if size is Size.PAPER:
        return {}
    return {
        "optimizer.num_train_steps": 2000,
        "optimizer.num_warmup_steps": 200,
        "run.evaluate_every": 250,
        "run.keep_checkpoints": 1,
        "run.evaluation_pairs": 1024,
    }


def seeds(size: Size) -> tuple[int, ...]:
    """One of the paper's size, two of the small one."""
    return (12345,) if size is Size.PAPER else (12345, 12346)


def tasks(size: Size) -> tuple[str, ...]:
    """What points are fine-tuned on: the paper's tasks, or none by default."""
    return TASKS if size is Size.PAPER else ()
