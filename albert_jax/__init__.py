"""ALBERT in JAX and Flax."""

from albert_jax.config import AlbertConfig, HeadConfig, ProblemType
from albert_jax.model import AlbertForPreTraining, AlbertModel
from albert_jax.task_models import (
    AlbertForConditionalSpan,
    AlbertForMaskedLM,
    AlbertForMultipleChoice,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
)

__all__ = [
    "AlbertConfig",
    "AlbertForConditionalSpan",
    "AlbertForMaskedLM",
    "AlbertForMultipleChoice",
    "AlbertForPreTraining",
    "AlbertForQuestionAnswering",
    "AlbertForSequenceClassification",
    "AlbertForTokenClassification",
    "AlbertModel",
    "HeadConfig",
    "ProblemType",
]
