from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats.proportion import proportion_confint

from bench.stats.metrics import compute
from bench.stats.operating import choose_threshold, mean_roc, operating_point, roc_curve, wilson

CASES = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=30).filter(
    lambda rows: len({row[0] for row in rows}) == 2
)


def arrays(rows):
    truth, score = np.array(rows, dtype=float).T
    return truth, score / 6


def rates(truth, score, threshold):
    called = score >= threshold
    return called[truth == 1].mean(), (~called)[truth == 0].mean()


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_wilsons_interval_equals_statsmodels(level):
    for n in (1, 5, 37, 940):
        for successes in sorted({0, 1, n // 3, n - 1, n}):
            got = wilson(successes, n, level)
            expected = proportion_confint(successes, n, 1 - level, method="wilson")
            assert (got.low, got.high) == pytest.approx(expected, abs=1e-12)
            assert 0 <= got.low <= got.value <= got.high <= 1
            mirrored = wilson(n - successes, n, level)
            assert (got.low, got.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low))


def test_wilson_of_no_subjects_is_undefined_and_invalid_counts_are_refused():
    assert np.isnan(wilson(0, 0)[:3]).all()
    assert wilson(0, 0).reason == "no subjects"
    for successes, n, level in ((3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)):
        with pytest.raises(ValueError):
            wilson(successes, n, level)


@given(CASES)
def test_youdens_threshold_is_the_lowest_of_the_best_by_brute_force(rows):
    truth, score = arrays(rows)
    got = choose_threshold(truth, score, "youden")
    n_positive, n_negative = int(truth.sum()), int((truth == 0).sum())

    def whole(threshold):  # sensitivity + specificity in whole numbers
        called = score >= threshold
        true, false = int(called[truth == 1].sum()), int(called[truth == 0].sum())
        return true * n_negative - false * n_positive

    best = max(whole(t) for t in score)
    assert got.value == min(t for t in score if whole(t) == best)
    assert (got.sensitivity, got.specificity) == rates(truth, score, got.value)


@given(CASES, st.sampled_from([0.0, 0.5, 0.8, 0.9, 0.95, 1.0]), st.booleans())
def test_a_required_rate_is_reached_with_the_best_other_rate(rows, x, sensitivity):
    truth, score = arrays(rows)
    name = "sensitivity" if sensitivity else "specificity"
    got = choose_threshold(truth, score, f"{name}>={x}")
    side = 0 if sensitivity else 1
    fitting = [t for t in score if rates(truth, score, t)[side] >= x]
    if not fitting:
        assert np.isnan(got.value)
        assert "no subject is called positive" in got.reason
        return
    assert got.value == (max(fitting) if sensitivity else min(fitting))
    assert rates(truth, score, got.value)[side] >= x


def test_a_rate_that_is_reached_exactly_counts():
    truth = np.array([1.0] * 10 + [0.0] * 10)
    score = np.concatenate([np.linspace(0.95, 0.05, 10), np.linspace(0.9, 0.0, 10)])
    got = choose_threshold(truth, score, "sensitivity>=0.9")
    assert got.sensitivity == 0.9
    assert choose_threshold(truth, score, "sensitivity>=.9") == got._replace(rule="sensitivity>=.9")


@pytest.mark.parametrize("rule", ["best", "sensitivity>=1.1", "sensitivity>0.9", "ppv>=0.9", ""])
def test_an_unknown_rule_is_refused(rule):
    with pytest.raises(ValueError, match="there is no rule"):
        choose_threshold([0, 1], [0.2, 0.8], rule)


def test_without_both_classes_or_with_broken_scores_there_is_no_threshold():
    for truth, score, text in (
        ([1, 1], [0.2, 0.8], "no subject is negative"),
        ([0, 1], [0.2, np.nan], "not finite"),
        ([0, 1], [0.2, 3.0], "no probabilities|not probabilities"),
        ([], [], "no subjects"),
    ):
        got = choose_threshold(truth, score)
        assert np.isnan(got.value)
        assert any(part in got.reason for part in text.split("|"))
        after = operating_point([0, 1], [0.2, 0.8], got.value)
        assert np.isnan([after.sensitivity.value, after.ppv.low]).all()
        assert after.npv.reason == "no threshold could be chosen"


def test_an_operating_point_follows_from_the_confusion_matrix():
    rng = np.random.default_rng(0)
    truth = (rng.random(200) < 0.3).astype(float)
    score = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1)
    got = operating_point(truth, score, 0.55, 0.9)
    (tn, fp), (fn, tp) = sk.confusion_matrix(truth, score >= 0.55)
    for part, k, n in (
        (got.sensitivity, tp, tp + fn),
        (got.specificity, tn, tn + fp),
        (got.ppv, tp, tp + fp),
        (got.npv, tn, tn + fn),
        (got.prevalence, tp + fn, 200),
    ):
        assert part == wilson(int(k), int(n), 0.9)
    assert got.sensitivity.value == compute("sensitivity", truth, score, 0.55).value


