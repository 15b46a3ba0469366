"""Metrics against scikit-learn and SciPy, and what a constant guess gets."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from data_pipeline.finetuning import metrics as task_metrics
from data_pipeline.finetuning.metrics import METRICS, compute_metrics, constant_baseline


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3])
def test_classification_equals_scikit_learn(seed, classes):
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, classes, 50)
    predictions = np.where(draws.random(50) < 0.4, labels, draws.integers(0, classes, 50))
    found = compute_metrics(("accuracy", "matthews"), predictions, labels)
    assert found == {
        "accuracy": pytest.approx(sklearn.metrics.accuracy_score(labels, predictions), abs=1e-12),
        "matthews": pytest.approx(
            sklearn.metrics.matthews_corrcoef(labels, predictions), abs=1e-12
        ),
    }
    if classes == 2:
        expected = sklearn.metrics.f1_score(labels, predictions)
        assert METRICS["f1"](predictions, labels) == pytest.approx(expected, abs=1e-12)
    confusion = task_metrics.confusion_matrix(predictions, labels, classes)
    np.testing.assert_array_equal(confusion, sklearn.metrics.confusion_matrix(labels, predictions))
    scores = task_metrics.class_scores(confusion)
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predictions)
    np.testing.assert_allclose(scores, expected[:3], rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_correlations_equal_scipy_with_ties_and_at_any_scale(seed):
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 6, 40) / 5
    for scale, shift in ((1.0, 0.0), (1e-170, 0.0), (1e170, 0.0), (1.0, 1e6)):
        predictions = (labels + draws.normal(size=40)).round(1) * scale + shift
        spearman = scipy.stats.spearmanr(predictions, labels).statistic
        assert METRICS["spearman"](predictions, labels) == pytest.approx(spearman, abs=1e-12)
        pearson = np.corrcoef(predictions / scale, labels)[0, 1]
        assert METRICS["pearson"](predictions, labels) == pytest.approx(pearson, abs=1e-9)


def test_float32_scores_lose_nothing():
    labels = np.linspace(0, 5, 5000)
    predictions = (3.0 + 1e-5 * labels).astype(np.float32)
    expected = scipy.stats.pearsonr(predictions.astype(np.float64), labels).statistic
    assert METRICS["pearson"](predictions, labels) == pytest.approx(expected, abs=1e-12)


def test_where_a_metric_is_undefined():
    ones, labels = np.ones(4, int), np.array([0, 1, 1, 0])
    assert METRICS["matthews"](ones, labels) == 0
    assert METRICS["f1"](0 * ones, 0 * ones) == 0
    assert METRICS["pearson"](ones * 0.1, labels) == METRICS["spearman"](ones, labels) == 0
    assert np.isnan(METRICS["pearson"](np.array([np.nan, 1, 2, 3]), labels))
    assert np.isnan(METRICS["spearman"](np.array([1, np.nan, 2, 3]), labels))
    scores = task_metrics.class_scores(np.array([[2, 0], [0, 0]]))
    assert [list(values) for values in scores] == [[1, 0]] * 3


def test_the_constant_guess():
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
    confusion = task_metrics.confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
    assert confusion.tolist() == [[1, 1], [0, 1]]
