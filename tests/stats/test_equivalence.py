from __future__ import annotations

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.stats.weightstats import DescrStatsW

from bench.stats.equivalence import equivalence, verdict
from bench.stats.inference import compare
from bench.stats.measured import RunPredictions, measure_runs

estimates = st.floats(-20, 20)
errors = st.floats(0.01, 10)
freedom = st.floats(1, 1e6)
margins = st.floats(0.01, 20)
alphas = st.floats(0.001, 0.4)


def some(metric="mae"):
    """Return a comparison of runs, in which a test can replace numbers."""
    rng = np.random.default_rng(0)
    truth = rng.normal(60, 10, 40)
    arms = [truth + 5 * rng.normal(size=(3, 40)) for _ in range(2)]
    if metric == "auc":
        truth = (truth > 60).astype(float)
        arms = [1 / (1 + np.exp((60 - arm) / 5)) for arm in arms]
    return compare(*(measure_runs(metric, truth, RunPredictions(arm, (0, 1, 2))) for arm in arms))


ANY = some()


def given_as(improvement, se, df=50.0):
    return replace(ANY, improvement=improvement, se=se, df=df)


@pytest.mark.parametrize("margin", [0.2, 0.5, 1.0])
def test_the_p_values_are_those_of_two_one_sided_t_tests(margin):
    sample = np.random.default_rng(1).normal(0.1, 1, 30)
    expected, upper, lower = DescrStatsW(sample).ttost_mean(-margin, margin)
    got = equivalence(given_as(sample.mean(), stats.sem(sample), 29), margin)
    assert got.p == pytest.approx(expected)
    both = sorted([got.p_not_inferior, got.p_not_superior])
    assert both == pytest.approx(sorted([upper[1], lower[1]]))
    bounds = stats.t.interval(0.9, 29, sample.mean(), stats.sem(sample))
    assert (got.low, got.high) == pytest.approx(bounds)


@pytest.mark.parametrize(("estimate", "df"), [(0.0, 3.0), (0.4, 12.5), (-2.0, 400.0)])
def test_the_probability_inside_is_the_integral_over_the_margin(estimate, df):
    density = stats.t(df, estimate, 0.7).pdf
    expected, _ = integrate.quad(density, -1, 1, epsabs=1e-12)
    got = equivalence(given_as(estimate, 0.7, df), 1.0)
    assert got.p_inside == pytest.approx(expected, abs=1e-9)


@given(estimates, errors, freedom, margins, alphas)
def test_p_and_interval_agree(estimate, se, df, margin, alpha):
    got = equivalence(given_as(estimate, se, df), margin, alpha)
    gap = min(estimate + margin, margin - estimate) / se
    assume(abs(gap - stats.t.isf(alpha, df)) > 1e-6)  # on the edge rounding decides
    assert (got.p < alpha) == (-margin < got.low and got.high < margin)
    assert 0 < got.p <= 1
    assert 0 <= got.p_inside <= 1
    # The probability outside is between the larger one-sided tail and the sum of both.
    outside = 1 - got.p_inside
    assert got.p - 1e-9 <= outside <= got.p_not_inferior + got.p_not_superior + 1e-9


@given(estimates, errors, freedom, margins, alphas)
def test_swapping_the_arms_swaps_the_sides(estimate, se, df, margin, alpha):
    one, two = given_as(estimate, se, df), given_as(-estimate, se, df)
    a, b = equivalence(one, margin, alpha), equivalence(two, margin, alpha)
    assert (b.p, b.p_inside) == pytest.approx((a.p, a.p_inside))
    assert b.p_not_superior == pytest.approx(a.p_not_inferior)
    assert (b.low, b.high) == pytest.approx((-a.high, -a.low))
    words = verdict(one, margin, alpha)
    mirrored = verdict(two, margin, alpha)
    opposite = {"better": "worse", "worse": "better"}
    open_ = ("undecided", "not inferior")
    first, *rest = words.split(" ")
    if words in open_:
        assert mirrored in open_
    else:
        assert mirrored == " ".join([opposite.get(first, first), *rest])