def test_a_proportion_of_no_subjects_is_undefined():
    got = operating_point([0, 1, 1], [0.1, 0.2, 0.3], 0.9)
    assert np.isnan(got.ppv.value)
    assert got.ppv.reason == "no subjects"
    assert got.npv.value == pytest.approx(1 / 3)
    broken = operating_point([0, 1], [0.1, np.nan], 0.5)
    assert np.isnan(broken.specificity.value)
    assert "not finite" in broken.specificity.reason


@given(CASES)
def test_the_roc_curve_equals_scikit_learns(rows):
    truth, score = arrays(rows)
    got = roc_curve(truth, score)
    fpr, tpr, thresholds = sk.roc_curve(truth, score, drop_intermediate=False)
    assert got.fpr == pytest.approx(fpr)
    assert got.tpr == pytest.approx(tpr)
    assert np.array_equal(got.thresholds, thresholds)
    assert np.trapezoid(got.tpr, got.fpr) == pytest.approx(compute("auc", truth, score).value)


def read_off(truth, score, x):
    """Return the highest point of the curve at a false positive rate, segment by segment."""
    fpr, tpr, _ = sk.roc_curve(truth, score, drop_intermediate=False)
    found = [y for f, y in zip(fpr, tpr, strict=True) if math.isclose(f, x, abs_tol=1e-15)]
    if found:
        return max(found)
    k = max(i for i in range(len(fpr)) if fpr[i] < x)
    return tpr[k] + (tpr[k + 1] - tpr[k]) * (x - fpr[k]) / (fpr[k + 1] - fpr[k])


@settings(max_examples=60)
@given(CASES, st.integers(0, 1000))
def test_the_mean_roc_is_read_off_vertically_with_a_t_interval_over_seeds(rows, seed):
    truth, score = arrays(rows)
    rng = np.random.default_rng(seed)
    scores = np.stack([score, rng.permutation(score), rng.random(len(score)).round(1)])
    got = mean_roc(truth, scores, n_points=11, level=0.9)
    values = np.array([[read_off(truth, row, x) for x in got.fpr] for row in scores])
    assert got.tpr == pytest.approx(values.mean(axis=0))
    half = stats.t.ppf(0.95, 2) * values.std(axis=0, ddof=1) / math.sqrt(3)
    assert got.low == pytest.approx(np.clip(values.mean(axis=0) - half, 0, 1))
    assert got.high == pytest.approx(np.clip(values.mean(axis=0) + half, 0, 1))
    again = mean_roc(truth, scores[::-1], n_points=11, level=0.9)
    assert (again.tpr, again.low) == (pytest.approx(got.tpr), pytest.approx(got.low))


def test_mean_roc_of_one_seed_or_of_an_undefined_run():
    truth, score = np.array([0.0, 1, 0, 1]), np.array([0.1, 0.4, 0.5, 0.9])
    one = mean_roc(truth, score[None])
    assert np.isfinite(one.tpr).all()
    assert np.isnan(one.low).all()
    assert one.reason == "one seed: no interval"
    broken = mean_roc(truth, np.stack([score, [0.1, np.nan, 0.5, 0.9]]))
    assert np.isnan([broken.tpr, broken.low]).all()
    assert "not finite" in broken.reason
    assert roc_curve([1, 1], [0.2, 0.3]).reason == "no subject is negative"
    for scores in (np.empty((0, 4)), score):
        with pytest.raises(ValueError, match="scores must have shape"):
            mean_roc(truth, scores)
    with pytest.raises(ValueError, match="two points"):
        mean_roc(truth, score[None], n_points=1)
