"""A frozen ALBERT as a teacher, which predicts every batch on the devices of the run."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable

import jax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from albert_jax.attention.dispatch import Attention
from albert_jax.batch import PretrainingBatch
from albert_jax.config import AlbertConfig
from albert_jax.devices.flops import prediction_flops_per_row
from albert_jax.devices.sharding import P
from albert_jax.interop.names import WeightsError
from albert_jax.interop.parameter_fitting import fit_parameters
from albert_jax.interop.stored_weights import flatten
from albert_jax.matmuls.dense_matmul import Matmuls
from albert_jax.model import AlbertForPreTraining
from albert_jax.pretrained import INITIALIZATION_SEED, open_weights
from albert_jax.tasks.distillation.teacher import compile_teacher
from albert_jax.tasks.models import AlbertForMaskedLM
from data_pipeline.config import Packing
from data_pipeline.corpus.reader import Corpus
from data_pipeline.errors import InputError
from experiments.distillation.compatibility import FLAG, check_rows, check_teacher_vocabulary
from experiments.run.config import ExperimentConfig
from experiments.run.curriculum import phases_of
from experiments.run.execution import resolve_execution
from experiments.run.interfaces import DeviceTeacher
from experiments.run.resumption import TEACHER_KIND, DataIdentity


class ModelTeacher:
    """Any ALBERT with a masked-LM head as a `Teacher`.

    It computes in the dtype of the run, with its own attention implementation, and processes its
    rows in as many micro-batches as the step.

    Args:
        config: the experiment, whose `distillation.teacher` names the model.
        corpus: the text, whose vocabulary the model must have.
        mesh: the devices.
        sequence_slots: those of the student, as for `resolve_execution`.

    Attributes:
        config: the model's sizes.
        identity: the model's parameters, by their fingerprint.
        sequence_slots: those of the model's attention.

    Raises:
        InputError: there is no such model, or it has another vocabulary, shorter rows or fewer
            segments than the run.
        CheckpointError: a workdir's checkpoint is damaged or missing.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        corpus: Corpus,
        mesh: Mesh,
        *,
        sequence_slots: int | Callable[[], int],
    ) -> None:
        source = config.distillation.teacher
        self.config, self._params = _read(source)
        check_teacher_vocabulary(source, self.config.vocab_size, corpus)
        lengths = [phase.data.max_seq_length for phase in phases_of(config)]
        check_rows(self.config.longest_row, self.config.type_vocab_size, lengths, source)
        self._distillation, self._mesh = config.distillation, mesh
        # Its heads and widths differ from the student's, and it has no gradients to round.
        run = dataclasses.replace(config.run, attention=Attention.AUTO, matmuls=Matmuls.SAME)
        execution, self._execution_line = resolve_execution(
            run,
            self.config,
            mesh,
            lengths=lengths,
            packed=config.data.packing is Packing.PACKED,
            sequence_slots=sequence_slots,
        )
        self.sequence_slots = execution.sequence_slots
        self._model = AlbertForPreTraining(self.config, dtype=run.dtype, execution=execution)
        self.identity = DataIdentity(
            TEACHER_KIND, FLAG, source, _fingerprint(self.config, self._params)
        )

    def describe(self) -> str:
        """Describe the teacher in one line."""
        parameters = sum(leaf.size for leaf in jax.tree.leaves(self._params))
        return (
            f"teacher: {self.identity.path}, {self.config.num_hidden_layers} layers of "
            f"{self.config.hidden_size}, {parameters:,} parameters, "
            f"{self._distillation.describe()}; {self._execution_line}"
        )

    def flops_per_row(self, *, length: int, predictions: int) -> int:
        """Return the operations of the teacher's forward pass for a row."""
        return prediction_flops_per_row(self.config, length=length, predictions=predictions)

    @functools.cached_property
    def on_devices(self) -> DeviceTeacher:
        """The parameters, copied to each device, and the function that compiles predictions."""
        replicated = NamedSharding(self._mesh, P())
        params = jax.jit(lambda x: x, out_shardings=replicated)(self._params)

        def compile(micro_batches: int) -> jax.stages.Wrapped:
            return compile_teacher(
                self._model, self._distillation, self._mesh, micro_batches=micro_batches
            )

        return DeviceTeacher(params, compile)

    def add_predictions(self, batch: PretrainingBatch, **_: object) -> PretrainingBatch:
        """Return the batch unchanged: predictions are added on the devices."""
        return batch


def _read(source: str) -> tuple[AlbertConfig, PyTree]:
    """Read the configuration and the parameters, without heads other than the masked-LM head."""
    try:
        stored = open_weights(source)
        model = AlbertForMaskedLM(stored.config)
        return stored.config, fit_parameters(
            stored, model, seed=INITIALIZATION_SEED, required=("",)
        )
    except WeightsError as error:
        hint = ""
        if "model_type must be albert" in str(error):
            hint = (
                "; experiments.distillation records what any other model of transformers predicts"
            )
        raise InputError(f"{FLAG}={source}: {error}{hint}") from error


def _fingerprint(config: AlbertConfig, params: PyTree) -> str:
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for name, leaf in sorted(flatten(params).items()):
        digest.update(f"{name} {leaf.shape}".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()
