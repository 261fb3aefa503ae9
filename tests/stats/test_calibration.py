from __future__ import annotations

import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve

from bench.stats.calibration import PROBABILITY_FLOOR, calibration_line, reliability
from bench.stats.metrics import compute
from bench.stats.operating import wilson


def classifier(seed, n=300, slope=0.5, shift=0.4):
    """Return truth, and probabilities that are too extreme and too low."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 2, n)
    return (rng.random(n) < expit(shift + slope * x)).astype(float), expit(x)


def test_the_reliability_curve_is_that_of_scikit_learn():
    truth, p = classifier(1)
    got = reliability(truth, p)
    observed, predicted = calibration_curve(truth, p, n_bins=15)
    filled = got.counts > 0
    assert got.predicted[filled] == pytest.approx(predicted)
    values = np.array([each.value for each in got.observed])
    assert values[filled] == pytest.approx(observed)
    assert got.counts.sum() == 300
    for each, n in zip(got.observed, got.counts, strict=True):
        if n:
            assert each == wilson(each.successes, int(n))


def test_bins_hold_their_lower_edge_and_the_last_one_holds_1():
    p = np.array([0, 0.1999999, 0.2, 0.4, 0.9999, 1.0])
    got = reliability([0, 0, 1, 0, 1, 1], p, n_bins=5)
    assert got.counts.tolist() == [2, 1, 1, 0, 2]
    assert np.isnan(got.predicted[3])
    assert np.isnan(got.observed[3].value)
    assert got.observed[4].value == 1
    assert got.edges == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


def test_the_calibration_error_is_the_curves_mean_distance_from_the_diagonal():
    truth, p = classifier(2)
    got = reliability(truth, p)
    gaps = [
        abs(each.value - predicted) * n
        for each, predicted, n in zip(got.observed, got.predicted, got.counts, strict=True)
        if n
    ]
    assert compute("ece", truth, p).value == pytest.approx(sum(gaps) / 300)


@pytest.mark.parametrize("seed", range(4))
def test_intercept_and_slope_are_those_of_statsmodels(seed):
    truth, p = classifier(seed)
    design = sm.add_constant(logit(np.clip(p, 1e-7, 1 - 1e-7)))
    both = sm.Logit(truth, design).fit(disp=0, tol=1e-12)
    one = sm.GLM(truth, np.ones(300), family=sm.families.Binomial(), offset=logit(p)).fit(tol=1e-12)
    got = calibration_line(truth, p, level=0.9)
    for ours, value, bounds in (
        (got.intercept, both.params[0], both.conf_int(0.1)[0]),
        (got.slope, both.params[1], both.conf_int(0.1)[1]),
        (got.in_the_large, one.params[0], one.conf_int(0.1)[0]),
    ):
        assert ours.value == pytest.approx(value, rel=1e-6)
        assert (ours.low, ours.high) == pytest.approx(tuple(bounds), rel=1e-5)


def test_calibrated_probabilities_have_slope_1_and_intercept_0():
    """Two probabilities that equal the observed proportions maximise the likelihood."""
    p = np.repeat([0.25, 0.75], 40)
    truth = np.concatenate([np.ones(10), np.zeros(30), np.ones(30), np.zeros(10)])
    got = calibration_line(truth, p)
    assert (got.intercept.value, got.slope.value) == pytest.approx((0, 1), abs=1e-9)
    assert got.in_the_large.value == pytest.approx(0, abs=1e-9)
    # The Fisher information of two groups of 40, computed by hand with logit(.75) = log 3.
    x, weight = np.log(3), 40 * 0.25 * 0.75
    half = 1.959963984540054 / np.sqrt(2 * weight)
    assert got.intercept.high == pytest.approx(half)
    assert got.slope.high - 1 == pytest.approx(half / x)


@pytest.mark.parametrize(
    ("truth", "p", "reason"),
    [
        ([1, 1, 1], [0.2, 0.5, 0.9], "no subject is negative"),
        ([0, 1, 0], [0.5, 0.5, 0.5], "constant"),
        ([0, 0, 1, 1], [0.1, 0.4, 0.6, 0.9], "separates"),
        ([1, 1, 0, 0], [0.1, 0.4, 0.6, 0.9], "separates"),
        ([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9], "separates"),  # they meet in one value only
        ([0, 1, 0], [0.5, np.nan, 0.5], "not finite"),
        ([0, 1, 0], [0.5, 1.5, 0.5], "not probabilities"),
        ([], [], "no subjects"),
    ],
)
def test_a_line_without_a_finite_estimate_is_nan_with_its_reason(truth, p, reason):
    got = calibration_line(truth, p)
    assert reason in got.reason
    assert np.isnan([*got.intercept, *got.slope, *got.in_the_large]).all()


def test_saturated_probabilities_are_clipped_and_still_fitted():
    truth = np.array([0.0] * 50 + [1.0] * 50)
    p = np.where(np.arange(100) % 25 == 0, 1 - truth, truth)  # four confident errors
    got = calibration_line(truth, p)
    edge = logit(1 - 1e-7)
    assert got.slope.value == pytest.approx(np.log(48 / 2) / edge, rel=1e-5)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(4, 40),
    scale=st.sampled_from([0.01, 1.0, 15.0]),
)
def test_any_probabilities_give_the_maximum_likelihood_or_a_reason(seed, n, scale):
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.5).astype(float)
    p = expit(rng.normal(0, scale, n))
    got = calibration_line(truth, p)
    assume(not got.reason)
    x = logit(np.clip(p, 1e-7, 1 - 1e-7))
    # The score equations hold at the maximum.
    residual = truth - expit(got.intercept.value + got.slope.value * x)
    assert residual.sum() == pytest.approx(0, abs=1e-6 * n)
    assert residual @ x == pytest.approx(0, abs=1e-6 * n * max(1, np.abs(x).max()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        order = rng.permutation(n)
        again = calibration_line(truth[order], p[order])
    assert again.slope.value == pytest.approx(got.slope.value, rel=1e-6, abs=1e-9)


def test_probabilities_are_clipped_where_the_log_loss_clips_them():
    assert compute("log_loss", [1.0], [0.0]).value == pytest.approx(-np.log(PROBABILITY_FLOOR))


def test_undefined_curves_are_empty_with_the_reason():
    got = reliability([0, 1], [0.2, np.nan])
    assert got.counts.sum() == 0
    assert np.isnan(got.predicted).all()
    assert "not finite" in got.reason
    with pytest.raises(ValueError, match="at least one bin"):
        reliability([0, 1], [0.2, 0.3], n_bins=0)
    with pytest.raises(ValueError, match="level"):
        calibration_line([0, 1], [0.2, 0.3], level=2)
