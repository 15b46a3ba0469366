r"""Run a sweep, which is every row of a table with every seed, and write the table.

    python -m experiments.sweep --sweep=parameter_sharing --size=small \
        --workdir=sweeps/sharing --corpus_dir=corpora/wiki_en

Each point is an ordinary run of `experiments.pretrain`, or of `experiments.finetune` if the sweep
says so, in its own workdir. The same command resumes a stopped sweep. `--dry_run` lists the points,
and `--report` writes the table so far.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import jax
from absl import flags

from data_pipeline.errors import InputError
from experiments.cli.assignments import parse_assignments
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode
from experiments.launching.devices import divide_devices
from experiments.launching.processes import run_jobs
from experiments.launching.slurm import shell_lines, write_slurm_scripts
from experiments.sweeping.plan import find_kind, plan_points
from experiments.sweeping.point_kind import PlannedPoint, PointKind
from experiments.sweeping.points import expand, select
from experiments.sweeping.report import write_report
from experiments.sweeping.results import has_results, read_results
from experiments.sweeping.sweep import SWEEPS, Size, load_sweep


class Launcher(StrEnum):
    """Where the points run: here, in Slurm arrays, or nowhere, with their commands printed."""

    LOCAL = "local"
    SLURM = "slurm"
    PRINT = "print"


def format_plan(planned: Sequence[PlannedPoint]) -> str:
    """Format the plan: each point with its size and its overrides."""
    lines = []
    for one in planned:
        point = one.point
        changed = ", ".join(f"{name}={value}" for name, value in point.row.overrides.items())
        after = f", from point {point.after}" if point.after is not None else ""
        lines.append(
            f"{point.number:3d}  {point.name}: {one.parameters:,} parameters ({one.backbone:,} in "
            f"the backbone), {one.kind.describe_work(one)}{after}; {changed}\n"
            f"     {point.workdir}"
        )
    return "\n".join(lines)


def launch(planned: Sequence[PlannedPoint], directory: Path) -> ExitCode:
    """Launch the points as the flags say.

    Raises:
        InputError: a point that would run here lacks its corpus or data.
    """
    launcher, jobs = Launcher(flags.FLAGS.launcher), [one.job for one in planned]
    if launcher is Launcher.PRINT:
        print("\n".join(shell_lines(jobs)))
        return ExitCode.DONE
    if launcher is Launcher.SLURM:
        script = write_slurm_scripts(jobs, directory, flags.FLAGS.slurm_option)
        print(f"run {script} to submit the points; then this command with --report")
        return ExitCode.DONE
    # Raise one error here rather than one from every point.
    planned[0].kind.check_inputs([one.config for one in planned])
    shares = divide_devices(flags.FLAGS.max_parallel, flags.FLAGS.devices)
    return run_jobs(jobs, directory / "logs", shares)


def check_flags(kind: PointKind, given: Mapping[str, Any]) -> None:
    """Check that the flags make sense for the points.

    Raises:
        InputError: a flag does not.
    """
    for flag, reason in kind.unusable_flags.items():
        if given[flag]:
            raise InputError(f"--{flag}: {reason}")


def main() -> ExitCode:
    """Read the flags; plan, launch and report."""
    values = flags.FLAGS
    # This process computes nothing, so leave the GPUs to the runs.
    jax.config.update("jax_platforms", "cpu")
    directory = Path(values.workdir)
    sweep, docstring = load_sweep(values.sweep, Size(values.size))
    check_flags(find_kind(sweep.base), values.flag_values_dict())
    overrides = parse_assignments("override", values.override)
    if values.corpus_dir:
        overrides["data.corpus_dir"] = values.corpus_dir
    task_dirs = parse_assignments("task_dir", values.task_dir)
    points = select(expand(sweep, directory, overrides), values.points)
    planned = plan_points(
        points,
        sweep,
        task_dirs=task_dirs,
        task_overrides=parse_assignments("task_override", values.task_override),
    )
    if values.dry_run:
        print(f"{docstring}\n\n{format_plan(planned)}")
        return ExitCode.DONE
    if left := [task for task in sweep.tasks if task not in task_dirs]:
        print(
            f"not fine-tuned on {', '.join(left)}, which need --task_dir=TASK=DIR", file=sys.stderr
        )
    status = ExitCode.DONE if values.report else launch(planned, directory)
    if values.report or (values.launcher == Launcher.LOCAL and has_results(planned)):
        command = shlex.join(["python", "-m", "experiments.sweep", *sys.argv[1:]])
        report = write_report(directory, docstring, command, read_results(planned))
        print(f"wrote {report}")
    return status


if __name__ == "__main__":
    flags.DEFINE_string(
        "sweep", None, "the sweep: a file or a name of --list_sweeps", required=True
    )
    flags.DEFINE_string("workdir", None, "directory of the sweep", required=True)
    flags.DEFINE_enum("size", "paper", list(Size), "the paper's size, or minutes a point on a CPU")
    flags.DEFINE_string("corpus_dir", "", "the corpus of all points, if they pre-train")
    flags.DEFINE_multi_string(
        "override", [], "NAME=VALUE for all points, such as optimizer.num_train_steps=50"
    )
    flags.DEFINE_multi_string(
        "task_dir", [], "TASK=DIR: fine-tune every point on a task with data in DIR"
    )
    flags.DEFINE_multi_string("task_override", [], "NAME=VALUE for all fine-tuning runs")
    flags.DEFINE_list("points", None, "numbers of points to run or report; by default all")
    flags.DEFINE_enum("launcher", "local", list(Launcher), "where the points run")
    flags.DEFINE_integer("max_parallel", 1, "points that run at once (local)", lower_bound=1)
    flags.DEFINE_list("devices", None, "GPUs to divide among them; by default all")
    flags.DEFINE_multi_string("slurm_option", [], "option of sbatch, such as --partition=gpu")
    flags.DEFINE_boolean("dry_run", False, "check and list every point, and run none")
    flags.DEFINE_boolean("report", False, "write the report, and run nothing")
    run(main, named_files={"sweep": SWEEPS})
