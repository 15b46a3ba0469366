r"""Fine-tune an ALBERT on a task, or resume a stopped run.

    python -m experiments.finetune --config=experiments/configs/finetune/sst2.py \
        --config.data.dir=glue/SST-2 --config.run.init_from=runs/base --workdir=runs/base-sst2

`--config.run.seeds` and `--config.run.learning_rates` start several runs, each in its own directory
below the workdir, and a report on all of them.
"""

import functools
from collections.abc import Sequence

import jax
from absl import flags
from etils import epath

from albert_jax.config import HeadConfig, ProblemType
from albert_jax.training.checkpoint import NonFiniteStateError
from data_pipeline.terminal import suggest
from experiments.cli.command import run
from experiments.cli.config_flag import define_config_flag
from experiments.cli.exit_codes import ExitCode
from experiments.finetuning.open_run import Finetuning, open_finetuning
from experiments.finetuning.report import write_run_report, write_summary_report
from experiments.finetuning.single_runs import RunReport, failed_run, next_runs
from experiments.finetuning.starting_point import read_task_parameters, workdir_files
from experiments.goodput import Activity, during, start_clock_of_command
from experiments.hosts import agree_on_experiment, define_host_flags, on_all_hosts
from experiments.metrics.trackers import check_trackers
from experiments.prediction.generated import GENERATED
from experiments.run.execution import execution_facts, prepare_devices, set_compilation_cache
from experiments.run.training import Run
from experiments.run.workdir import open_workdir, read_run_flags
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.registry import TASK_KINDS
from experiments.tasks.task_settings import TaskName

# The prediction to suggest after a fine-tuning, for tasks where it is not the first of their own.
_SUGGESTED = GENERATED | {TaskName.EMBEDDING: "similarity"}


def finetune(
    config: FinetuneConfig,
    path: epath.PathLike,
    lines: Sequence[str] = (),
    *,
    rows_follow: bool = False,
) -> ExitCode:
    """Train, then predict, score and report with the checkpoint that is best by the task's metric.

    Args:
        config: the settings of the fine-tuning.
        path: its workdir, new or to be resumed.
        lines: lines to print about the configuration.
        rows_follow: see `open_finetuning`.

    Raises:
        InputError: something is missing or does not fit together; the workdir is unchanged.
        CheckpointError: checkpoints are damaged or cannot be written.
        NonFiniteStateError: a step of the only run was not finite.
    """
    check_trackers(config.run.tracker_names)
    prepare_devices(config.run, path)
    with during(Activity.OPENING_DATA):
        finetuning = open_finetuning(config, path, lines, rows_follow=rows_follow)
    data = finetuning.data
    facts = {f"{data.kind} of {data.flag}": data.fingerprint}
    agree_on_experiment(finetuning.config, facts | execution_facts(finetuning.execution))
    if config.run.seeds == 1 and not config.run.rates:
        code, _ = _finetune_once(finetuning, path)
    else:
        code = _finetune_several(finetuning, path)
    if code is ExitCode.DONE and jax.process_index() == 0:
        task = suggested_prediction(config.task, finetuning.task.head)
        files = (f"--model={path}", "--input=INPUT.jsonl", "--output=OUTPUT.jsonl")
        suggest("experiments.predict", f"--task={task}", *files)
    return code


def suggested_prediction(task: TaskName, head: HeadConfig | None) -> str:
    """Return the prediction of `experiments.predict` that comes next.

    Args:
        task: the task that the model was fine-tuned on.
        head: the model's head, if it has one.
    """
    if head is not None and head.problem_type is ProblemType.REGRESSION:
        return "score"
    return _SUGGESTED.get(task) or next(iter(TASK_KINDS[task].predictions))


def _finetune_once(
    finetuning: Finetuning, path: epath.PathLike
) -> tuple[ExitCode, RunReport | None]:
    """Train one run; report on it unless it was stopped before its end."""
    config, task, evaluator, mesh = finetuning[:4]
    is_writer = jax.process_index() == 0
    files, patience = workdir_files(finetuning.start, task), config.run.patience
    read = functools.partial(read_task_parameters, config, finetuning.start, task)
    starts_pretrained = config.run.init_from is not None and config.run.init_weights
    with open_workdir(path, config, finetuning.data, files) as workdir:
        with Run(
            workdir,
            config,
            task.model,
            finetuning.batches,
            evaluator,
            mesh,
            patience=patience,
            rate_factors=task.rate_factors,
        ) as run:
            for line in finetuning.lines:
                run.say(line)
            state = run.restore() or run.initialize(read if starts_pretrained else None)
            code = run.train(state, run.compile(task.objective, state))
        if code is not ExitCode.DONE:
            return code, None
        return code, write_run_report(config, task, evaluator, workdir.path, write=is_writer)


def _finetune_several(finetuning: Finetuning, path: epath.PathLike) -> ExitCode:
    """Run each learning rate and seed in turn; runs that have ended are not trained again."""
    config, reports = finetuning.config, dict[str, RunReport]()
    with open_workdir(path, config, finetuning.data, {}) as workdir:
        set_compilation_cache(config.run, workdir.path)  # one cache for all runs
        while singles := next_runs(config, reports):
            name, single = next(iter(singles.items()))
            finetuning = finetuning._replace(config=single)
            try:
                code, report = _finetune_once(finetuning, workdir.path / name)
            except NonFiniteStateError as error:
                reports[name] = failed_run(single, str(error))
                continue
            if report is None:
                return code
            reports[name] = report
            finetuning = finetuning._replace(lines=())  # printed once for all runs
        if jax.process_index() == 0:
            write_summary_report(config, finetuning.task, reports, workdir.path)
    return ExitCode.DONE


def main() -> ExitCode:
    """Read the flags and train."""
    start_clock_of_command()
    workdir = flags.FLAGS.workdir
    given = read_run_flags(_CONFIG, FinetuneConfig, workdir)
    rows_follow = "data.max_seq_length" not in given.named
    return finetune(given.config, workdir, given.lines, rows_follow=rows_follow)


if __name__ == "__main__":
    _CONFIG = define_config_flag()
    flags.DEFINE_string("workdir", None, "the run's directory, new or to be resumed", required=True)
    define_host_flags()
    run(main, FinetuneConfig, around=on_all_hosts)
