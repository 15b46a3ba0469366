"""Configuration of heads: the labels of a classifier, and how a text becomes one vector."""

import dataclasses
from enum import StrEnum

from albert_jax.settings import FieldError, check_settings, setting

MOST_LABELS = 1_000_000  # far beyond what anyone has trained: refuses typos and damaged files


class ProblemType(StrEnum):
    """Meaning of a classifier's logits."""

    SINGLE_LABEL = "single_label_classification"
    MULTI_LABEL = "multi_label_classification"
    REGRESSION = "regression"


class Pooling(StrEnum):
    """The vector that represents a text."""

    POOLED = "pooled"  # the pooler's output, from [CLS]
    FIRST = "first"  # the last hidden state of [CLS]
    MEAN = "mean"  # the mean of the last hidden states, [CLS] and [SEP] included


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """Configuration of a classifier on top of the encoder. Regression has a single label.

    Raises:
        FieldError: a value is not allowed.
    """

    labels: tuple[str, ...] = setting(("LABEL_0", "LABEL_1"), "labels, in the order of the logits")
    problem_type: ProblemType = setting(ProblemType.SINGLE_LABEL, "meaning of the logits")
    classifier_dropout_prob: float = setting(
        0.1, "dropout of the classifier's input", at_least=0, below=1
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if not all(isinstance(label, str) for label in self.labels):
            raise FieldError("labels", "a list of texts", self.labels)
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise FieldError("labels", "at least one, all different", self.labels)
        if len(self.labels) > MOST_LABELS:
            raise FieldError("labels", f"at most {MOST_LABELS}", self.labels)

    @property
    def num_labels(self) -> int:
        """Number of logits."""
        return len(self.labels)
