from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.stats.power import TTestPower

from bench.stats.inference import compare
from bench.stats.measured import RunPredictions, measure_runs
from bench.stats.power import (
    MOST,
    Components,
    components_of,
    gain_from_seeds,
    gain_from_subjects,
    power,
    project,
    projection_table,
    required_seeds,
    required_subjects,
    smallest_d_z,
    smallest_detectable,
)

variances = st.floats(0.001, 100)
components = st.builds(Components, variances, variances, variances)


def runs(seed: int, n: int = 60, n_seeds: int = 4, *, spread: float = 1.0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(60, 10, n)
    arms = []
    for _ in range(2):
        run = spread * rng.normal(size=(n_seeds, 1))
        arms.append(truth + run + 4 * rng.normal(size=n) + 2 * rng.normal(size=(n_seeds, n)))
    return truth, *arms


def compared(truth, a, b, name="mae", seeds_b=None, deterministic=(False, False)):
    seeds = tuple(range(len(a))), tuple(seeds_b or range(len(b)))
    return compare(
        *(
            measure_runs(name, truth, RunPredictions(arm, s, fixed))
            for arm, s, fixed in zip((a, b), seeds, deterministic, strict=True)
        )
    )


def half_width(found):
    return (found.high - found.low) / 2


# ------------------------------------------------------------------ projections


@pytest.mark.parametrize("name", ["mae", "rmse", "auc", "balanced_accuracy", "average_precision"])
@pytest.mark.parametrize("seed", range(5))
def test_at_its_own_numbers_the_projection_is_the_interval(name, seed):
    truth, a, b = runs(seed)
    if name in ("auc", "balanced_accuracy", "average_precision"):
        truth = (truth > 65).astype(float)
        a, b = (1 / (1 + np.exp((65 - x) / 5)) for x in (a, b))
    found = compared(truth, a, b, name)
    got = project(found, 4, 60)
    assert got.half_width == pytest.approx(half_width(found), rel=1e-12)
    assert (got.se, got.df) == pytest.approx((found.se, found.df), rel=1e-12)


def test_the_components_are_those_of_the_two_way_analysis_of_variance():
    truth, a, b = runs(3, n=30, n_seeds=5, spread=2.0)
    d = abs(a - truth) - abs(b - truth)
    s, n = d.shape
    ms_seed = n * d.mean(axis=1).var(ddof=1)
    ms_subject = s * d.mean(axis=0).var(ddof=1)
    rest = d - d.mean(axis=1, keepdims=True) - d.mean(axis=0, keepdims=True) + d.mean()
    ms_residual = (rest**2).sum() / ((s - 1) * (n - 1))
    assert ms_seed > ms_residual
    assert ms_subject > ms_residual
    got = components_of(compared(truth, a, b))
    assert got.residual == pytest.approx(ms_residual)
    assert got.seed == pytest.approx((ms_seed - ms_residual) / n)
    assert got.subject == pytest.approx((ms_subject - ms_residual) / s)
    assert got.smallest_share == 1


def test_a_projection_by_hand():
    # d = (0, 1), v = 1/4 (residual 1/12), C = 1, so shares are 2/15, 4/5, 1/15 of V = 5/4.
    truth = np.zeros(3)
    a = np.array([[5.0, 5.0, 2.0], [7.0, -5.0, 3.0]])
    b = np.array([[4.0, 4.0, -4.0], [-4.0, 4.0, 4.0]])
    found = compared(truth, a, b)
    parts = components_of(found)
    assert (parts.seed, parts.subject, parts.residual) == pytest.approx((1 / 3, 3.0, 1 / 2))
    got = project(found, 5, 12)
    runs_part = 1 / 15 + 1 / 120
    assert got.se == pytest.approx(math.sqrt(runs_part + 1 / 4))
    assert got.df == pytest.approx((runs_part + 1 / 4) ** 2 / (runs_part**2 / 4))
    assert got.half_width == pytest.approx(stats.t.ppf(0.975, got.df) * got.se)
    floor = project(found, math.inf, 3)
    assert (floor.se, floor.df) == (pytest.approx(1), math.inf)  # sqrt(C)
    assert floor.half_width == pytest.approx(stats.norm.ppf(0.975))


def test_the_table_has_numbers_of_seeds_as_rows_and_factors_as_columns():
    found = compared(*runs(1))
    table = projection_table(found)
    assert [[(p.n_seeds, p.n_subjects) for p in row] for row in table] == [
        [(s, 60), (s, 120), (s, 240)] for s in (3, 5, 10, 20)
    ]
    halves = np.array([[p.half_width for p in row] for row in table])
    assert (np.diff(halves, axis=0) < 0).all()
    assert table[1][2] == project(found, 5, 240)
    floors = projection_table(found, seeds=(1000, math.inf), factors=(1,))
    assert floors[0][0].half_width > floors[1][0].half_width
    assert floors[1][0].se == pytest.approx(math.sqrt(found.c))


def test_the_level_of_a_projection_is_that_of_the_comparison():
    truth, a, b = runs(2)
    wide = compare(
        *(measure_runs("mae", truth, RunPredictions(x, (0, 1, 2, 3))) for x in (a, b)), level=0.99
    )
    assert project(wide, 4, 60).half_width == pytest.approx(half_width(wide))


# ------------------------------------------------------------------ gains


@given(st.integers(0, 10**6))
def test_no_number_of_seeds_or_subjects_gains_more_than_is_said(seed):
    found = compared(*runs(seed, n=20, n_seeds=3))
    if found.p != found.p:
        return
    now = half_width(found)
    seeds, subjects = gain_from_seeds(found), gain_from_subjects(found)
    assert 0 <= seeds <= 1
    assert 0 <= subjects <= 1
    for factor in (1, 2, 10, 1e4):
        assert 1 - project(found, 3 * factor, 20).half_width / now <= seeds + 1e-9
        assert 1 - project(found, 3, 20 * factor).half_width / now <= subjects + 1e-3
    far = 1 - project(found, 3e7, 20).half_width / now
    assert far == pytest.approx(seeds, abs=2e-3)


def test_the_gain_from_seeds_by_hand():
    found = compared(*runs(1))
    assert found.c > 0
    floor = stats.norm.ppf(0.975) * math.sqrt(found.c)
    assert gain_from_seeds(found) == pytest.approx(1 - floor / half_width(found))


def test_the_gain_from_subjects_counts_the_degrees_of_freedom_that_are_lost():
    # Without the component for subjects (two thirds of the variance), only 2 df are left.
    found = replace(
        compared(*runs(1, n_seeds=3)),
        v_seed=1 / 3,
        c=2 / 3,
        se=1.0,
        df=18.0,
        low=-2.1009220402409602,
        high=2.1009220402409602,
    )
    found = replace(found, shares=found.shares._replace(seeds=1 / 3, subjects=2 / 3, residual=0.0))
    endless = stats.t.ppf(0.975, 2) * math.sqrt(1 / 3)
    assert endless > half_width(found)
    grid = [project(found, 3, 60 * f).half_width for f in np.geomspace(1, 1000, 3000)]
    assert gain_from_subjects(found) == pytest.approx(1 - min(grid) / half_width(found), abs=1e-4)
    assert gain_from_subjects(found) > 0


# ------------------------------------------------------------------ what has no seed variance


def test_one_fit_against_one_fit_gains_from_subjects_alone():
    truth, a, b = runs(4)
    found = compared(truth, a[:1], b[:1], deterministic=(True, True))
    parts = components_of(found)
    assert (parts.seed, parts.residual, parts.varies_with_seed) == (0, 0, False)
    assert project(found, 1, 60).half_width == pytest.approx(half_width(found))
    assert project(found, 1, 60).df == 59
    assert project(found, 20, 60).half_width == project(found, 1, 60).half_width
    assert project(found, 1, 240).se == pytest.approx(found.se / 2)
    assert (gain_from_seeds(found), gain_from_subjects(found)) == (0, 1)
    # This is the paired t test over subjects, for which statsmodels computes the power.
    losses = abs(a[0] - truth) - abs(b[0] - truth)
    d_z = 1.5 / losses.std(ddof=1)
    assert power(1.5, parts, 1, 80) == pytest.approx(TTestPower().power(d_z, 80, 0.05))
    needed = required_subjects(1.5, parts, 1)
    assert needed == math.ceil(TTestPower().solve_power(effect_size=d_z, alpha=0.05, power=0.8))
    assert required_seeds(1.5, parts, needed) == 1
    assert required_seeds(1.5, parts, needed - 1) is None


def test_one_fit_against_runs_is_projected_to_more_runs():
    truth, a, b = runs(5)
    found = compared(truth, a, b[:1], deterministic=(False, True))
    assert project(found, 4, 60).half_width == pytest.approx(half_width(found))
    assert project(found, 8, 60).half_width < half_width(found)


def test_the_smaller_class_counts_where_nothing_varies_with_the_seed():
    truth, a, b = runs(6, n=90)
    truth = (truth > np.quantile(truth, 0.7)).astype(float)
    a, b = (1 / (1 + np.exp((60 - x[:1]) / 5)) for x in (a, b))
    found = compared(truth, a, b, "auc", deterministic=(True, True))
    assert found.df == 26
    assert project(found, 1, 90).df == pytest.approx(26)
    assert project(found, 1, 180).df == pytest.approx(53)
    with pytest.raises(ValueError, match="two subjects in the smallest group, got 3"):
        project(found, 1, 3)


def test_a_covariance_below_zero_counts_as_zero():
    d = np.tile([1.0, -1.0], 20)
    found = compared(np.zeros(40), np.stack([5 + d, 5.5 - d]), np.full((2, 40), 5.0))
    assert found.c < 0
    assert components_of(found).subject == 0
    assert project(found, 2, 40).half_width == pytest.approx(half_width(found))
    assert gain_from_seeds(found) == 1
    assert project(found, math.inf, 40).half_width == 0


def test_comparisons_that_cannot_be_projected_are_refused_with_the_reason():
    truth, a, b = runs(7)
    unpaired = compared(truth, a, b, seeds_b=range(10, 14))
    once = compared(truth, a[:1], b[:1])
    same = compared(truth, a, a)
    for function in (components_of, gain_from_seeds, gain_from_subjects, projection_table):
        with pytest.raises(ValueError, match="not paired by seed"):
            function(unpaired)
        with pytest.raises(ValueError, match="unknown: one seed: no claim"):
            function(once)
        with pytest.raises(ValueError, match="zero variance: no p"):
            function(same)
    found = compared(truth, a, b)
    with pytest.raises(ValueError, match="n_seeds must be at least 2 for a test, got 1"):
        project(found, 1, 60)
    with pytest.raises(ValueError, match="two subjects in the smallest group"):
        project(found, 3, 1)


# ------------------------------------------------------------------ power


def power_by_integral(noncentrality, df, alpha=0.05):
    """Return P(|T| > t) for T = (Z + nc) / sqrt(chi2 / df), by numerical integration."""
    critical = stats.t.isf(alpha / 2, df)
    density = stats.chi(df).pdf

    def beyond(x):
        edge = critical * x / math.sqrt(df)
        return density(x) * (
            stats.norm.sf(edge - noncentrality) + stats.norm.cdf(-edge - noncentrality)
        )

    return integrate.quad(beyond, 0, math.sqrt(df) + 15, epsabs=1e-10, limit=200)[0]


@pytest.mark.parametrize("n_seeds", [2, 3, 5, 20])
@pytest.mark.parametrize("difference", [0.0, 0.3, 1.0, -2.5])
def test_power_is_that_of_the_noncentral_t(n_seeds, difference):
    parts = Components(seed=0.5, subject=20.0, residual=8.0)
    v = 0.5 / n_seeds + 8 / (n_seeds * 100)
    variance = v + 20 / 100
    df = variance**2 / (v**2 / (n_seeds - 1))
    expected = power_by_integral(abs(difference) / math.sqrt(variance), df)
    assert power(difference, parts, n_seeds, 100) == pytest.approx(expected, abs=1e-7)


def test_power_is_how_often_the_headline_test_rejects():
    # 800 experiments with known variance components.
    rng = np.random.default_rng(0)
    parts, n_seeds, n = Components(seed=0.5, subject=20.0, residual=8.0), 5, 100
    rejected = []
    for _ in range(800):
        d = (
            1.0
            + math.sqrt(parts.seed) * rng.normal(size=(n_seeds, 1))
            + math.sqrt(parts.subject) * rng.normal(size=n)
            + math.sqrt(parts.residual) * rng.normal(size=(n_seeds, n))
        )
        # Errors have the same sign and differ by d, so that losses differ by d.
        found = compared(np.zeros(n), 100 + d / 2, 100 - d / 2)
        rejected.append(found.p < 0.05)
    # The standard error of the rate is .018.
    assert np.mean(rejected) == pytest.approx(power(1.0, parts, n_seeds, n), abs=0.06)


@given(components, st.integers(2, 40), st.integers(2, 5000), st.floats(0, 30))
def test_power_is_a_probability_that_grows_with_the_difference_and_with_seeds(parts, s, n, d):
    found = power(d, parts, s, n)
    assert 0.05 - 1e-9 <= found <= 1 + 1e-9
    assert power(-d, parts, s, n) == found
    assert power(d * 1.1, parts, s, n) >= found - 1e-9
    assert power(d, parts, s + 1, n) >= found - 1e-9
    assert power(d, parts, s, n, alpha=0.01) <= found + 1e-9


@given(components, st.integers(2, 40), st.integers(2, 5000), st.sampled_from([0.5, 0.8, 0.95]))
def test_the_smallest_detectable_difference_has_the_power_asked_for(parts, s, n, wanted):
    difference = smallest_detectable(parts, s, n, power=wanted)
    assert power(difference, parts, s, n) == pytest.approx(wanted, abs=1e-6)


@given(components, st.integers(2, 2000), st.floats(0.05, 20))
def test_the_required_seeds_are_the_first_that_suffice(parts, n, difference):
    found = required_seeds(difference, parts, n)
    if found is None:
        assert power(difference, parts, MOST, n) < 0.8
    else:
        # The power with any number of seeds is at most that of a z test with the error sqrt(C).
        floor = difference / math.sqrt(parts.subject / n)
        assert stats.norm.sf(1.959964 - floor) + stats.norm.cdf(-1.959964 - floor) > 0.8 - 1e-6
        assert power(difference, parts, found, n) >= 0.8
        assert found == 2 or power(difference, parts, found - 1, n) < 0.8


@given(components, st.integers(2, 20), st.floats(0.05, 20))
def test_the_required_subjects_suffice_and_one_fewer_do_not(parts, s, difference):
    found = required_subjects(difference, parts, s)
    if found is None:
        assert all(power(difference, parts, s, n) < 0.8 for n in (2, 10, 100, 10**4, 10**6))
    else:
        assert power(difference, parts, s, found) >= 0.8
        assert found == 2 or power(difference, parts, s, found - 1) < 0.8


def test_no_number_of_seeds_gets_below_the_floor_of_the_test_set():
    parts = Components(seed=1.0, subject=25.0, residual=0.0)
    # With 100 subjects, sqrt(C) is .5, so the power for a difference of 1 is at most .516.
    assert required_seeds(1.0, parts, 100) is None
    assert required_seeds(1.0, parts, 400) is not None
    # With 3 seeds, the number of seeds limits the power.
    assert required_subjects(1.0, parts, 3) is None


@pytest.mark.parametrize(("n", "expected"), [(3, 3.26), (5, 1.68), (10, 1.00)])
def test_the_smallest_d_z_is_that_of_statsmodels(n, expected):
    assert smallest_d_z(n) == pytest.approx(expected, abs=0.005)
    assert TTestPower().power(smallest_d_z(n), n, 0.05) == pytest.approx(0.8)
    strict = smallest_d_z(n, 0.9, 0.01) * math.sqrt(n)
    assert power_by_integral(strict, n - 1, 0.01) == pytest.approx(0.9, abs=1e-6)


def test_two_pairs_have_a_smallest_d_z_too():
    assert smallest_d_z(2) == pytest.approx(11.6, abs=0.5)
    assert power_by_integral(smallest_d_z(2) * math.sqrt(2), 1) == pytest.approx(0.8, abs=1e-4)


def test_invalid_arguments_are_refused():
    parts = Components(1.0, 1.0, 1.0)
    for bad in ((-1.0, 1, 1), (0, 0, 0), (math.nan, 1, 1), (math.inf, 1, 1)):
        with pytest.raises(ValueError, match="variances must be non-negative"):
            Components(*bad)
    with pytest.raises(ValueError, match="smallest_share"):
        Components(1, 1, 1, smallest_share=0)
    with pytest.raises(ValueError, match="difference must be finite"):
        power(math.nan, parts, 3, 30)
    with pytest.raises(ValueError, match="alpha must be between"):
        power(1.0, parts, 3, 30, alpha=5)
    with pytest.raises(ValueError, match="power must be between alpha"):
        smallest_detectable(parts, 3, 30, power=0.05)
    with pytest.raises(ValueError, match="power must be between alpha"):
        required_seeds(1.0, parts, 30, power=80)
    with pytest.raises(ValueError, match="n_seeds must be at least 2"):
        required_subjects(1.0, parts, 1)
    with pytest.raises(ValueError, match="two pairs, got 1"):
        smallest_d_z(1)
