r"""Pre-trains an ALBERT, or goes on with a run that was stopped.

    python -m experiments.pretrain --config=experiments/configs/albert_base.py \
        --config.data.corpus_dir=corpora/wiki_en --workdir=runs/base
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from absl import flags
from etils import epath
from jax import Array
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.batch import PretrainingBatch
from albert_jax.model import AlbertForPreTraining
from albert_jax.tasks.pretraining import pretraining_objective
from data_pipeline.config import Packing
from data_pipeline.corpus.reader import TOKENIZER_DIRECTORY, Corpus, open_corpus
from data_pipeline.errors import InputError
from experiments.cli.command import define_config_flag, read_config_flag, run
from experiments.cli.exit_codes import ExitCode
from experiments.cli.hosts import define_host_flags, joined_hosts
from experiments.evaluation.held_out import HeldOutEvaluator, panels
from experiments.evaluation.sentence_objectives import stem
from experiments.run.config import ExperimentConfig
from experiments.run.curriculum import Curriculum, phases_of
from experiments.run.execution import open_mesh, prepare_devices, resolve_execution
from experiments.run.metrics_log import StepWork
from experiments.run.training import Training, run_training
from experiments.run.warm_start import warm_start_params
from experiments.run.workdir import DataIdentity, Workdir, model_files, open_workdir


class Experiment(NamedTuple):
    """What a configuration describes, opened and found to fit together."""

    config: ExperimentConfig
    corpus: Corpus
    curriculum: Curriculum
    ruler: HeldOutEvaluator
    mesh: Mesh
    model: AlbertForPreTraining
    execution: str  # a line about how the model is computed

    def initialize(self, key: Array) -> PyTree:
        """Fresh parameters."""
        return self.model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]

    def batches(self, start_step: int) -> Iterator[PretrainingBatch]:
        """This process's rows of the batches from a step on."""
        return map(PretrainingBatch.from_numpy, self.curriculum.batches(start_step, self.mesh))

    def work_of_step(self, step: int) -> StepWork:
        """What a step, counted from 0, goes through."""
        number = self.curriculum.phase_of(step)
        rows = self.curriculum.phases[number].global_batch_size
        return StepWork(rows, self.curriculum.flops_of_step(number))

    @property
    def training(self) -> Training:
        """The same as `run_training` wants it."""
        config, init_from = self.config, self.config.run.init_from
        objective = pretraining_objective(self.model, stem(config.data.sentence_objective))
        return Training(
            model=config.model,
            optimizer=config.optimizer,
            run=config.run,
            seed=config.seed,
            mesh=self.mesh,
            initialize=self.initialize,
            warm_start=None
            if init_from is None
            else functools.partial(
                warm_start_params, init_from, config.run.init_groups, self.model, config.seed
            ),
            loss_fn=objective.loss_fn,
            weight_fn=objective.weight_fn,
            batches=self.batches,
            num_shapes=len(self.curriculum.phases),
            rows_per_step=config.global_batch_size,
            flops_per_step=self.curriculum.mean_flops_of_step,
            work_of_step=self.work_of_step,
            evaluate=self.ruler.evaluate,
            best_metric="masked_lm_accuracy",
            panels=panels(config.data.sentence_objective),
            notes=[self.execution],
        )


def open_experiment(config: ExperimentConfig) -> Experiment:
    """Opens the corpus and the devices, and writes nothing but the corpus's plan.

    Raises:
        InputError: there is no such corpus, or something does not fit together.
    """
    corpus = open_corpus(config.data.corpus_dir)
    if corpus.metadata.vocab_size != config.model.vocab_size:
        raise InputError(
            f"--config.data.corpus_dir={config.data.corpus_dir} has a vocabulary of "
            f"{corpus.metadata.vocab_size} pieces, --config.model.vocab_size is "
            f"{config.model.vocab_size}"
        )
    for phase in phases_of(config):
        mesh = open_mesh(config.run, phase.global_batch_size)
    execution, line = resolve_execution(
        config.run,
        config.model,
        mesh,
        lengths=[phase.data.max_seq_length for phase in phases_of(config)],
        packed=config.data.packing is Packing.PACKED,
    )
    return Experiment(
        config,
        corpus,
        Curriculum(corpus, config),
        HeldOutEvaluator(corpus, config, mesh),
        mesh,
        AlbertForPreTraining(config.model, dtype=config.run.dtype, execution=execution),
        line,
    )


def pretrain(config: ExperimentConfig, path: epath.PathLike) -> ExitCode:
    """Trains up to the configuration's last step, from the workdir's newest checkpoint if any.

    Raises:
        InputError: something does not fit together; the workdir is as it was.
        CheckpointError: checkpoints are damaged or cannot be written.
        NonFiniteStateError: a step was not finite.
    """
    prepare_devices(config.run)
    experiment = open_experiment(config)
    workdir = open_pretraining_workdir(
        path, config, experiment.corpus, write=jax.process_index() == 0
    )
    return run_training(experiment.training, workdir)


def open_pretraining_workdir(
    path: epath.PathLike, config: ExperimentConfig, corpus: Corpus, *, write: bool = True
) -> Workdir:
    """Opens the workdir of a run on a corpus; see `open_workdir`."""
    place = config.data.corpus_dir
    data = DataIdentity("corpus", "--config.data.corpus_dir", place, corpus.metadata.fingerprint)
    files = model_files(config.model, corpus.path / TOKENIZER_DIRECTORY)
    return open_workdir(path, config, data, files, write=write)


def main() -> ExitCode:
    """Reads the flags and trains."""
    config = read_config_flag(_CONFIG, ExperimentConfig)
    with joined_hosts():
        return pretrain(config, flags.FLAGS.workdir)


if __name__ == "__main__":
    _CONFIG = define_config_flag()
    flags.DEFINE_string(
        "workdir", None, "the run's directory, new or to be continued", required=True
    )
    define_host_flags()
    run(main, ExperimentConfig)