@given(estimates, errors, freedom, margins, margins, alphas)
def test_a_wider_margin_is_easier_to_stay_within(estimate, se, df, one, two, alpha):
    narrow, wide = sorted((one, two))
    found = given_as(estimate, se, df)
    assert equivalence(found, wide, alpha).p <= equivalence(found, narrow, alpha).p
    inside = [equivalence(found, m, alpha).p_inside for m in (narrow, wide)]
    assert inside[0] <= inside[1] + 1e-12
    if verdict(found, narrow, alpha).startswith("equivalent"):
        assert verdict(found, wide, alpha).startswith("equivalent")


# With 50 df, the intervals of levels .95 and .90 are +- 2.009 se and +- 1.676 se.
@pytest.mark.parametrize(
    ("estimate", "se", "words"),
    [
        (4.0, 1.0, "better by more than the margin"),
        (2.9, 1.0, "better"),
        (2.1, 1.0, "better"),
        (0.8, 0.1, "equivalent within the margin (difference is real)"),
        (-0.8, 0.1, "equivalent within the margin (difference is real)"),
        (0.0, 0.5, "equivalent within the margin"),
        (0.1, 0.3, "equivalent within the margin"),
        (0.82, 0.1, "equivalent within the margin (difference is real)"),
        # The .95 interval exceeds the margin, the .90 interval does not.
        (0.815, 0.11, "equivalent within the margin (difference is real)"),
        (0.9, 0.1, "better"),
        (1.5, 1.0, "not inferior"),
        (0.6, 0.9, "not inferior"),
        (0.0, 1.0, "undecided"),
        (-1.5, 1.0, "undecided"),
        (-2.1, 1.0, "worse"),
        (-2.9, 1.0, "worse"),
        (-4.0, 1.0, "worse by more than the margin"),
        (math.nan, 1.0, "n/a"),
        (1.0, math.nan, "n/a"),
    ],
)
def test_the_verdict_in_words(estimate, se, words):
    assert verdict(given_as(estimate, se), margin=1.0) == words


def test_the_verdict_has_its_own_level():
    found = given_as(2.1, 1.0)
    assert verdict(replace(found, level=0.5, low=-9.0, high=9.0), 1.0) == "better"
    assert verdict(found, 1.0, alpha=0.01) == "not inferior"


@pytest.mark.parametrize("name", ["mae", "auc"])
def test_the_verdict_is_about_a_being_better_in_either_direction(name):
    found = some(name)
    better = found.improvement > 0
    got = equivalence(found, 1.0)
    assert (got.low + got.high) / 2 == pytest.approx(found.improvement)
    assert (got.p_not_inferior < got.p_not_superior) == better
    low, high = found.improvement_interval
    assert verdict(found, 1e-6) in (
        ("better by more than the margin", "worse by more than the margin")
        if low > 0 or high < 0
        else ("undecided",)
    )


def test_without_a_test_there_is_no_equivalence():
    truth = np.array([60.0, 70.0, 65.0])
    arm = measure_runs("mae", truth, RunPredictions(truth[None] + 1, (0,)))
    other = measure_runs("mae", truth, RunPredictions(truth[None] - [1.5, 2, 3], (0,)))
    found = compare(arm, other)
    assert verdict(found, 1.0) == "n/a"
    assert all(map(math.isnan, astuple(equivalence(found, 1.0))[2:]))


def test_a_p_too_small_for_a_float_is_not_zero():
    got = equivalence(given_as(0.0, 1e-6, 1e6), 1.0)
    assert 0 < got.p < 1e-300


@pytest.mark.parametrize("function", [equivalence, verdict])
def test_an_invalid_margin_or_alpha_is_refused(function):
    for margin in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="margin must be a positive number"):
            function(ANY, margin)
    for alpha in (0.0, 0.5, 5.0, math.nan):
        with pytest.raises(ValueError, match=r"alpha must be between 0 and 0\.5"):
            function(ANY, 1.0, alpha)
