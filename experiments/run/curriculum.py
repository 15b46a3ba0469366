"""The batches of a run in phases: shorter rows or smaller batches first, another corpus last.

The batch of step k stays a function of corpus, configuration, seed and k. Each phase reads the
corpus from the beginning, in its own order. Its rows are planned once; its step is compiled once.
"""

import dataclasses
import itertools
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from albert_jax.attention.cudnn_slots import slots_needed
from albert_jax.attention.slot_capacity import RowsAtOnce, fewest_slots
from albert_jax.batch import PretrainingBatch
from albert_jax.devices.flops import pretraining_flops_per_row
from albert_jax.devices.sharding import rows_of_process
from albert_jax.settings import FieldError
from data_pipeline.config import DataConfig
from data_pipeline.corpus.reader import Corpus
from data_pipeline.errors import InputError
from data_pipeline.pretraining.dataset import PretrainingDataset
from data_pipeline.pretraining.display import format_coverage
from data_pipeline.pretraining.records import RecordDataset
from experiments.metrics.run_log import StepWork
from experiments.run.config import ExperimentConfig
from experiments.run.interfaces import Teacher
from experiments.run.resumption import DECAY_KIND, DataIdentity
from experiments.run.workdir import open_decay_corpus


class Phase(NamedTuple):
    """The steps from `begin` up to `end`."""

    begin: int
    end: int
    data: DataConfig
    global_batch_size: int
    seed: int  # seed of the data's random numbers
    decays: bool = False  # True for the decay on its own corpus

    @property
    def rows(self) -> int:
        """Rows of all its steps."""
        return (self.end - self.begin) * self.global_batch_size


def phases_of(config: ExperimentConfig) -> tuple[Phase, ...]:
    """Return the phases of an experiment.

    These are the phases of `phases`, the one of `data`, and the decay if it has its own corpus.

    Example: 10 steps with ``phases.first.num_steps=4`` have the phases 0 to 4 and 4 to 10. With
    ``decay_corpus_dir`` and ``decay_share=0.2`` too, they have 0 to 4, 4 to 8 and 8 to 10.
    """
    found, begin = [], 0
    for number, early in enumerate(config.phases.in_order):
        data = dataclasses.replace(
            config.data,
            max_seq_length=early.max_seq_length,
            max_predictions_per_seq=early.max_predictions_per_seq,
            masked_lm_prob=(
                config.data.masked_lm_prob if early.masked_lm_prob is None else early.masked_lm_prob
            ),
        )
        batch = early.global_batch_size or config.global_batch_size
        seed = (config.seed + 1 + number) % 2**32
        found.append(Phase(begin, begin + early.num_steps, data, batch, seed))
        begin += early.num_steps
    end, rows = config.optimizer.num_train_steps, config.global_batch_size
    if not config.data.decay_corpus_dir:
        return (*found, Phase(begin, end, config.data, rows, config.seed))
    decay, seed = end - config.optimizer.num_decay_steps, (config.seed + 1 + len(found)) % 2**32
    return (
        *found,
        Phase(begin, decay, config.data, rows, config.seed),
        Phase(decay, end, config.data, rows, seed, decays=True),
    )


