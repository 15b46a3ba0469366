"""The platform that a function is traced for: on other platforms, a kernel is interpreted."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax

_DESCRIBED: ContextVar[str | None] = ContextVar("described platform", default=None)


def traced_platform() -> str:
    """Return the platform of the devices: cpu, gpu or tpu.

    It is that of described devices inside `traced_for`, that of `jax.default_device` if it is set,
    and that of this process otherwise.
    """
    config: Any = jax.config
    default = config.jax_default_device
    here = getattr(default, "platform", default) or jax.default_backend()
    return _DESCRIBED.get() or here


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Trace for devices that are described but not present.

    Args:
        platform: platform of these devices.
    """
    token = _DESCRIBED.set(platform)
    try:
        yield
    finally:
        _DESCRIBED.reset(token)
