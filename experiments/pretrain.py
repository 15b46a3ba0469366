r"""Pre-train an ALBERT, or resume a run that was stopped.

    python -m experiments.pretrain --config=experiments/configs/albert_base.py \
        --config.data.corpus_dir=corpora/wiki_en --workdir=runs/base
"""

import functools

import jax
from absl import flags
from etils import epath

from albert_jax.model import AlbertForPreTraining
from albert_jax.tasks.pretraining import pretraining_objective
from experiments.cli.command import define_config_flag, read_config_flag, run_command
from experiments.cli.exit_codes import ExitCode
from experiments.cli.hosts import define_host_flags, joined_hosts
from experiments.evaluation.held_out import HeldOutEvaluator
from experiments.run.config import ExperimentConfig
from experiments.run.curriculum import Curriculum
from experiments.run.execution import open_mesh, prepare_devices, resolve_execution
from experiments.run.initial_parameters import read_initial_parameters
from experiments.run.training import Run
from experiments.run.workdir import open_pretraining_corpus, open_pretraining_workdir


def pretrain(config: ExperimentConfig, path: epath.PathLike) -> ExitCode:
    """Train up to the configuration's last step, from the workdir's newest checkpoint if any.

    Raises:
        InputError: something does not fit together; the workdir is as it was.
        CheckpointError: checkpoints are damaged or cannot be written.
        NonFiniteStateError: a step was not finite.
    """
    prepare_devices(config.run)
    corpus = open_pretraining_corpus(config)
    mesh = open_mesh(config.run, *(phase.global_batch_size for phase in config.all_phases))
    batches = Curriculum(corpus, config, mesh)
    execution, attention = resolve_execution(
        config.run, config.model, mesh, lengths=batches.lengths, packed=batches.is_packed
    )
    model = AlbertForPreTraining(config.model, dtype=config.run.dtype, execution=execution)
    objective = pretraining_objective(model, config.data.sentence_objective.metric_name)
    evaluator = HeldOutEvaluator(corpus, config, mesh)
    workdir = open_pretraining_workdir(path, config, corpus, write=jax.process_index() == 0)
    with Run(workdir, config, model, batches, evaluator, mesh) as run:
        run.say(attention)
        state = run.restore() or run.initialize(_initial_parameters(config, model))
        step = run.compile(objective, state)
        return run.train(state, step)
