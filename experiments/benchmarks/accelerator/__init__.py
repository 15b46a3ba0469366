"""The measurement of a whole accelerator in one command, and the recordings that it replays."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "measurement": ["measure_accelerator"],
        "recordings": ["find_recordings", "record_all"],
    },
)
