"""How a run computes, resolved for the devices that it has."""

import os
from collections.abc import Callable, Iterable, Sequence

import jax
from etils import epath
from jax.sharding import Mesh

from albert_jax.attention import dispatch
from albert_jax.attention.dispatch import Attention, AttentionWorkload, choose_attention
from albert_jax.config import AlbertConfig
from albert_jax.devices.compile_cache import compile_cache_directory, use_compile_cache
from albert_jax.devices.described import is_described
from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.sharding import rows_of_process
from albert_jax.encoder import Execution, Remat
from albert_jax.fused_layers.verification import check_fused_layers, unsupported_reason
from albert_jax.matmuls import support
from albert_jax.matmuls.dense_matmul import Matmuls
from albert_jax.matmuls.verification import check_float8
from albert_jax.settings import FieldError
from data_pipeline.errors import InputError
from data_pipeline.remote import open_path
from experiments.run.compiler_options import compiler_options
from experiments.run.config import ReductionDtype, TrainingRunConfig
from experiments.run.workdir import CONFIG_FILE

COMPILE_CACHE = "compile_cache"  # in a workdir


def prepare_devices(run: TrainingRunConfig, workdir: epath.PathLike | None = None) -> None:
    """Set the options that are read when the first device is used.

    Args:
        run: its settings.
        workdir: the workdir, if the run will write to it. The compilation cache is then set now,
            so that programs compiled before the workdir is open, such as checks of the devices,
            are cached too. The exception is a cache inside a new workdir.
    """
    if run.deterministic_kernels:
        xla_flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{xla_flags} --xla_gpu_deterministic_ops=true"
    if workdir is not None and (_given_cache(run) or (open_path(workdir) / CONFIG_FILE).exists()):
        set_compilation_cache(run, open_path(workdir))


def _check_reduction(run: TrainingRunConfig, platform: str) -> None:
    if run.reduction_dtype is ReductionDtype.BFLOAT16 and platform == "cpu":
        raise InputError(
            "--config.run.reduction_dtype=bfloat16: XLA's compiler for CPUs does not survive such "
            "a reduction; float32 works here"
        )


def _check_determinism(run: TrainingRunConfig, platform: str) -> None:
    every = run.check_determinism_every
    if every is not None and platform == "gpu" and not run.deterministic_kernels:
        allowed = "none without --config.run.deterministic_kernels on GPUs"
        raise InputError(str(FieldError("--config.run.check_determinism_every", allowed, every)))


def _given_cache(run: TrainingRunConfig) -> str | None:
    return run.compile_cache_dir or os.environ.get("JAX_COMPILATION_CACHE_DIR")


def set_compilation_cache(run: TrainingRunConfig, workdir: epath.Path) -> None:
    """Set the compilation cache: the run's setting, else the environment's, else the workdir's.

    A cache of the workdir above, if it is in use already, takes the place of the workdir's.
    """
    place = _given_cache(run)
    above = str(workdir.parent / COMPILE_CACHE)
    if not place and compile_cache_directory() != above:
        place = str(workdir / COMPILE_CACHE)
    if place:
        use_compile_cache(place)


