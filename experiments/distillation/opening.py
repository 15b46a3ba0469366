"""The teacher that a run's settings name."""

from collections.abc import Callable

from jax.sharding import Mesh

from data_pipeline.corpus.reader import Corpus
from experiments.distillation.model_teacher import ModelTeacher
from experiments.distillation.recorded_teacher import RecordedTeacher, is_recording
from experiments.run.config import ExperimentConfig
from experiments.run.interfaces import Teacher
from experiments.run.resumption import DataIdentity


def open_teacher(
    config: ExperimentConfig,
    corpus: Corpus,
    data: DataIdentity,
    mesh: Mesh,
    *,
    sequence_slots: int | Callable[[], int],
) -> Teacher | None:
    """Open what `distillation.teacher` names: a recording, or a model; None if it is empty.

    Args:
        config: the experiment.
        corpus: the experiment's text.
        data: what its batches are made of.
        mesh: its devices.
        sequence_slots: those of the student, as for `resolve_execution`.

    Raises:
        InputError: it does not exist, or does not fit the run.
    """
    path = config.distillation.teacher
    if not path:
        return None
    if is_recording(path):
        return RecordedTeacher(config, data)
    return ModelTeacher(config, corpus, mesh, sequence_slots=sequence_slots)
