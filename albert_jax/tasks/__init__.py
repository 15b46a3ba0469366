"""Models, batches and objectives of pre-training and of fine-tuning tasks."""

from albert_jax.tasks.batches import (
    ClassificationBatch,
    EmbeddingBatch,
    MultipleChoiceBatch,
    SpanBatch,
    TaggingBatch,
)
from albert_jax.tasks.contrastive import contrastive_objective, ranking_objective
from albert_jax.tasks.distillation import DistillationConfig
from albert_jax.tasks.embedding import AlbertForEmbedding
from albert_jax.tasks.models import (
    AlbertForConditionalSpan,
    AlbertForMaskedLM,
    AlbertForMultipleChoice,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
)
from albert_jax.tasks.objectives import (
    classification_objective,
    conditional_span_objective,
    multiple_choice_objective,
    span_objective,
    tagging_objective,
)
from albert_jax.tasks.pretraining import pretraining_objective

__all__ = [
    "AlbertForConditionalSpan",
    "AlbertForEmbedding",
    "AlbertForMaskedLM",
    "AlbertForMultipleChoice",
    "AlbertForQuestionAnswering",
    "AlbertForSequenceClassification",
    "AlbertForTokenClassification",
    "ClassificationBatch",
    "DistillationConfig",
    "EmbeddingBatch",
    "MultipleChoiceBatch",
    "SpanBatch",
    "TaggingBatch",
    "classification_objective",
    "conditional_span_objective",
    "contrastive_objective",
    "multiple_choice_objective",
    "pretraining_objective",
    "ranking_objective",
    "span_objective",
    "tagging_objective",
]
