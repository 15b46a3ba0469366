"""Launchers of a sweep: this machine, Slurm arrays, or printed commands."""

import os
import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from data_pipeline.errors import InputError
from experiments.cli.exit_codes import ExitCode
from experiments.sweeping.plan import PlannedPoint


class Launcher(StrEnum):
    """The launchers."""

    LOCAL = "local"
    SLURM = "slurm"
    PRINT = "print"


def device_slots(max_parallel: int, devices: Sequence[str] | None) -> list[list[str]]:
    """Divide the GPUs evenly among the points that run at once.

    Example: 2 points and the GPUs 0, 1, 2, 3 give ``[["0", "1"], ["2", "3"]]``; no GPUs give
    ``[[], []]``: both use what there is.

    Args:
        max_parallel: points that run at once.
        devices: ids of the GPUs; None: those visible to this process.

    Raises:
        InputError: the GPUs do not divide.
    """
    found = _visible_gpus() if devices is None else list(devices)
    if max_parallel == 1 and devices is None:
        return [[]]
    if found and len(found) % max_parallel:
        raise InputError(
            f"--max_parallel={max_parallel} must divide the {len(found)} GPUs "
            f"({', '.join(found)}); choose some with --devices"
        )
    each = len(found) // max_parallel
    return [found[slot * each : (slot + 1) * each] for slot in range(max_parallel)]


def _visible_gpus() -> list[str]:
    """List the GPUs without JAX, which would allocate their memory."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    paths = sorted(Path("/dev").glob("nvidia[0-9]*"), key=lambda path: int(path.name[6:]))
    return [str(number) for number in range(len(paths))]


def shell_lines(planned: Sequence[PlannedPoint]) -> list[str]:
    """Return a line for each point: its commands, each run if the one before succeeds."""
    return [" && ".join(map(str, one.commands)) for one in planned]


def write_slurm_scripts(
    planned: Sequence[PlannedPoint], directory: Path, options: Sequence[str]
) -> Path:
    """Write an array script for each depth of dependency, and one that submits them in turn.

    A task that Slurm stops saves a checkpoint and is queued again; its point then resumes.

    Args:
        planned: the points.
        directory: the sweep's directory.
        options: options of sbatch, such as ``--partition=gpu``.

    Returns:
        The script that submits them.
    """
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    depths: dict[int, int] = {}
    for one in planned:  # a point comes after those that it starts from
        after = one.point.after
        depths[one.point.number] = depths[after] + 1 if after in depths else 0
    submit = ["#!/bin/bash", "set -euo pipefail"]
    for depth in range(max(depths.values()) + 1):
        level = [one for one in planned if depths[one.point.number] == depth]
        lines, script = directory / f"points_{depth}.txt", directory / f"points_{depth}.sbatch"
        lines.write_text("\n".join(shell_lines(level)) + "\n")
        script.write_text(_array_script(level, lines, directory, options))
        waits = f"--dependency=afterany:$job{depth - 1} " if depth else ""
        submit.append(f"job{depth}=$(sbatch --parsable {waits}{shlex.quote(str(script))})")
        submit.append(f'echo "submitted $job{depth}: {len(level)} points"')
    path = directory / "submit.sh"
    path.write_text("\n".join(submit) + "\n")
    path.chmod(0o755)
    return path


def _array_script(
    level: Sequence[PlannedPoint], lines: Path, directory: Path, options: Sequence[str]
) -> str:
    return "\n".join(
        [
            "#!/bin/bash",
            f"#SBATCH --job-name={directory.name}",
            f"#SBATCH --array=1-{len(level)}",
            f"#SBATCH --output={directory.resolve()}/logs/slurm_%A_%a.log",
            "#SBATCH --requeue",
            "#SBATCH --open-mode=append",
            "#SBATCH --signal=TERM@120",
            *(f"#SBATCH {option}" for option in options),
            f"cd {shlex.quote(os.getcwd())}",
            f'line=$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {shlex.quote(str(lines.resolve()))})',
            # Slurm's signal reaches this shell too, which must outlive the point that saves.
            'srun bash -c "trap : TERM; $line"',
            "status=$?",
            f"if [ $status -eq {int(ExitCode.PREEMPTED)} ]; then",
            '    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
            "fi",
            "exit $status",
            "",
        ]
    )
