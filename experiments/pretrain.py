r"""Pre-trains an ALBERT, or goes on with a run that was stopped.

    python -m experiments.pretrain --config=experiments/configs/albert_base.py \
        --config.data.corpus_dir=corpora/wiki_en --workdir=runs/base
"""

import functools
import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from etils import epath
from jax import Array
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.batch import PretrainingBatch
from albert_jax.checkpoint import Checkpoints, NonFiniteStateError
from albert_jax.flops import peak_flops, training_flops_per_row
from albert_jax.losses import make_pretraining_loss, pretraining_weights
from albert_jax.model import AlbertForPreTraining
from albert_jax.optimizer import make_optimizer, make_schedule, trust_ratios
from albert_jax.parallel import (
    TrainStep,
    compile_train_step,
    initialize_state,
    make_mesh,
    place_batch,
    rows_of_process,
    state_shardings,
)
from albert_jax.train_step import TrainState, create_train_state
from albert_jax.training_loop import BatchQueue, Callbacks, Intervals, NonFiniteStepError, train
from data_pipeline.corpus import Corpus, open_corpus
from data_pipeline.errors import InputError
from data_pipeline.pretraining import PretrainingDataset
from experiments.command_line import ExitCode, define_config_flag, experiment_config, run
from experiments.config import ExperimentConfig
from experiments.curves import CURVES_FILE, plot_curves
from experiments.evaluate import Ruler
from experiments.hosts import define_host_flags, joined_hosts
from experiments.preemption import Preemption
from experiments.run_log import RunLog, read_metrics
from experiments.warm_start import warm_start_params
from experiments.workdir import Workdir, open_workdir


