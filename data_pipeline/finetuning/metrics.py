"""Metrics of classification and regression, and their constant baselines."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Real


def accuracy(
    predictions: Real[np.ndarray, " examples"], labels: Real[np.ndarray, " examples"]
) -> float:
    """Compute the fraction of examples whose class was predicted correctly."""
    return float(np.mean(predictions == labels))


def binary_f1(
    predictions: Int[np.ndarray, " examples"], labels: Int[np.ndarray, " examples"]
) -> float:
    """Compute the F1 of class 1, or 0 if precision and recall are 0 or undefined."""
    return float(class_f1(predictions, labels, 2)[1])


def matthews_correlation(
    predictions: Int[np.ndarray, " examples"], labels: Int[np.ndarray, " examples"]
) -> float:
    """Compute Matthews' correlation, or Gorodkin's (2004) for more classes; 0 if undefined."""
    if _is_constant(predictions) or _is_constant(labels):
        return 0.0
    import sklearn.metrics

    return float(sklearn.metrics.matthews_corrcoef(labels, predictions))


def pearson_correlation(
    predictions: Real[np.ndarray, " examples"], labels: Real[np.ndarray, " examples"]
) -> float:
    """Compute Pearson's correlation in float64; 0 if either side is constant."""
    if _is_constant(predictions) or _is_constant(labels):
        return 0.0
    import scipy.stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.NearConstantInputWarning)
        correlation = scipy.stats.pearsonr(predictions.astype(float), labels.astype(float))
    return float(correlation.statistic)


def spearman_correlation(
    predictions: Real[np.ndarray, " examples"], labels: Real[np.ndarray, " examples"]
) -> float:
    """Compute Spearman's rank correlation, with the mean rank for ties; 0 if a side is constant."""
    if _is_constant(predictions) or _is_constant(labels):
        return 0.0
    import scipy.stats

    return float(scipy.stats.spearmanr(predictions, labels).statistic)


def _is_constant(values: Real[np.ndarray, " examples"]) -> bool:
    return bool(np.all(values == values[0]))


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
    """Compute metrics by name; each is a fraction or a correlation, not a percentage.

    Args:
        names: keys of `METRICS`.
        predictions: class indices, or scores.
        labels: class indices, or scores.
    """
    return {name: METRICS[name](predictions, labels) for name in names}


def constant_baseline(
    names: Sequence[str], labels: Real[np.ndarray, " examples"], num_classes: int
) -> dict[str, float]:
    """Compute the best value of each metric that a constant prediction can reach.

    A run whose metric is no better has learned nothing. For correlations the value is 0.

    Args:
        names: keys of `METRICS`.
        labels: class indices, or scores.
        num_classes: the number of classes; 0 for a regression.

    Example: for labels `1 1 0`, accuracy is 2/3 (always 1), F1 is 4/5 (always 1), Matthews is 0.
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
    """Count how often the class of each row was predicted as the class of each column.

    Example: predictions `0 1 1` and labels `0 0 1` give `[[1, 1], [0, 1]]`.
    """
    import sklearn.metrics

    return sklearn.metrics.confusion_matrix(labels, predictions, labels=range(num_classes))


def class_f1(
    predictions: Int[np.ndarray, " examples"],
    labels: Int[np.ndarray, " examples"],
    num_classes: int,
) -> Float[np.ndarray, " classes"]:
    """Compute the F1 of each class, or 0 if the class is in neither predictions nor labels."""
    import sklearn.metrics

    return sklearn.metrics.f1_score(
        labels, predictions, labels=range(num_classes), average=None, zero_division=0.0
    )
