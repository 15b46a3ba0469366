"""Distillation on masked positions: its loss, and a teacher that predicts beside the student."""

from albert_jax.tasks.distillation.config import DistillationConfig
from albert_jax.tasks.distillation.loss import distillation_loss, distillation_metrics
from albert_jax.tasks.distillation.teacher import compile_teacher, predict_top_tokens

__all__ = [
    "DistillationConfig",
    "compile_teacher",
    "distillation_loss",
    "distillation_metrics",
    "predict_top_tokens",
]
