"""Distillation: teachers that run beside the student, and recordings of any others."""

from albert_jax.lazy_exports import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "model_teacher": ["ModelTeacher"],
        "opening": ["open_teacher"],
        "recorded_teacher": ["RecordedTeacher"],
        "recorder": ["record"],
    },
)
