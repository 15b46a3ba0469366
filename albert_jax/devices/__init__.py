"""Devices: mesh, shardings, peak speed, collectives, and described ones to compile for."""

from typing import TYPE_CHECKING

from albert_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from albert_jax.devices.mesh import make_mesh
    from albert_jax.devices.prefetch import BatchQueue
    from albert_jax.devices.sharding import place_batch, rows_of_process, state_shardings

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "mesh": ["make_mesh"],
        "prefetch": ["BatchQueue"],
        "sharding": ["place_batch", "rows_of_process", "state_shardings"],
    },
)
