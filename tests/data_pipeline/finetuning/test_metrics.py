"""Metrics compared with their formulas, where they are undefined, and constant baselines."""

import numpy as np
import pytest
import scipy.stats

from data_pipeline.finetuning.metrics import (
    METRICS,
    class_f1,
    compute_metrics,
    confusion_matrix,
    constant_baseline,
)


def count(predictions: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def matthews(counts: np.ndarray) -> float:
    """Compute Gorodkin's (2004) equation 8 from a confusion matrix."""
    total, actual, predicted = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    covariance = np.trace(counts) * total - actual @ predicted
    variances = float((total**2 - actual @ actual) * (total**2 - predicted @ predicted))
    return covariance / np.sqrt(variances) if variances else 0.0


def pearson(left: np.ndarray, right: np.ndarray) -> float:
    left, right = left - left.mean(), right - right.mean()
    return left @ right / np.sqrt((left @ left) * (right @ right))


@pytest.mark.parametrize("seed", range(30))
def test_classification(seed):
    random = np.random.default_rng(seed)
    classes, size = int(random.integers(2, 5)), int(random.choice([1, 2, 5, 50]))
    labels = random.integers(0, classes, size)
    predictions = np.where(random.random(size) < 0.4, labels, random.integers(0, classes, size))
    if seed % 5 == 0:
        predictions[:] = seed % classes  # constant
    if seed % 7 == 0:
        labels[:] = seed % classes
    counts = count(predictions, labels, classes)
    hits, totals = np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1)
    f1 = np.divide(2 * hits, totals, out=np.zeros(classes), where=totals > 0)
    assert compute_metrics(("accuracy", "f1", "matthews"), predictions, labels) == {
        "accuracy": pytest.approx(hits.sum() / size, abs=1e-12),
        "f1": pytest.approx(f1[1], abs=1e-12),
        "matthews": pytest.approx(matthews(counts), abs=1e-12),
    }
    np.testing.assert_array_equal(confusion_matrix(predictions, labels, classes), counts)
    np.testing.assert_allclose(class_f1(predictions, labels, classes), f1, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [2, 40])
def test_correlations_with_ties_and_at_any_scale(seed, size):
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(size) % 6) / 5
    noisy = (labels + random.permutation(size) / size).round(1)
    noisy[0] += 0.1 * (noisy[0] == noisy[1])
    ranks = pearson(scipy.stats.rankdata(noisy), scipy.stats.rankdata(labels))
    for scale, shift in ((1.0, 0.0), (1e-170, 0.0), (1e170, 0.0), (1.0, 1e6)):
        predictions = noisy * scale + shift
        assert METRICS["spearman"](predictions, labels) == pytest.approx(ranks, abs=1e-12)
        expected = pearson(noisy, labels)
        assert METRICS["pearson"](predictions, labels) == pytest.approx(expected, abs=1e-9)


def test_float32_scores_lose_no_precision():
    labels = np.linspace(0, 5, 5000)
    predictions = (3.0 + 1e-5 * labels).astype(np.float32)
    expected = pearson(predictions.astype(np.float64), labels)
    assert METRICS["pearson"](predictions, labels) == pytest.approx(expected, abs=1e-12)
    assert METRICS["pearson"](predictions, labels.astype(np.float32)) == pytest.approx(
        pearson(predictions.astype(np.float64), labels.astype(np.float32).astype(np.float64)),
        abs=1e-12,
    )


def test_undefined_metrics():
    ones, labels = np.ones(4, int), np.array([0, 1, 1, 0])
    assert METRICS["matthews"](ones, labels) == METRICS["matthews"](labels, ones) == 0
    assert METRICS["matthews"](ones, ones) == 0
    assert METRICS["f1"](0 * ones, 0 * ones) == 0
    for name in ("pearson", "spearman"):
        assert METRICS[name](ones * 0.1, labels) == METRICS[name](labels, ones * 0.1) == 0
        assert METRICS[name](np.array([1.0]), np.array([2.0])) == 0  # one example is constant
        assert np.isnan(METRICS[name](np.array([np.nan, 1, 2, 3]), labels))
        assert np.isnan(METRICS[name](np.array([1, np.nan, 2, 3]), labels))
        assert np.isnan(METRICS[name](np.full(4, np.nan), labels))
    nearly_constant = 0.1 + 1e-16 * np.arange(4)
    assert -1 <= METRICS["pearson"](nearly_constant, labels) <= 1
    assert class_f1(np.array([0, 0]), np.array([0, 0]), 2).tolist() == [1, 0]


def test_the_constant_baseline():
    labels = np.array([1, 1, 0])
    assert constant_baseline(("accuracy", "f1", "matthews"), labels, 2) == {
        "accuracy": pytest.approx(2 / 3),
        "f1": pytest.approx(4 / 5),
        "matthews": 0,
    }
    assert constant_baseline(("accuracy",), np.array([2, 2, 0, 1]), 3) == {"accuracy": 0.5}
    scores = np.array([0.5, 4.0, 3.0])
    assert constant_baseline(("pearson", "spearman"), scores, 0) == {"pearson": 0, "spearman": 0}


def test_a_small_confusion_by_hand():
    confusion = confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
    assert confusion.tolist() == [[1, 1], [0, 1]]
