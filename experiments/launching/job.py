"""Jobs: commands that run one after another; each is skipped if its product exists."""

import shlex
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """A command, and the file that exists once it is done."""

    argv: tuple[str, ...]  # the first is `python`
    product: Path

    def __str__(self) -> str:
        return shlex.join(self.argv)


class Job(NamedTuple):
    """Commands in order.

    Attributes:
        number: number among the jobs that are launched together.
        name: name in messages.
        log_name: name of its own log file.
        commands: the commands.
        after: number of a job that must be done before this one.
    """

    number: int
    name: str
    log_name: str
    commands: tuple[Command, ...]
    after: int | None = None


def module_command(module: str, flags: list[str], workdir: Path, product: str) -> Command:
    """Return the command of a module that writes into a workdir.

    Example: ``python -m experiments.finetune --config=finetune/rte --workdir=runs/rte``
    """
    argv = ("python", "-m", f"experiments.{module}", *flags, f"--workdir={workdir}")
    return Command(argv, workdir / product)