class Experiment(NamedTuple):
    """What a configuration describes, opened and found to fit together."""

    config: ExperimentConfig
    corpus: Corpus
    dataset: PretrainingDataset
    ruler: Ruler
    mesh: Mesh
    model: AlbertForPreTraining
    optimizer: optax.GradientTransformation

    @property
    def flops_per_step(self) -> int:
        """Operations of the products of a global batch, forward and backward."""
        return self.config.global_batch_size * training_flops_per_row(
            self.config.model,
            length=self.config.data.max_seq_length,
            predictions=self.config.data.max_predictions_per_seq,
            pairs=self.dataset.max_pairs_per_row,
        )

    @property
    def peak_flops(self) -> float | None:
        """The peak of all devices together, if it is known."""
        peaks = [peak_flops(device) for device in self.mesh.devices.flat]
        return sum(peak for peak in peaks if peak) if all(peaks) else None

    def initialize(self, key: Array) -> PyTree:
        """Fresh parameters."""
        return self.model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]


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
    try:
        mesh = make_mesh(fsdp=config.run.fsdp, tensor=config.run.tensor)
        rows_of_process(config.global_batch_size // config.run.accumulation_steps, mesh)
    except ValueError as error:
        raise InputError(str(error)) from error
    return Experiment(
        config,
        corpus,
        PretrainingDataset(
            corpus, config.data, seed=config.seed, global_batch_size=config.global_batch_size
        ),
        Ruler(corpus, config, mesh),
        mesh,
        AlbertForPreTraining(config.model, dtype=config.run.dtype, remat=config.run.remat),
        make_optimizer(config.optimizer, global_batch_size=config.global_batch_size),
    )


def pretrain(config: ExperimentConfig, path: epath.PathLike) -> ExitCode:
    """Trains up to the configuration's last step, from the workdir's newest checkpoint if any.

    Raises:
        InputError: something does not fit together; the workdir is as it was.
        CheckpointError: checkpoints are damaged or cannot be written.
        NonFiniteStateError: a step was not finite.
    """
    if config.run.deterministic_kernels:  # read when the first device is asked for
        xla_flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{xla_flags} --xla_gpu_deterministic_ops=true"
    experiment = open_experiment(config)
    is_writer = jax.process_index() == 0
    workdir = open_workdir(path, config, experiment.corpus, write=is_writer)
    cache = config.run.compile_cache_dir or str(workdir.path / "compile_cache")
    jax.config.update("jax_compilation_cache_dir", cache)
    last_step = config.optimizer.num_train_steps
    with Checkpoints(
        workdir.checkpoints,
        keep=config.run.keep_checkpoints,
        documents={"albert_config": config.model.to_dict()},
    ) as checkpoints:
        state = restore_or_initialize(experiment, checkpoints)
        log = RunLog(
            workdir.path,
            first_step=int(state.step),
            num_steps=last_step,
            rows_per_step=config.global_batch_size,
            flops_per_step=experiment.flops_per_step,
            peak_flops=experiment.peak_flops,
            enabled=is_writer,
        )
        with log, Preemption() as preemption:
            log.say(f"{workdir.path}: at step {int(state.step)} of {last_step}")
            for name, (before, after) in workdir.changes.items():
                log.say(f"changed since the last start: {name} from {before!r} to {after!r}")
            if int(state.step) < last_step:
                state = _train(experiment, state, workdir, checkpoints, log, preemption)
            checkpoints.wait_until_finished()
            if int(state.step) < last_step:
                log.say(f"stopped and saved at step {int(state.step)}; the same command goes on")
                return ExitCode.PREEMPTED
    return ExitCode.DONE


def restore_or_initialize(experiment: Experiment, checkpoints: Checkpoints) -> TrainState:
    """The newest checkpoint's state; without one, a fresh one or `run.init_from`'s parameters."""
    config, mesh, optimizer = experiment.config, experiment.mesh, experiment.optimizer
    key = jax.random.key(config.seed)
    shapes = jax.eval_shape(
        lambda key: create_train_state(experiment.initialize(key), optimizer), key
    )
    shardings = state_shardings(shapes, mesh)
    wanted = jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    state = checkpoints.restore(wanted)
    if state is not None:
        return state
    if config.run.init_from is None:
        return initialize_state(experiment.initialize, optimizer, key, mesh)
    params = warm_start_params(config.run.init_from, config.run.init_groups, shapes.params)
    create = functools.partial(create_train_state, optimizer=optimizer)
    return jax.jit(create, out_shardings=shardings)(params)


def _train(
    experiment: Experiment,
    state: TrainState,
    workdir: Workdir,
    checkpoints: Checkpoints,
    log: RunLog,
    preemption: Preemption,
) -> TrainState:
    config, mesh = experiment.config, experiment.mesh
    key = jax.random.key(config.seed)
    rows = rows_of_process(config.global_batch_size, mesh)
    queue = BatchQueue(
        experiment.dataset.batches(start_step=int(state.step), rows=rows),
        lambda batch: place_batch(PretrainingBatch.from_numpy(batch), mesh),
    )
    train_step = _compile(experiment, state, queue, key, log)
    schedule = make_schedule(config.optimizer, global_batch_size=config.global_batch_size)

    def evaluate(state: TrainState) -> dict[str, float]:
        if ratios := jax.device_get(trust_ratios(state.opt_state)):
            means = {f"trust_ratio/{name}": float(np.mean(ratio)) for name, ratio in ratios.items()}
            report(int(state.step), "optimizer", means)
        return experiment.ruler.evaluate(state.params)

    def report(step: int, split: str, figures: dict[str, float]) -> None:
        if split == "train":
            checkpoints.check()  # a full disk is told at once, not when the next save is due
            figures["learning_rate"] = float(schedule(step - 1))
        log.report(step, split, figures)
        if split == "validation" and jax.process_index() == 0:
            title = f"{workdir.path.name}, step {step}"
            plot_curves(read_metrics(workdir.path), workdir.path / CURVES_FILE, title=title)

    def save(step: int, state: TrainState, finite: Array, figures: dict[str, float] | None) -> None:
        checkpoints.save(step, state, finite=finite, metrics=figures)

    run = config.run
    try:
        return train(
            state,
            train_step,
            queue,
            key,
            num_steps=config.optimizer.num_train_steps,
            intervals=Intervals(run.log_every, run.evaluate_every, run.checkpoint_every),
            callbacks=Callbacks(evaluate, save, report, log.advance, preemption.reached),
        )
    except NonFiniteStepError as error:
        checkpoints.wait_until_finished()
        saved = checkpoints.manager.latest_step()
        kept = "nothing was saved" if saved is None else f"the last good checkpoint is step {saved}"
        raise NonFiniteStateError(f"{error}; {kept}") from error


def _compile(
    experiment: Experiment, state: TrainState, queue: BatchQueue, key: Array, log: RunLog
) -> TrainStep:
    """Compiles the step ahead of its first use, and says what it will cost."""
    config = experiment.config
    step = compile_train_step(
        make_pretraining_loss(experiment.model),
        experiment.optimizer,
        state,
        experiment.mesh,
        weight_fn=pretraining_weights,
        accumulation_steps=config.run.accumulation_steps,
        parallelism=config.run.parallelism,
    )
    log.say("compiling the training step ...")
    start = time.perf_counter()
    compiled = step.lower(state, queue.next, key).compile()
    memory = compiled.memory_analysis()
    used = "memory not known"
    if memory is not None:
        size = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        used = f"{size / 2**30:.2f} GiB a device"
    flops, steps = experiment.flops_per_step, config.optimizer.num_train_steps - int(state.step)
    eta = "time known after the first steps"
    if peak := experiment.peak_flops:
        eta = f"{steps * flops / peak / 3600:.1f} hours at peak, twice that at half of it"
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    log.say(
        f"compiled in {time.perf_counter() - start:.1f} s: {parameters:,} parameters, "
        f"{flops / 1e9:,.1f} GFLOP a step, {used}, {steps} steps to go, "
        f"{eta}"
    )
    return compiled


def main() -> ExitCode:
    """Reads the flags and trains."""
    config = experiment_config(_CONFIG)
    with joined_hosts():
        return pretrain(config, flags.FLAGS.workdir)


if __name__ == "__main__":
    _CONFIG = define_config_flag()
    flags.DEFINE_string(
        "workdir", None, "the run's directory, new or to be continued", required=True
    )
    define_host_flags()
    run(main)
