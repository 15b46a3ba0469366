r"""Fine-tune a model on every GLUE task in a folder, and report in one table.

    python -m experiments.glue --init_from=runs/base --data_dir=glue --workdir=runs/base-glue

Each task is one run of `experiments.finetune` with all its seeds. `--control` adds one from random
weights of the same sizes. The same command resumes stopped runs. `--dry_run` prints the commands,
and `--report` writes the report so far.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags

from albert_jax.pretrained import open_weights
from experiments.cli.assignments import parse_assignments
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode
from experiments.finetuning.glue.checks import check_runs
from experiments.finetuning.glue.jobs import GlueRun, Start, find_tasks, plan_runs
from experiments.finetuning.glue.report import write_glue_report
from experiments.finetuning.glue.results import read_results
from experiments.launching.devices import divide_devices
from experiments.launching.processes import run_jobs
from experiments.run.workdir import REPORT_FILE
from experiments.tasks.task_settings import RateSearch


def launch(runs: Sequence[GlueRun], outdated: Sequence[GlueRun], directory: Path) -> ExitCode:
    """Run the fine-tunings that are outdated or not done yet, on this machine."""
    for one in outdated:
        (one.workdir / REPORT_FILE).unlink()
    shares = divide_devices(flags.FLAGS.max_parallel, flags.FLAGS.devices)
    return run_jobs([one.job for one in runs], directory / "logs", shares)


def main() -> ExitCode:
    """Read the flags; plan, launch and report."""
    values = flags.FLAGS
    # This process computes nothing, and leaves the GPUs to the runs.
    jax.config.update("jax_platforms", "cpu")
    directory = Path(values.workdir)
    model = open_weights(values.init_from).config
    overrides = parse_assignments("override", values.override)
    if values.learning_rates:
        overrides["run.learning_rates"] = ",".join(values.learning_rates)
        overrides["run.rate_search"] = RateSearch.FIRST_SEED
    runs = plan_runs(
        find_tasks(Path(values.data_dir), values.tasks),
        directory,
        init_from=values.init_from,
        starts=[Start.PRETRAINED, *([Start.RANDOM] if values.control else [])],
        seeds=values.seeds,
        overrides=overrides,
    )
    outdated = check_runs(runs)
    if values.dry_run:
        print("\n".join(str(command) for one in runs for command in one.job.commands))
        return ExitCode.DONE
    status = ExitCode.DONE if values.report else launch(runs, outdated, directory)
    if values.report or any((one.workdir / REPORT_FILE).exists() for one in runs):
        command = shlex.join(["python", "-m", "experiments.glue", *sys.argv[1:]])
        print(write_glue_report(directory, read_results(runs), model, command, runs=runs))
    return status


if __name__ == "__main__":
    flags.DEFINE_string("init_from", None, "the model to fine-tune", required=True)
    flags.DEFINE_string(
        "data_dir", None, "directory with a directory for each task, such as SST-2", required=True
    )
    flags.DEFINE_string("workdir", None, "directory of all runs and of the report", required=True)
    flags.DEFINE_list("tasks", None, "names such as sst-2,rte; by default all in --data_dir")
    flags.DEFINE_integer("seeds", 5, "runs of each task", lower_bound=1)
    flags.DEFINE_list(
        "learning_rates",
        None,
        "rates, of which the first seed of each task chooses one for the others",
    )
    flags.DEFINE_boolean(
        "control", False, "also run each task from random weights of the same sizes"
    )
    flags.DEFINE_multi_string(
        "override",
        [],
        "NAME=VALUE for all runs, such as data.max_seq_length=128, or TASK:NAME=VALUE",
    )
    flags.DEFINE_integer("max_parallel", 1, "tasks that run at once", lower_bound=1)
    flags.DEFINE_list("devices", None, "GPUs to divide among them; by default all")
    flags.DEFINE_boolean("dry_run", False, "print the commands, and run none")
    flags.DEFINE_boolean("report", False, "write the report so far, and run nothing")
    run(main)
