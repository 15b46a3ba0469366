"""Models, batches and objectives of pre-training and of fine-tuning tasks."""

from albert_jax.tasks.batches import (
    ClassificationBatch,
    MultipleChoiceBatch,
    SpanBatch,
    TaggingBatch,
)
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
    "AlbertForMaskedLM",
    "AlbertForMultipleChoice",
    "AlbertForQuestionAnswering",
    "AlbertForSequenceClassification",
    "AlbertForTokenClassification",
    "ClassificationBatch",
    "MultipleChoiceBatch",
    "SpanBatch",
    "TaggingBatch",
    "classification_objective",
    "conditional_span_objective",
    "multiple_choice_objective",
    "pretraining_objective",
    "span_objective",
    "tagging_objective",
]
