"""Metrics of classification and regression, and what a constant guess would get."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int, Real


def accuracy(
    predictions: Real[np.ndarray, " examples"], labels: Real[np.ndarray, " examples"]
) -> float:
    """The share of the examples whose class was predicted."""
    return float(np.mean(predictions == labels))


def binary_f1(
    predictions: Real[np.ndarray, " examples"], labels: Real[np.ndarray, " examples"]
) -> float:
    """The harmonic mean of precision and recall of class 1; 0 where both are 0 or undefined."""
    hits = np.sum((predictions == 1) & (labels == 1))
    marked = np.sum(predictions == 1) + np.sum(labels == 1)
    return float(2 * hits / marked) if marked else 0.0


def matthews_correlation(
    predictions: Int[np.ndarray, " examples"], labels: Int[np.ndarray, " examples"]
) -> float:
    """Matthews' correlation, for more than two classes Gorodkin's (2004); 0 where undefined."""
    num_classes = int(max(predictions.max(), labels.max())) + 1
    counts = confusion_matrix(predictions, labels, num_classes).astype(np.float64)
    total, actual, predicted = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    covariance = np.trace(counts) * total - actual @ predicted
    variances = (total**2 - actual @ actual) * (total**2 - predicted @ predicted)
    return float(covariance / np.sqrt(variances)) if variances else 0.0


def pearson_correlation(
    predictions: Real[np.ndarray, " examples"], labels: Real[np.ndarray, " examples"]
) -> float:
    """Pearson's correlation; 0 where either side is constant."""
    left = predictions.astype(np.float64) - np.mean(predictions, dtype=np.float64)
    right = labels.astype(np.float64) - np.mean(labels, dtype=np.float64)
    if np.all(predictions == predictions[0]) or np.all(labels == labels[0]):
        return 0.0
    # Divided first, so that squares neither overflow nor vanish.
    left, right = left / np.abs(left).max(), right / np.abs(right).max()
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


def spearman_correlation(
    predictions: Real[np.ndarray, " examples"], labels: Real[np.ndarray, " examples"]
) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; 0 where a side is constant."""
    ranks = [
        scipy.stats.rankdata(values, nan_policy="propagate") for values in (predictions, labels)
    ]
    return pearson_correlation(*ranks)


METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "f1": binary_f1,
    "matthews": matthews_correlation,
    "pearson": pearson_correlation,
    "spearman": spearman_correlation,
}


def compute_metrics(
    names: Sequence[str],
    predictions: Real[np.ndarray, " examples"],
    labels: Real[np.ndarray, " examples"],
) -> dict[str, float]:
    """Metrics by name; each is a share or a correlation, not in percent.

    Args:
        names: keys of `METRICS`.
        predictions: numbers of classes, or scores.
        labels: the same of what is right.
    """
    return {name: METRICS[name](predictions, labels) for name in names}


def constant_baseline(
    names: Sequence[str], labels: Real[np.ndarray, " examples"], num_classes: int
) -> dict[str, float]:
    """The best that each metric gets from the same prediction for every example.

    A run whose metric is no better has learned nothing. For correlations it is 0.

    Args:
        names: keys of `METRICS`.
        labels: numbers of classes, or scores.
        num_classes: how many classes there are; 0 for a regression.

    Example: for labels `1 1 0`, accuracy is 2/3 (always 1), F1 4/5 (always 1), Matthews 0.
    """
    guesses = range(num_classes) if num_classes else [0]
    return {
        name: max(METRICS[name](np.full_like(labels, guess), labels) for guess in guesses)
        for name in names
    }


def confusion_matrix(
    predictions: Int[np.ndarray, " examples"],
    labels: Int[np.ndarray, " examples"],
    num_classes: int,
) -> Int[np.ndarray, "classes classes"]:
    """How often the class of the row was taken for the class of the column.

    Example: predictions `0 1 1` and labels `0 0 1` give `[[1, 1], [0, 1]]`.
    """
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


class ClassScores(NamedTuple):
    """Figures of each class; 0 where nothing was predicted, or nothing is there."""

    precision: Float[np.ndarray, " classes"]
    recall: Float[np.ndarray, " classes"]
    f1: Float[np.ndarray, " classes"]


def class_scores(confusion: Int[np.ndarray, "classes classes"]) -> ClassScores:
    """Precision, recall and F1 of each class.

    Args:
        confusion: as `confusion_matrix` gives it.
    """
    hits = np.diag(confusion)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    return ClassScores(
        hits / np.maximum(predicted, 1),
        hits / np.maximum(actual, 1),
        2 * hits / np.maximum(predicted + actual, 1),
    )
