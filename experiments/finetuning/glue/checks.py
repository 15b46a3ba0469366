"""Checks of the fine-tunings of a GLUE folder before any is started or reported."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipeline.errors import InputError
from data_pipeline.finetuning.glue_tasks import GLUE_TASKS
from experiments.cli.config_flag import (
    GivenConfig,
    define_config_flag,
    parse_flags,
    read_given_config,
)
from experiments.finetuning.glue.jobs import GlueRun
from experiments.finetuning.resumption import check_same_finetuning
from experiments.run.workdir import CONFIG_FILE, REPORT_FILE, read_config
from experiments.tasks.config import FinetuneConfig


def check_runs(runs: Sequence[GlueRun]) -> list[GlueRun]:
    """Check that every fine-tuning is valid, and that its workdir holds no other fine-tuning.

    Returns:
        The runs whose report is for other seeds, rates or files. They have to run again, and then
        reuse what is the same.

    Raises:
        InputError: an override names no setting or a value is not allowed, or a workdir was
            fine-tuned from another model or with other settings.
    """
    outdated = []
    for run in runs:
        try:
            given = resolve(run)
        except InputError as error:
            raise InputError(f"{GLUE_TASKS[run.task].name}: {error}") from error
        if not (run.workdir / CONFIG_FILE).exists():
            continue
        before = read_config(run.workdir, FinetuneConfig)
        if _is_other(before, given, run.workdir) and (run.workdir / REPORT_FILE).exists():
            outdated.append(run)
    return outdated


def resolve(run: GlueRun) -> GivenConfig[FinetuneConfig]:
    """Return the configuration of a fine-tuning, read from its flags as its command reads them.

    Raises:
        InputError: an override names no setting, or a value is not allowed.
    """
    (command,) = run.job.commands
    argv = [one for one in command.argv[2:] if not one.startswith("--workdir=")]
    values = flags.FlagValues()
    flag = define_config_flag(values, argv)
    parse_flags(argv, values, config_kind=FinetuneConfig)
    return read_given_config(flag, FinetuneConfig)


def _is_other(before: FinetuneConfig, given: GivenConfig[FinetuneConfig], workdir: Path) -> bool:
    """Return True if a workdir's report is outdated; raise if it cannot be brought up to date."""
    changes = check_same_finetuning(before, given, workdir=str(workdir), init_flag="--init_from")
    decisive = {
        "run.seeds",
        "run.learning_rates",
        "run.rate_search",
        *FinetuneConfig.LOCATIONS,
    }
    return bool(decisive & changes.keys())
