"""Trackers: TensorBoard, W&B, MLflow, and the choice of them by name."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {"selection": ["TrackerName", "check_trackers", "make_trackers", "parse_trackers"]},
)