class Curriculum:
    """The batches of a run through all of its phases: its `TrainingData`.

    Args:
        corpus: the text; if `data.records_dir` is set, only the tokenizer and the held-out text
            that belong to the records.
        config: the experiment.
        mesh: the devices.

    Attributes:
        phases: the phases.
        identity: the data that is read, with its fingerprint.

    Raises:
        InputError: the corpus is too small for a row of some phase, a plan cannot be written, or
            records are missing or damaged.
        FieldError: a setting does not match the records.
    """

    def __init__(self, corpus: Corpus, config: ExperimentConfig, mesh: Mesh) -> None:
        self.phases = phases_of(config)
        self._model, self._generator, self._mesh = config.model, config.generator, mesh
        self._given_slots = config.run.sequence_slots
        self._slots: int | None = None
        self._teacher: Teacher | None = None
        self._accumulation_steps = config.run.accumulation_steps
        decay = open_decay_corpus(config, corpus)
        self._corpora = [decay if decay and phase.decays else corpus for phase in self.phases]
        self._datasets = list(map(_open_dataset, self._corpora, self.phases))
        self.identity = _identify(corpus, config, self._datasets[0])
        if decay is not None:
            read = _identify_corpus(DECAY_KIND, config.data.decay_corpus_dir, decay)
            read = read._replace(first_step=self.phases[-1].begin)
            self.identity = self.identity._replace(decay=read)

    def describe_coverage(self) -> list[str]:
        """Return lines that say how much of the corpus an epoch of each phase reads.

        Phases that read records have none. A decay on its own corpus has a further line, with its
        steps. Equal lines appear once.
        """
        lines = []
        for phase, corpus, dataset in zip(self.phases, self._corpora, self._datasets, strict=True):
            if phase.decays:
                steps = f"from step {phase.begin + 1:,} to {phase.end:,}"
                lines.append(f"the decay, {steps}, reads {corpus.path}")
            if isinstance(dataset, PretrainingDataset):
                cuts = corpus.metadata.cuts_long_sentences
                length = phase.data.max_seq_length
                lines.append(format_coverage(dataset.coverage, length, cuts_long_sentences=cuts))
        return list(dict.fromkeys(lines))

    def find_slots(self) -> int:
        """Return the sequence slots a row (see `Execution`) that almost surely suffice throughout.

        They follow from the lengths in the plans of the rows alone. The result is 0 if they would
        not be fewer than the sequences that a row may have.
        """
        shards = self._mesh.size // self._mesh.shape["tensor"]
        parts = []
        for phase, dataset in zip(self.phases, self._datasets, strict=True):
            if isinstance(dataset, PretrainingDataset) and dataset.max_pairs_per_row > 1:
                counts = dataset.plan.count_sequences(phase.data, phase.rows)
                rows = phase.global_batch_size // (shards * self._accumulation_steps)
                room = dataset.max_pairs_per_row + 1
                parts.append(RowsAtOnce(counts, room, rows, phase.rows // rows))
        return fewest_slots(parts)

    def limit_sequences(self, slots: int | None) -> None:
        """Check from now on that no batch has more sequences than these slots; None: no limit."""
        self._slots = slots

    def teach(self, teacher: Teacher | None) -> None:
        """Add a teacher's recorded predictions to every later batch, and its work to steps.

        Its sequence slots limit the sequences of a batch too.
        """
        self._teacher = teacher
        if teacher is not None and (slots := teacher.sequence_slots) is not None:
            self._slots = min(slots, self._slots or slots)
        identity = None if teacher is None else teacher.identity
        self.identity = self.identity._replace(teacher=identity)

    def batches(self, start_step: int) -> Generator[PretrainingBatch, None, None]:
        """Yield this process's rows of the batches of steps start_step, start_step + 1, ...

        They never end: the last phase continues.

        Raises:
            InputError: a batch has more sequences than slots.
        """
        last = self.phases[-1]
        for phase, dataset in zip(self.phases, self._datasets, strict=True):
            if phase is not last and phase.end <= start_step:
                continue
            skipped = max(start_step - phase.begin, 0)
            rows = rows_of_process(phase.global_batch_size, self._mesh)
            count = None if phase is last else phase.end - phase.begin - skipped
            with dataset.batches(start_step=skipped, rows=rows) as batches:
                numbers = itertools.count(phase.begin + skipped)
                for step, arrays in zip(numbers, itertools.islice(batches, count), strict=False):
                    batch = self._read(arrays)
                    if self._teacher is not None:
                        batch = self._teacher.add_predictions(batch, step=step, rows=rows)
                    yield batch

    def _read(self, arrays: dict[str, np.ndarray]) -> PretrainingBatch:
        if self._slots is not None:
            needed = slots_needed(
                arrays["sequence_ids"],
                shards=len(self._mesh.local_devices),
                micro_batches=self._accumulation_steps,
            )
            if needed > self._slots:
                allowed = (
                    f"at least {needed} for the sequences of this batch, or 0 to have room for as "
                    "many in each row as any may have"
                )
                name, given = "--config.run.sequence_slots", self._given_slots
                found = f"; the plan of the rows gave {self._slots}" if given is None else ""
                raise InputError(str(FieldError(name, allowed, given, found)))
        return PretrainingBatch.from_numpy(arrays)

    def phase_of(self, step: int) -> int:
        """Return the number of the phase that a step, counted from 0, belongs to."""
        return next(
            (number for number, phase in enumerate(self.phases) if step < phase.end),
            len(self.phases) - 1,
        )

    def work_of_step(self, step: int) -> StepWork:
        """Return rows and floating-point operations of a step, counted from 0."""
        number = self.phase_of(step)
        return StepWork(self.phases[number].global_batch_size, self._flops(number))

    @property
    def facts(self) -> dict[str, str]:
        """What determines the batches besides the configuration, to compare between processes."""
        plans = {
            f"plan of phase {number}": f"{data.rows_per_epoch} rows, {data.fill!r} filled"
            for number, data in enumerate(self._datasets)
        }
        read = filter(None, (self.identity, self.identity.decay, self.identity.teacher))
        return {f"fingerprint of the {one.kind}": one.fingerprint for one in read} | plans

    def pairs_of_row(self, phase: int) -> int:
        """Return the number of pairs that a row of a phase has room for."""
        return self._datasets[phase].max_pairs_per_row

    @property
    def num_shapes(self) -> int:
        """Number of shapes that batches have."""
        shapes = {
            (
                phase.global_batch_size,
                phase.data.max_seq_length,
                phase.data.max_predictions_per_seq,
                dataset.max_pairs_per_row,
            )
            for phase, dataset in zip(self.phases, self._datasets, strict=True)
        }
        return len(shapes)

    @property
    def mean_flops(self) -> float:
        """Operations of a batch's matrix products, forward and backward, on average over steps."""
        steps = [phase.end - phase.begin for phase in self.phases]
        flops = [self._flops(number) for number in range(len(steps))]
        return float(np.average(flops, weights=steps))

    def _flops(self, number: int) -> int:
        phase, dataset = self.phases[number], self._datasets[number]
        length, predictions = phase.data.max_seq_length, phase.data.max_predictions_per_seq
        flops = pretraining_flops_per_row(
            self._model,
            length=length,
            predictions=predictions,
            pairs=dataset.max_pairs_per_row,
            generator=self._generator,
        )
        if self._teacher is not None:
            flops += self._teacher.flops_per_row(length=length, predictions=predictions)
        return phase.global_batch_size * flops


def _open_dataset(corpus: Corpus, phase: Phase) -> PretrainingDataset | RecordDataset:
    batches: dict[str, int] = {"seed": phase.seed, "global_batch_size": phase.global_batch_size}
    if not phase.data.records_dir:
        return PretrainingDataset(corpus, phase.data, **batches)
    records = RecordDataset(Path(phase.data.records_dir), phase.data, **batches)
    if records.max_token_id >= corpus.metadata.vocab_size:
        allowed = f"records whose ids are below the vocabulary size, {corpus.metadata.vocab_size}"
        raise FieldError("data.records_dir", allowed, phase.data.records_dir)
    return records


def _identify(
    corpus: Corpus, config: ExperimentConfig, dataset: PretrainingDataset | RecordDataset
) -> DataIdentity:
    data = config.data
    if isinstance(dataset, RecordDataset):
        flag, place = "--config.data.records_dir", data.records_dir
        return DataIdentity("records", flag, place, dataset.fingerprint)
    return _identify_corpus("corpus", data.corpus_dir, corpus)


def _identify_corpus(kind: str, place: str, corpus: Corpus) -> DataIdentity:
    metadata = corpus.metadata
    return DataIdentity(
        kind,
        f"--config.data.{kind}_dir",
        place,
        metadata.fingerprint,
        former_fingerprint=metadata.unsealed_fingerprint,
        weights=metadata.weights,
    )


def mean_flops_per_row(config: ExperimentConfig, phases: Sequence[Phase]) -> int:
    """Return the operations of a row, on average over a run, assuming one pair a row."""
    flops = [
        pretraining_flops_per_row(
            config.model,
            length=phase.data.max_seq_length,
            predictions=phase.data.max_predictions_per_seq,
            generator=config.generator,
        )
        for phase in phases
    ]
    return round(float(np.average(flops, weights=[phase.rows for phase in phases])))
