"""Jobs as lines of shell commands, and as Slurm arrays."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from experiments.cli.exit_codes import ExitCode
from experiments.launching.job import Job


def shell_lines(jobs: Sequence[Job]) -> list[str]:
    """Return a line for each job: its commands, each run only if the previous one succeeds."""
    return [" && ".join(map(str, one.commands)) for one in jobs]


def write_slurm_scripts(jobs: Sequence[Job], directory: Path, options: Sequence[str]) -> Path:
    """Write an array script for each depth of dependency, and one that submits them in turn.

    A task that Slurm stops saves a checkpoint and is queued again; its job then resumes.

    Args:
        jobs: the jobs.
        directory: where scripts and logs are written.
        options: options of sbatch, such as ``--partition=gpu``.

    Returns:
        The script that submits them.
    """
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    depths: dict[int, int] = {}
    for one in jobs:  # each job is listed after the one that it needs
        after = one.after
        depths[one.number] = depths[after] + 1 if after in depths else 0
    submit = ["#!/bin/bash", "set -euo pipefail"]
    for depth in range(max(depths.values()) + 1):
        level = [one for one in jobs if depths[one.number] == depth]
        lines, script = directory / f"jobs_{depth}.txt", directory / f"jobs_{depth}.sbatch"
        lines.write_text("\n".join(shell_lines(level)) + "\n")
        script.write_text(_array_script(level, lines, directory, options))
        waits = f"--dependency=afterany:$job{depth - 1} " if depth else ""
        submit.append(f"job{depth}=$(sbatch --parsable {waits}{shlex.quote(str(script))})")
        submit.append(f'echo "submitted $job{depth}: {len(level)} jobs"')
    path = directory / "submit.sh"
    path.write_text("\n".join(submit) + "\n")
    path.chmod(0o755)
    return path


def _array_script(
    level: Sequence[Job], lines: Path, directory: Path, options: Sequence[str]
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
            # Slurm's signal reaches this shell too, which must outlive the job that saves.
            'srun bash -c "trap : TERM; $line"',
            "status=$?",
            f"if [ $status -eq {int(ExitCode.PREEMPTED)} ]; then",
            '    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
            "fi",
            "exit $status",
            "",
        ]
    )
