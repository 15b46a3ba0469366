r"""Pre-train an ALBERT, or resume a stopped run.

    python -m experiments.pretrain --config=experiments/configs/albert_base.py \
        --config.data.corpus_dir=corpora/wiki_en --workdir=runs/base
"""

from collections.abc import Callable, Sequence

import jax
from absl import flags
from etils import epath
from jaxtyping import PyTree

from albert_jax.model import AlbertForPreTraining
from data_pipeline.config import Packing
from data_pipeline.corpus.reader import Corpus
from data_pipeline.terminal import suggest
from experiments.cli.command import run
from experiments.cli.config_flag import define_config_flag
from experiments.cli.exit_codes import ExitCode
from experiments.distillation import open_teacher
from experiments.evaluation.held_out import HeldOutEvaluator
from experiments.goodput import Activity, during, start_clock_of_command
from experiments.hosts import agree_on_experiment, define_host_flags, on_all_hosts
from experiments.metrics.trackers import check_trackers
from experiments.run.compiled_steps import model_of, objective_of
from experiments.run.config import ExperimentConfig
from experiments.run.curriculum import Curriculum, phases_of
from experiments.run.execution import (
    execution_facts,
    open_mesh,
    prepare_devices,
    resolve_execution,
)
from experiments.run.initial_parameters import (
    check_vocabulary,
    open_initial_weights,
    read_initial_parameters,
)
from experiments.run.training import Run
from experiments.run.workdir import (
    check_workdir,
    open_pretraining_corpus,
    open_pretraining_workdir,
    read_run_flags,
    with_corpus_vocabulary,
)


def pretrain(
    config: ExperimentConfig,
    path: epath.PathLike,
    lines: Sequence[str] = (),
    *,
    dry_run: bool = False,
) -> ExitCode:
    """Train up to the configuration's last step, from the workdir's newest checkpoint if any.

    Args:
        config: the experiment.
        path: its workdir, new or to be resumed.
        lines: log lines about the configuration.
        dry_run: check that everything fits together and print the size, without training.

    Raises:
        InputError: settings, data or workdir do not fit together; the workdir is unchanged.
        CheckpointError: checkpoints are damaged or cannot be written.
        NonFiniteStateError: too many steps in a row were not finite.
    """
    check_trackers(config.run.tracker_names)
    prepare_devices(config.run, None if dry_run else path)
    phases = phases_of(config)
    mesh = open_mesh(config.run, *(phase.global_batch_size for phase in phases))
    with during(Activity.OPENING_DATA):
        corpus = open_pretraining_corpus(config)
        batches = Curriculum(corpus, config, mesh)
    given_slots = config.run.sequence_slots
    slots = batches.find_slots if given_slots is None else given_slots
    execution, attention = resolve_execution(
        config.run,
        config.model,
        mesh,
        lengths=[phase.data.max_seq_length for phase in phases],
        packed=config.data.packing is Packing.PACKED,
        sequence_slots=slots,
    )
    batches.limit_sequences(execution.sequence_slots)
    model = model_of(config, execution)
    objective = objective_of(config, model)
    teacher = open_teacher(config, corpus, batches.identity, mesh, sequence_slots=slots)
    batches.teach(teacher)
    evaluator = HeldOutEvaluator(corpus, config, mesh)
    agree_on_experiment(config, batches.facts | execution_facts(execution))
    lines = (*lines, attention, *batches.describe_coverage())
    lines = lines if teacher is None else (*lines, teacher.describe())
    if dry_run:
        check_workdir(path, config, batches.identity)
        return _describe(lines, model, batches)
    with (
        open_pretraining_workdir(path, config, corpus, batches.identity) as workdir,
        Run(
            *(workdir, config, model, batches, evaluator, mesh),
            teacher=None if teacher is None else teacher.on_devices,
        ) as training,
    ):
        for line in lines:
            training.say(line)
        state = training.restore() or training.initialize(
            _initial_parameters(config, model, corpus)
        )
        step = training.compile(objective, state)
        code = training.train(state, step)
    if code is ExitCode.DONE and jax.process_index() == 0:
        suggest("experiments.evaluate", f"--workdir={path}")
    return code


def _describe(lines: Sequence[str], model: AlbertForPreTraining, batches: Curriculum) -> ExitCode:
    """Print what a run would log before it compiles its first step."""
    shapes = jax.tree.leaves(jax.eval_shape(model.initialize, jax.random.key(0)))
    last = batches.phases[-1]
    size = (
        f"{sum(leaf.size for leaf in shapes):,} parameters, {batches.mean_flops / 1e9:,.1f} GFLOP "
        f"a step, {last.end:,} steps; the last are of {last.global_batch_size:,} rows of "
        f"{last.data.max_seq_length:,}"
    )
    if jax.process_index() == 0:
        print("\n".join([*lines, size]))
    return ExitCode.DONE


def _initial_parameters(
    config: ExperimentConfig, model: AlbertForPreTraining, corpus: Corpus
) -> Callable[[], PyTree] | None:
    """Return a function that reads a new run's initial parameters, or None for random ones."""
    run, init_from = config.run, config.run.init_from
    if init_from is None:
        return None

    def read() -> PyTree:
        stored = open_initial_weights(init_from)
        whose = f"corpus {corpus.path}"
        check_vocabulary(init_from, corpus.load_tokenizer(), run.init_embeddings, whose=whose)
        return read_initial_parameters(
            stored,
            model,
            seed=config.seed,
            groups=run.init_groups,
            embeddings=run.init_embeddings,
        )

    return read


def main() -> ExitCode:
    """Read the flags and train."""
    start_clock_of_command()
    workdir = flags.FLAGS.workdir
    given = with_corpus_vocabulary(read_run_flags(_CONFIG, ExperimentConfig, workdir))
    return pretrain(given.config, workdir, given.lines, dry_run=flags.FLAGS.dry_run)


if __name__ == "__main__":
    _CONFIG = define_config_flag()
    flags.DEFINE_string("workdir", None, "the run's directory, new or to be resumed", required=True)
    flags.DEFINE_boolean("dry_run", False, "check everything and print the size, and do not train")
    define_host_flags()
    run(main, ExperimentConfig, around=on_all_hosts)
