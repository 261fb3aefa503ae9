from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from bench.stats.metrics import METRICS, compute, metric_of, metrics_for, primary_metric

AGES = np.array([61.0, 72.5, 55.0, 80.0, 67.0])
GUESSES = np.array([60.0, 70.0, 60.0, 75.0, 70.0])


def binary_case(seed: int, n: int = 60, levels: int | None = None):
    """Return labels of both classes and probabilities, with few levels so that there are ties."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    truth[:2] = 0, 1
    score = rng.uniform(0.01, 0.99, n)
    return truth, score if levels is None else np.round(score * levels) / levels


def class_case(seed: int, n: int = 60, k: int = 4):
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    return truth, rng.dirichlet(np.ones(k), n)


@pytest.mark.parametrize("seed", range(4))
def test_regression_metrics_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth = rng.normal(60, 10, 40)
    guess = truth + rng.normal(1, 6, 40)
    assert compute("mae", truth, guess).value == pytest.approx(sk.mean_absolute_error(truth, guess))
    rmse = sk.root_mean_squared_error(truth, guess)
    assert compute("rmse", truth, guess).value == pytest.approx(rmse)
    assert compute("r2", truth, guess).value == pytest.approx(sk.r2_score(truth, guess))
    assert compute("r", truth, guess).value == pytest.approx(np.corrcoef(truth, guess)[0, 1])


@pytest.mark.parametrize("levels", [None, 3, 20])
@pytest.mark.parametrize("seed", range(4))
def test_binary_metrics_agree_with_scikit_learn(seed, levels):
    truth, score = binary_case(seed, levels=levels)
    guess = (score >= 0.4).astype(int)
    expected = {
        "auc": sk.roc_auc_score(truth, score),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, guess),
        "accuracy": sk.accuracy_score(truth, guess),
        "sensitivity": sk.recall_score(truth, guess),
        "specificity": sk.recall_score(truth, guess, pos_label=0),
        "average_precision": sk.average_precision_score(truth, score),
        "mcc": sk.matthews_corrcoef(truth, guess),
        "f1": sk.f1_score(truth, guess),
        "brier": sk.brier_score_loss(truth, score),
    }
    if levels is None:
        expected["log_loss"] = sk.log_loss(truth, score)
    for name, value in expected.items():
        assert compute(name, truth, score, threshold=0.4).value == pytest.approx(value), name


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=12))
def test_average_precision_is_its_steps_in_exact_arithmetic(pairs):
    truth, score = np.array(pairs).T
    if truth.min() == truth.max():
        return
    expected, recall = Fraction(0), Fraction(0)
    for threshold in sorted(set(score.tolist()), reverse=True):
        called = truth[score >= threshold]
        new = Fraction(int(called.sum()), int(truth.sum()))
        expected += (new - recall) * Fraction(int(called.sum()), len(called))
        recall = new
    got = compute("average_precision", truth, score / 6).value
    assert got == pytest.approx(float(expected), rel=1e-12)


def test_average_precision_of_a_constant_score_is_the_prevalence():
    assert compute("average_precision", [1, 0, 0, 0], [0.3] * 4).value == 0.25
    assert compute("average_precision", [1, 1, 0], [0.9, 0.8, 0.1]).value == 1


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 300)), min_size=1, max_size=40))
def test_ece_is_its_definition_in_exact_arithmetic(pairs):
    # With scores k/300, multiples of 20 are edges of bins and belong to the upper bin.
    bins: dict[int, list[Fraction]] = {}
    for label, k in pairs:
        bins.setdefault(min(k * 15 // 300, 14), []).append(Fraction(k, 300) - label)
    expected = sum(abs(sum(gaps)) for gaps in bins.values()) / len(pairs)
    truth, k = np.array(pairs).T
    assert compute("ece", truth, k / 300).value == pytest.approx(float(expected), abs=1e-12)


def test_ece_puts_a_probability_of_one_in_the_last_bin():
    # One bin with .95 and 1: the sums are 1.95 (predicted) and 1 (observed) for two subjects.
    assert compute("ece", [1, 0], [1.0, 0.95]).value == pytest.approx(0.475)
    assert compute("ece", [1, 1], [1 + 5e-7, 1.0]).value == pytest.approx(0, abs=1e-6)
    assert compute("ece", [0, 0], [-5e-7, 0.0]).value == pytest.approx(0, abs=1e-6)


def test_f1_without_a_true_positive_is_zero_where_there_are_positives():
    assert compute("f1", [1, 0], [0.1, 0.2]) == (0.0, "")
    assert compute("f1", [1, 0], [0.1, 0.9]) == (0.0, "")


@pytest.mark.parametrize("seed", range(4))
def test_metrics_of_several_classes_agree_with_scikit_learn(seed):
    truth, score = class_case(seed)
    guess = score.argmax(axis=1)
    balanced = sk.balanced_accuracy_score(truth, guess)
    assert compute("balanced_accuracy", truth, score).value == pytest.approx(balanced)
    assert compute("accuracy", truth, score).value == pytest.approx((guess == truth).mean())
    assert compute("log_loss", truth, score).value == pytest.approx(sk.log_loss(truth, score))
    for k in range(4):
        one_against_rest = sk.roc_auc_score(truth == k, score[:, k])
        assert compute(f"auc_{k}", truth, score).value == pytest.approx(one_against_rest)


def test_a_probability_at_the_threshold_is_positive():
    assert compute("sensitivity", [1, 0], [0.5, 0.1]).value == 1
    assert compute("specificity", [1, 0], [0.9, 0.5]).value == 0


def test_a_confident_error_has_a_finite_log_loss():
    assert compute("log_loss", [1, 0], [0.0, 0.0]).value == pytest.approx(-math.log(1e-7) / 2)


def test_an_auc_below_one_half_is_not_flipped():
    assert compute("auc", [1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9]).value == 0


@pytest.mark.parametrize(
    ("name", "truth", "prediction", "reason"),
    [
        ("r2", [60, 60, 60], [59, 60, 61], "the target is constant"),
        ("r2", [60], [59], "the target is constant"),
        ("r", [60, 60, 60], [59, 60, 61], "the target is constant"),
        ("r", [60, 61, 62], [0.1 + 0.2, 0.3, 0.3], "the prediction is constant"),
        ("mae", [], [], "no subjects"),
        ("mae", [60, 61], [60, np.nan], "1 of 2 predicted numbers are not finite"),
        ("auc", [0, 1], [0.2, np.inf], "1 of 2 predicted numbers are not finite"),
        ("auc", [1, 1], [0.2, 0.3], "no subject is negative"),
        ("auc", [0, 0], [0.2, 0.3], "no subject is positive"),
        ("average_precision", [1, 1], [0.2, 0.3], "no subject is negative"),
        ("average_precision", [0, 0], [0.2, 0.3], "no subject is positive"),
        ("mcc", [1, 1], [0.2, 0.7], "no subject is negative"),
        ("mcc", [0, 1], [0.2, 0.3], "every subject is put into one class"),
        ("mcc", [0, 1], [0.6, 0.7], "every subject is put into one class"),
        ("f1", [0, 0], [0.2, 0.3], "no subject is positive"),
        ("f1", [0, 0], [0.2, 0.9], "no subject is positive"),
        ("f1", [1, 1], [0.2, 0.9], "no subject is negative"),
        ("ece", [], [], "no subjects"),
        ("ece", [0, 1], [-2.0, 3.0], "the predictions are not probabilities"),
        ("sensitivity", [0, 0], [0.2, 0.3], "no subject is positive"),
        ("specificity", [1, 1], [0.2, 0.3], "no subject is negative"),
        ("balanced_accuracy", [1, 1], [0.2, 0.3], "no subject is of class 0"),
        ("balanced_accuracy", [0, 1], np.full((2, 3), 1 / 3), "no subject is of class 2"),
        ("auc_2", [0, 1], np.full((2, 3), 1 / 3), "no subject is positive"),
        ("brier", [0, 1], [-2.0, 3.0], "the predictions are not probabilities"),
    ],
)
def test_an_undefined_metric_is_nan_with_its_reason(name, truth, prediction, reason):
    score = compute(name, truth, prediction)
    assert math.isnan(score.value)
    assert score.reason == reason


def test_a_class_that_is_absent_leaves_the_other_metrics_defined():
    assert compute("accuracy", [1, 1], [0.2, 0.8]) == (0.5, "")
    assert compute("sensitivity", [1, 1], [0.2, 0.8]) == (0.5, "")


@pytest.mark.parametrize(
    ("name", "truth", "prediction", "words"),
    [
        ("maee", AGES, GUESSES, "no metric 'maee'; choose one of mae"),
        ("mae", AGES, GUESSES[:3], "needs truth"),
        ("mae", [60, np.nan], [60, 61], "missing values"),
        ("mae", AGES, np.ones((5, 3)) / 3, "is for regression"),
        ("auc", [0, 1, 2], np.ones((3, 3)) / 3, "is for binary"),
        ("auc_0", [0, 1], [0.1, 0.9], "is for multiclass"),
        ("mcc", [0, 1, 2], np.ones((3, 3)) / 3, "is for binary"),
        ("auc_3", [0, 1, 2], np.ones((3, 3)) / 3, "the classes are 0 to 2"),
        ("accuracy", [0, 1], [[0.1], [0.9]], r"of shape \(N,\), got \(N, 1\)"),
        ("accuracy", [0, 2], [0.1, 0.9], "class indices from 0 to 1"),
        ("accuracy", [0, 0.5], [0.1, 0.9], "class indices"),
    ],
)
def test_arguments_that_do_not_match_are_refused(name, truth, prediction, words):
    with pytest.raises(ValueError, match=words):
        compute(name, truth, prediction)


def test_every_task_has_its_metrics_with_the_primary_one_first():
    assert metrics_for("regression") == ("mae", "rmse", "r2", "r")
    assert metrics_for("classification", 2) == (
        *("auc", "balanced_accuracy", "accuracy", "sensitivity", "specificity"),
        *("average_precision", "mcc", "f1", "brier", "log_loss", "ece"),
    )
    assert metrics_for("classification", 3) == (
        *("balanced_accuracy", "accuracy", "log_loss"),
        *("auc_0", "auc_1", "auc_2"),
    )
    cases = [("regression", 0), ("classification", 2), ("classification", 3)]
    assert [primary_metric(*case) for case in cases] == ["mae", "auc", "balanced_accuracy"]
    with pytest.raises(ValueError, match="at least two classes"):
        metrics_for("classification", 1)
    with pytest.raises(ValueError, match="got 'survival'"):
        metrics_for("survival")


def test_one_against_rest_columns_are_neither_ranked_nor_tested():
    assert not metric_of("auc_1").ranked
    assert not metric_of("auc_1").tested
    assert {m.name for m in METRICS.values() if not m.tested} == {"mcc", "f1", "ece"}
    unranked = {"sensitivity", "specificity", "ece"}
    assert {m.name for m in METRICS.values() if not m.ranked} == unranked


def test_the_declared_direction_is_that_of_a_better_prediction():
    # Predictions that are moved towards the truth are better by every metric.
    rng = np.random.default_rng(0)
    ages = rng.normal(60, 10, 50)
    labels, chance = binary_case(1)
    for name in METRICS:
        truth = ages if "regression" in metric_of(name).tasks else labels
        poor = rng.normal(60, 10, 50) if truth is ages else chance
        near = 0.2 * poor + 0.8 * truth
        change = compute(name, truth, near).value - compute(name, truth, poor).value
        assert change * (1 if metric_of(name).higher_is_better else -1) > 0, name


wild = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(st.data())
def test_any_float32_prediction_gives_a_number_or_a_reason(data):
    n = data.draw(st.integers(0, 6))
    prediction = data.draw(arrays(np.float64, n, elements=wild))
    for kind, elements in (
        ("regression", st.floats(0, 120, width=32)),
        ("classification", st.sampled_from([0.0, 1.0])),
    ):
        truth = data.draw(arrays(np.float64, n, elements=elements))
        for name in metrics_for(kind, 2):
            score = compute(name, truth, prediction)
            assert math.isfinite(score.value) != bool(score.reason)
