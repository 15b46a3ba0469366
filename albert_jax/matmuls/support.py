"""Support of float8 by a model, its type and a device."""

from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from albert_jax.config import AlbertConfig

_ADA = 8.9  # the first compute capability with float8 units; Hopper has 9.0
_MULTIPLE = 16  # that divides all sizes of a matmul in float8


def unsupported_reason(
    config: AlbertConfig, dtype: DTypeLike, device: Any, *, tensor: int = 1
) -> str | None:
    """Return why the layers of a model cannot multiply in float8, or None if they can.

    Args:
        config: sizes of the model.
        dtype: dtype of everything else.
        device: one of the run's; CPUs emulate float8.
        tensor: number of devices that share each matmul.
    """
    capability = str(getattr(device, "compute_capability", ""))
    if device.platform != "cpu" and not _is_at_least(capability, _ADA):
        return (
            f"it needs NVIDIA GPUs with float8 units, from compute capability {_ADA} on "
            f"(Ada, Hopper), this is {device.device_kind}"
        )
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float32):
        return f"results are bfloat16 or float32, run.dtype is {jnp.dtype(dtype).name}"
    gated = ", or with a gate two thirds of it," if config.feed_forward.is_gated else ""
    widths = (
        ("hidden_size", config.hidden_size),
        (f"intermediate_size{gated}", config.feed_forward_width),
    )
    for name, size in widths:
        if size % (_MULTIPLE * tensor):
            shared = f" times run.tensor ({tensor})" if tensor > 1 else ""
            return f"model.{name} must be a multiple of {_MULTIPLE}{shared}, it is {size}"
    return None


def _is_at_least(capability: str, least: float) -> bool:
    """Compare a capability; return False if it is not a number, as for GPUs of other makers."""
    return capability.replace(".", "", 1).isdigit() and float(capability) >= least
