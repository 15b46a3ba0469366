"""A run in phases: shorter rows or smaller batches first, one optimizer state throughout.

The batch of step k stays a function of corpus, configuration, seed and k. Each phase reads the
corpus from the beginning of an order of its own; its rows are planned, and its step compiled, once.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from albert_jax.training.flops import training_flops_per_row
from albert_jax.training.parallel import rows_of_process
from data_pipeline.config import DataConfig
from data_pipeline.corpus.reader import Corpus
from data_pipeline.pretraining.dataset import PretrainingDataset
from experiments.run.config import ExperimentConfig


class Phase(NamedTuple):
    """The steps from `begin` up to `end`."""

    begin: int
    end: int
    data: DataConfig
    global_batch_size: int
    seed: int  # of the data's draws

    @property
    def rows(self) -> int:
        """Rows of all its steps."""
        return (self.end - self.begin) * self.global_batch_size


def phases_of(config: ExperimentConfig) -> tuple[Phase, ...]:
    """The phases of an experiment, the last of which is what `data` says.

    Example: 10 steps with ``phases.first.num_steps=4`` have the phases 0 to 4 and 4 to 10.
    """
    found, begin = [], 0
    for number, early in enumerate(config.phases.in_order):
        data = dataclasses.replace(
            config.data,
            max_seq_length=early.max_seq_length,
            max_predictions_per_seq=early.max_predictions_per_seq,
        )
        batch = early.global_batch_size or config.global_batch_size
        seed = (config.seed + 1 + number) % 2**32
        found.append(Phase(begin, begin + early.num_steps, data, batch, seed))
        begin += early.num_steps
    end = config.optimizer.num_train_steps
    return (*found, Phase(begin, end, config.data, config.global_batch_size, config.seed))


class Curriculum:
    """The batches of a run through all of its phases.

    Args:
        corpus: what is read.
        config: the experiment.

    Raises:
        InputError: the corpus is too small for a row of some phase, or a plan cannot be written.
    """

    def __init__(self, corpus: Corpus, config: ExperimentConfig) -> None:
        self.phases = phases_of(config)
        self._model = config.model
        self._datasets = [
            PretrainingDataset(
                corpus, phase.data, seed=phase.seed, global_batch_size=phase.global_batch_size
            )
            for phase in self.phases
        ]

    def batches(self, start_step: int, mesh: Mesh) -> Iterator[dict[str, np.ndarray]]:
        """This process's rows of the batches of steps start_step, start_step + 1, ... without end:
        the last phase goes on."""
        last = self.phases[-1]
        for phase, dataset in zip(self.phases, self._datasets, strict=True):
            if phase is not last and phase.end <= start_step:
                continue
            skipped = max(start_step - phase.begin, 0)
            rows = rows_of_process(phase.global_batch_size, mesh)
            batches = dataset.batches(start_step=skipped, rows=rows)
            count = None if phase is last else phase.end - phase.begin - skipped
            yield from itertools.islice(batches, count)

    def phase_of(self, step: int) -> int:
        """Which phase a step, counted from 0, belongs to."""
        return next(
            (number for number, phase in enumerate(self.phases) if step < phase.end),
            len(self.phases) - 1,
        )

    def flops_of_step(self, number: int) -> int:
        """Operations of the products of a batch of a phase, forward and backward."""
        phase, dataset = self.phases[number], self._datasets[number]
        return phase.global_batch_size * training_flops_per_row(
            self._model,
            length=phase.data.max_seq_length,
            predictions=phase.data.max_predictions_per_seq,
            pairs=dataset.max_pairs_per_row,
        )

    @property
    def mean_flops_of_step(self) -> float:
        """The same, on average over all steps."""
        steps = [phase.end - phase.begin for phase in self.phases]
        flops = [self.flops_of_step(number) for number in range(len(steps))]
        return float(np.average(flops, weights=steps))


def mean_flops_per_row(config: ExperimentConfig, phases: Sequence[Phase]) -> int:
    """Operations of a row's products on average over a run, each row taken to hold one pair."""
    flops = [
        training_flops_per_row(
            config.model,
            length=phase.data.max_seq_length,
            predictions=phase.data.max_predictions_per_seq,
        )
        for phase in phases
    ]
    return round(float(np.average(flops, weights=[phase.rows for phase in phases])))