def open_mesh(
    run: TrainingRunConfig, *batch_sizes: int, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Return the mesh of a run.

    Args:
        run: its settings.
        batch_sizes: rows of its global batches.
        devices: JAX's or described ones; None: all devices of this run.

    Raises:
        InputError: the devices or the rows of a micro-batch do not divide evenly, the devices
            cannot reduce gradients in the type that is set or compute a step twice to the same
            bits, or the compiler rejects an option.
    """
    device = devices[0] if devices else jax.local_devices()[0]
    _check_reduction(run, device.platform)
    _check_determinism(run, device.platform)
    compiler_options(run, device)
    try:
        mesh = make_mesh(fsdp=run.fsdp, tensor=run.tensor, dcn_data=run.dcn_data, devices=devices)
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
    sequence_slots: int | Callable[[], int] = 0,
) -> tuple[Execution, str]:
    """Return the execution of a run's models, and a log line about it.

    Args:
        run: its settings.
        model: sizes of the model.
        mesh: the devices.
        lengths: lengths of rows; empty if they may have any.
        packed: True if a row may hold several pairs.
        sequence_slots: as in `RunConfig`, for cudnn on packed rows; or a function that finds them
            in the data, called only if they can be used.

    Raises:
        InputError: the attention, the fused layers or the matmuls that are set cannot be used here.
    """
    device = mesh.local_devices[0]
    work = AttentionWorkload(
        model,
        run.dtype,
        tuple(sorted(set(lengths))),
        packed,
        device,
        partitioned=mesh.shape["tensor"] > 1,
        described=is_described(device),
    )
    if callable(sequence_slots):
        attention, slots, line = _with_slots_of_data(run, work, sequence_slots)
    else:
        attention, slots, line = _with_slots(run, work, sequence_slots)
        if sequence_slots and not slots:
            unused = f"run.sequence_slots={sequence_slots} is for cudnn on packed rows: not used"
            line = f"{line}; {unused}"
    fused, note = resolve_fused_layers(run.fused_layers, work)
    line += note
    if run.matmuls is Matmuls.FLOAT8:
        line += _check_float8(run, work, mesh)
    elif run.matmuls is Matmuls.BFLOAT16:
        line += "; bfloat16 matmuls"
    unroll = resolve_unroll(run, model, work.device)
    return Execution(run.remat, attention, unroll, slots, fused, run.matmuls), line


def _with_slots(
    run: TrainingRunConfig, work: AttentionWorkload, slots: int
) -> tuple[Attention, int | None, str]:
    """Choose the attention for a number of slots a row; return None of them if it uses none."""
    work = work._replace(slotted=work.packed and slots > 0)
    try:
        attention, line = choose_attention(run.attention, work)
    except ValueError as error:
        raise InputError(f"--config.run.attention={run.attention}: {error}") from error
    if work.slotted and attention is Attention.CUDNN:
        return attention, slots, f"{line}, {slots} sequence slots a row"
    return attention, None, line


def _with_slots_of_data(
    run: TrainingRunConfig, work: AttentionWorkload, find_slots: Callable[[], int]
) -> tuple[Attention, int | None, str]:
    """Choose the attention, with slots if it is cudnn and correct with them on this device."""
    slots = find_slots() if _can_have_slots(run, work) else 0
    if not slots:
        return _with_slots(run, work, 0)
    try:
        attention, used, line = _with_slots(run, work, slots)
    except InputError as error:
        used, line = None, str(error.__cause__)
    if used is not None:
        return attention, used, line
    attention, used, plain = _with_slots(run, work, 0)
    rejection = f"not with {slots} sequence slots a row: {line.removeprefix('attention: ')}"
    return attention, used, f"{plain}; {rejection}"


def _can_have_slots(run: TrainingRunConfig, work: AttentionWorkload) -> bool:
    return (
        work.packed
        and run.attention in (Attention.AUTO, Attention.CUDNN)
        and run.accumulation_steps > 0  # else the rows that share slots are not known yet
        and dispatch.unsupported_reason(Attention.CUDNN, work._replace(slotted=True)) is None
    )


def resolve_fused_layers(wanted: bool | None, work: AttentionWorkload) -> tuple[bool, str]:
    """Return True if layers are fused, and what to append to the log line.

    Args:
        wanted: `run.fused_layers`; None: fuse if the workload supports it and results are right.
        work: the model and the device.

    Raises:
        InputError: fused layers are wanted but cannot be used here.
    """
    if wanted is False:
        return False, ""
    reason = unsupported_reason(work)
    if reason is None and work.described:
        return True, "; fused layers"
    if reason is None:
        try:
            difference = check_fused_layers(work)
        except ValueError as error:
            reason = str(error)
        else:
            words = "fused layers, within {:.1g} of the plain ones on this device"
            return True, f"; {words.format(difference)}"
    if wanted:
        allowed = f"false or none here ({reason})"
        raise InputError(str(FieldError("--config.run.fused_layers", allowed, True)))
    return False, f"; not fused layers: {reason}" if work.device.platform == "gpu" else ""


def execution_facts(execution: Execution) -> dict[str, str]:
    """Return what each host resolved for its own devices, to compare it between hosts."""
    resolved = {
        "attention": execution.attention,
        "sequence_slots": execution.sequence_slots,
        "fused_layers": execution.fused,
        "unroll": execution.unroll,
    }
    return {f"--config.run.{name} (resolved)": str(value) for name, value in resolved.items()}


def _check_float8(run: TrainingRunConfig, work: AttentionWorkload, mesh: Mesh) -> str:
    """Check float8 matmuls on the device, and return what to append to the log line."""
    model, device = work.config, work.device
    reason = support.unsupported_reason(model, run.dtype, device, tensor=mesh.shape["tensor"])
    if reason is None and work.described:
        return "; float8 matmuls"
    if reason is None:
        slow = ", emulated, slowly" if device.platform == "cpu" else ""
        try:
            error = check_float8(model, run.dtype, device, compiler_options(run))
            return f"; float8 matmuls{slow}, within {error:.1g} of float32 on this device"
        except ValueError as failure:
            reason = str(failure)
    raise InputError(str(FieldError("--config.run.matmuls", f"same here ({reason})", run.matmuls)))


def resolve_unroll(run: TrainingRunConfig, model: AlbertConfig, device: jax.Device) -> int:
    """Return the number of layers that are compiled as one.

    By default GPUs and CPUs compile all of them as one, because a loop over layers copies what it
    keeps for the backward pass. Without the loop, the step of base was 1.42 times as fast on an
    H200, and up to 1.26 times on an Intel CPU. On CPUs, each iteration even converts what all
    layers keep in bfloat16. With rematerialization a CPU loops: if layers are compiled as one, XLA
    for CPUs recomputes what it should, but too early to save memory.
    """
    looped = device.platform == "tpu" or (device.platform == "cpu" and run.remat is not Remat.NONE)
    return run.unroll or (1 if looped else model.num_hidden_layers)
