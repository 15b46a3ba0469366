"""ALBERT in JAX and Flax."""

from albert_jax.config import AlbertConfig, HeadConfig, ProblemType
from albert_jax.model import AlbertForPreTraining, AlbertModel
from albert_jax.pretrained import PretrainedWeights, read_pretrained
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
    "PretrainedWeights",
    "ProblemType",
    "read_pretrained",
]
