"""Checkpoints: saved in the background, sealed with checksums, and verified before use."""

from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from albert_jax.training.checkpoint.integrity import CheckpointError, find_damage
    from albert_jax.training.checkpoint.manager import Checkpoints, NonFiniteStateError
    from albert_jax.training.checkpoint.selection import (
        newest_step,
        read_best,
        resolve_step,
        restore_params,
    )

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "integrity": ["CheckpointError", "find_damage"],
        "manager": ["Checkpoints", "NonFiniteStateError"],
        "selection": ["newest_step", "read_best", "resolve_step", "restore_params"],
    },
)
