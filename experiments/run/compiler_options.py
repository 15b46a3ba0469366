"""XLA's options for the training step, by platform and by the run's own settings."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from albert_jax.matmuls.dense_matmul import Matmuls
from albert_jax.settings import FieldError
from albert_jax.training.parallel import CompilerOption
from data_pipeline.errors import InputError
from experiments.run.config import TrainingRunConfig

# By platform. Without Triton's matrix products, cuBLAS computes all of them and adds biases in the
# same call. That made the step of base 1.03 times as fast on an H200 and 1.035 times on an H100.
COMPILER_OPTIONS: dict[str, Mapping[str, CompilerOption]] = {
    "gpu": {"xla_gpu_enable_triton_gemm": False}
}
# Added with float8. By default XLA merges small matmuls that share an operand, such as query, key
# and value. Their scales differ, so the merged matmul would no longer be in float8.
FLOAT8_OPTIONS: dict[str, Mapping[str, CompilerOption]] = {
    "gpu": {"xla_gpu_dot_merger_threshold_mb": 0}
}


def compiler_options(
    run: TrainingRunConfig, device: jax.Device | None = None
) -> dict[str, CompilerOption]:
    """Return XLA's options for the training step: those of the platform and the run's own.

    Example: ``xla_gpu_autotune_level=2`` on a GPU is added to `COMPILER_OPTIONS` (and to
    `FLOAT8_OPTIONS`); a platform's option that this compiler does not know is left out.

    Args:
        run: its settings.
        device: one of its devices; None: this process's first.

    Raises:
        InputError: an option is not written ``name=value``, or the compiler rejects it.
    """
    device = jax.local_devices()[0] if device is None else device
    flag, given = "--config.run.compiler_options", run.compiler_options.strip()
    if given == "none":
        return {}
    platform, float8 = device.platform, run.matmuls is Matmuls.FLOAT8
    tables = COMPILER_OPTIONS, FLOAT8_OPTIONS if float8 else {}
    defaults = {n: value for table in tables for n, value in table.get(platform, {}).items()}
    options = {n: v for n, v in defaults.items() if _compiler_error(n, v, device) is None}
    for item in filter(None, given.split(",")):
        name, equals, text = (part.strip() for part in item.partition("="))
        if not (name and equals and text):
            allowed = "none, or name=value,name=value,..."
            raise InputError(str(FieldError(flag, allowed, given)))
        value = {"true": True, "false": False}.get(text.lower(), text)
        if error := _compiler_error(name, value, device):
            allowed = f"options of this compiler ({error})"
            raise InputError(str(FieldError(flag, allowed, given)))
        options[name] = value
    return options


@functools.cache
def _compiler_error(name: str, value: CompilerOption, device: jax.Device) -> str | None:
    """Return why the compiler for a device rejects an option, or None if it accepts it."""
    here = SingleDeviceSharding(device)
    try:
        zero = jax.jit(lambda: jnp.zeros(()), out_shardings=here, compiler_options={name: value})
        zero.lower().compile()
    except RuntimeError as error:
        return str(error).partition("\n")[0].removeprefix("INVALID_ARGUMENT: ").rstrip(".")
    return None
