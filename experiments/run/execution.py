"""The way a run computes, resolved for the devices at hand."""

import os
from collections.abc import Iterable

import jax
from etils import epath
from jax.sharding import Mesh

from albert_jax.attention.dispatch import Attention, AttentionWorkload, choose_attention
from albert_jax.config import AlbertConfig
from albert_jax.encoder import Execution
from albert_jax.training.parallel import make_mesh, rows_of_process
from data_pipeline.errors import InputError
from experiments.run.config import ReductionDtype, TrainingRunConfig


def prepare_devices(run: TrainingRunConfig) -> None:
    """Set what is read when the first device is used."""
    if run.deterministic_kernels:
        xla_flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{xla_flags} --xla_gpu_deterministic_ops=true"


def _check_reduction(run: TrainingRunConfig) -> None:
    if run.reduction_dtype is ReductionDtype.BFLOAT16 and jax.default_backend() == "cpu":
        raise InputError(
            "--config.run.reduction_dtype=bfloat16: XLA's compiler for CPUs does not survive such "
            "a reduction; float32 works here"
        )


def set_compilation_cache(run: TrainingRunConfig, workdir: epath.Path) -> None:
    """Set the directory of compiled programs: the run's, the environment's, or the workdir's."""
    place = run.compile_cache_dir or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    jax.config.update("jax_compilation_cache_dir", place or str(workdir / "compile_cache"))


def open_mesh(run: TrainingRunConfig, *batch_sizes: int) -> Mesh:
    """Return the mesh of a run.

    Args:
        run: its settings.
        batch_sizes: rows of its global batches.

    Raises:
        InputError: the devices or the rows of a micro-batch do not divide, or the devices cannot
            reduce gradients in the type that is set.
    """
    _check_reduction(run)
    try:
        mesh = make_mesh(fsdp=run.fsdp, tensor=run.tensor)
        for rows in batch_sizes:
            rows_of_process(rows // max(1, run.accumulation_steps), mesh)
    except ValueError as error:
        raise InputError(str(error)) from error
    return mesh


def resolve_execution(
    run: TrainingRunConfig,
    model: AlbertConfig,
    mesh: Mesh,
    *,
    lengths: Iterable[int],
    packed: bool,
    sequence_slots: int = 0,
) -> tuple[Execution, str]:
    """Return the execution of a run's models, and a log line about it.

    Args:
        run: its settings.
        model: sizes of the model.
        mesh: the devices.
        lengths: lengths of rows; empty where they may have any.
        packed: True if a row may hold several pairs.
        sequence_slots: as in `RunConfig`. Only cudnn on packed rows uses them.

    Raises:
        InputError: the attention that is set cannot be used here.
    """
    work = AttentionWorkload(
        model,
        run.dtype,
        tuple(sorted(set(lengths))),
        packed,
        jax.local_devices()[0],
        partitioned=mesh.shape["tensor"] > 1,
        slotted=packed and sequence_slots > 0,
    )
    try:
        attention, line = choose_attention(run.attention, work)
    except ValueError as error:
        raise InputError(f"--config.run.attention={run.attention}: {error}") from error
    slots = sequence_slots if work.slotted and attention is Attention.CUDNN else None
    if slots:
        line = f"{line}, {slots} sequence slots a row"
    elif sequence_slots:
        line = f"{line}; run.sequence_slots={sequence_slots} is for cudnn on packed rows: not used"
    unroll = resolve_unroll(run, model, work.device)
    return Execution(run.remat, attention, unroll, slots), line


def resolve_unroll(run: TrainingRunConfig, model: AlbertConfig, device: jax.Device) -> int:
    """Return the number of layers that are compiled as one.

    On a GPU, where the loop over layers copies what it keeps for the backward pass, all of them: on
    an H200 that made the step of base 1.42 times as fast. A CPU gains nothing that is worth the
    compiling.
    """
    return run.unroll or (model.num_hidden_layers if device.platform == "gpu" else 1)
