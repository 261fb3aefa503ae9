from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.stats import linregress

from bench.stats.bootstrap import ResampledCurve, draw_resamples, learning_curve, resample_curve
from bench.stats.curves import area, bound_words, data_efficiency, fit_curve, fit_interval
from bench.stats.inference import compare
from bench.stats.measured import RunPredictions, measure_runs
from bench.stats.metrics import compute

SIZES = (50, 100, 250, 500, 1000)


def flat_heights(means, resampled=None, sizes=SIZES, name="mae", **changes):
    means = np.asarray(means, dtype=float)
    rows = np.repeat(means[None], 50, axis=0) if resampled is None else np.asarray(resampled, float)
    made = ResampledCurve(name, tuple(sizes), means, rows, (0, 1, 2), False, 40, 7)
    return replace(made, **changes)


def arm(seed, effect=0.0, n_seeds=5, n=60, sizes=SIZES):
    """Return ages and an arm's runs at every size, with errors that decrease with n."""
    truth = np.random.default_rng(0).normal(60, 10, n)
    rng = np.random.default_rng(seed)
    spread = {size: 3 + effect + 40 * size**-0.5 for size in sizes}
    return truth, {
        size: RunPredictions(
            truth + spread[size] * rng.normal(size=(n_seeds, n)), tuple(range(n_seeds))
        )
        for size in sizes
    }


# the area


def test_the_area_is_the_trapezoid_on_log_n_of_every_run():
    truth, by_size = arm(1)
    got = area([measure_runs("mae", truth, runs) for runs in by_size.values()], SIZES)
    for seed in range(5):
        heights_ = [compute("mae", truth, by_size[n].predictions[seed]).value for n in SIZES]
        by_hand = np.trapezoid(heights_, np.log(SIZES)) / math.log(1000 / 50)
        assert got.values[seed] == pytest.approx(by_hand)


def test_the_area_of_a_constant_curve_is_its_value_and_shifts_carry_over():
    truth, by_size = arm(2)
    runs = by_size[50]
    level = area([measure_runs("mae", truth, runs)] * 3, (10, 20, 80))
    assert level.values == pytest.approx(measure_runs("mae", truth, runs).values)
    assert area([level, level], (3, 4)).deviations == pytest.approx(level.deviations)


def test_areas_are_compared_by_the_headline_test_and_swapping_arms_flips_the_sign():
    truth, a = arm(3)
    _, b = arm(4, effect=1.0)
    areas = [area([measure_runs("mae", truth, r) for r in x.values()], SIZES) for x in (a, b)]
    forth, back = compare(areas[0], areas[1]), compare(areas[1], areas[0])
    assert forth.improvement > 0
    assert forth.n_seeds == 5
    assert forth.n_subjects == 60
    assert (forth.difference, forth.p, forth.low) == pytest.approx(
        (-back.difference, back.p, -back.high)
    )


def test_an_area_needs_one_part_per_size_in_ascending_order():
    truth, by_size = arm(5)
    parts = [measure_runs("mae", truth, by_size[n]) for n in (50, 100)]
    for sizes, text in (((50,), "two sizes"), ((100, 50), "ascend"), ((1, 2, 3), "weights")):
        with pytest.raises(ValueError, match=text):
            area(parts, sizes)


# fits


@settings(max_examples=60)
@given(
    a=st.floats(0.5, 50),
    b=st.floats(0.1, 2),
    c=st.sampled_from([0.0, 0.5, 3.0]),
    higher=st.booleans(),
)
def test_a_planted_power_law_is_recovered(a, b, c, higher):
    n = np.array(SIZES, dtype=float)
    errors = a * n**-b + c
    fit = fit_curve(SIZES, 1 - errors if higher else errors, higher)
    assert fit.kind == "power law"
    assert (fit.b, fit.c) == pytest.approx((b, c), rel=1e-3, abs=1e-4 * a)
    assert fit.a == pytest.approx(a, rel=1e-2)
    assert fit.at(n) == pytest.approx(1 - errors if higher else errors, rel=1e-5, abs=1e-6)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), n_sizes=st.integers(5, 8))
def test_no_bounded_least_squares_from_many_starts_fits_noisy_curves_better(seed, n_sizes):
    rng = np.random.default_rng(seed)
    n = np.sort(rng.choice(np.arange(20, 2000), n_sizes, replace=False)).astype(float)
    errors = np.abs(20 * n ** -rng.uniform(0, 1) + rng.uniform(0, 5) + rng.normal(0, 0.5, n_sizes))
    fit = fit_curve(tuple(n), errors, False)
    ours = np.sum((fit.at(n) - errors) ** 2)
    for start in ((1, 0.2, 0), (1, 1, errors.min()), (errors.max(), 3, errors.mean())):
        scaled = n / n[0]
        theirs = least_squares(
            lambda x, s=scaled: x[0] * s ** -x[1] + x[2] - errors,
            start,
            bounds=([0, 0, 0], [np.inf, 5, np.inf]),
        )
        assert ours <= 2 * theirs.cost * (1 + 1e-6) + 1e-12


def test_two_to_four_sizes_give_the_line_in_log_log():
    rng = np.random.default_rng(0)
    for sizes in ((50, 100), (50, 100, 250), (50, 100, 250, 500)):
        errors = 20 * np.array(sizes) ** -0.4 * np.exp(rng.normal(0, 0.05, len(sizes)))
        line = linregress(np.log(sizes), np.log(errors))
        fit = fit_curve(sizes, errors, False)
        assert (fit.kind, fit.c) == ("log-log line", 0)
        assert (fit.a, fit.b) == pytest.approx((math.exp(line.intercept), -line.slope))
        higher = fit_curve(sizes, 1 - errors / 10, True)
        assert higher.at(50) == pytest.approx(1 - fit.at(50) / 10)


def test_curves_that_cannot_be_fitted_have_a_reason():
    for sizes, means, text in (
        ((50,), [3.0], "two sizes"),
        (SIZES, [3, 2, np.nan, 1, 1], "undefined"),
        ((50, 100), [0.3, 0.0], "positive errors"),
    ):
        fit = fit_curve(sizes, means, False)
        assert fit.kind == "none"
        assert text in fit.reason
        assert np.isnan(fit.at(100))
    assert fit_curve((50, 100), [0.7, 1.0], True).kind == "none"  # an AUC of 1 has no error
    with pytest.raises(ValueError, match="means must have shape"):
        fit_curve((50, 100), [1.0, 2, 3], False)
    with pytest.raises(ValueError, match="ascend"):
        fit_curve((100, 50), [1.0, 2], False)


def test_curves_that_do_not_decrease_or_decrease_at_once_are_flagged():
    rising = fit_curve(SIZES, [1.0, 2, 3, 4, 5], False)
    assert (rising.a, rising.b, rising.c) == (0, 0, 3)
    assert "does not fall" in rising.reason
    level = fit_curve(SIZES, [2.0] * 5, False)
    assert level.at([1, 1000]) == pytest.approx([2, 2])
    at_once = fit_curve(SIZES, [9.0, 1, 1, 1, 1], False)
    assert "at its bound" in at_once.reason


@pytest.mark.slow
def test_the_interval_of_a_fit_is_of_refits_in_every_resample():
    truth, by_size = arm(6)
    curve = learning_curve("mae", truth, by_size)
    made = resample_curve(curve, draw_resamples(5, 60, 199, 3))
    at = [30, 100, 3000]
    band = fit_interval(made, at)
    refits = [fit_curve(SIZES, row, False) for row in made.resampled]
    by_hand = np.sort([fit.at(at) for fit in refits], axis=0)
    assert band.low == pytest.approx(by_hand[4])  # of 199 the 5th from either end
    assert band.high == pytest.approx(by_hand[-5])
    exponents = sorted(fit.b for fit in refits)
    assert band.exponent == pytest.approx((exponents[4], exponents[-5]))
    plateaus = sorted(fit.c for fit in refits)
    assert band.plateau == pytest.approx((plateaus[4], plateaus[-5]), abs=1e-9)
    assert band.values == pytest.approx(band.fit.at(at))
    assert (band.n_boot, band.n_dropped, band.rng_seed) == (199, 0, 3)


def test_resamples_that_cannot_be_fitted_are_dropped_and_counted():
    rows = np.tile([[0.8, 0.9]], (60, 1)) + np.linspace(-0.01, 0.01, 60)[:, None]
    rows[:3, 1] = 1.0  # no error left: no logarithm
    rows[3] = np.nan
    band = fit_interval(flat_heights([0.8, 0.9], rows, (50, 100), "auc"), [50, 100])
    assert (band.n_boot, band.n_dropped) == (56, 4)
    assert band.low[0] < band.values[0] < band.high[0]
    nothing = fit_interval(flat_heights([0.8], rows[:, :1], (50,), "auc"), [50])
    assert nothing.fit.kind == "none"
    assert np.isnan(nothing.low).all()
    assert nothing.n_boot == 0


# data efficiency


def test_data_efficiency_of_hand_made_curves():
    a = flat_heights([8.0, 6, 5, 4, 3.5])
    b = flat_heights([9.0, 8, 6, 5, 4])
    halfway = data_efficiency(a, flat_heights([9.0, 7, 5, 4, 3]), 100)
    assert halfway.n == pytest.approx(math.sqrt(100 * 250))  # 6 lies half-way from 7 to 5
    assert halfway.ratio == pytest.approx(math.sqrt(2.5))
    exact = data_efficiency(a, b, 250)
    assert (exact.n, exact.low, exact.high) == (500, 500, 500)
    assert (exact.ratio, exact.ratio_interval) == (2, (2, 2))
    assert (exact.n_a, exact.n_min, exact.n_max) == (250, 50, 1000)
    assert (exact.n_boot, exact.n_dropped, exact.rng_seed) == (50, 0, 7)
    never = data_efficiency(a, b, 1000)
    assert (never.n, never.high) == (math.inf, math.inf)
    assert data_efficiency(b, a, 50).n == -math.inf
    assert data_efficiency(a, a, 50).n == 50
    assert data_efficiency(a, a, 1000).n == 1000


def test_the_first_crossing_going_up_counts():
    wavy = flat_heights([9.0, 5, 7, 5, 4])
    target = flat_heights([6.0] * 5)
    got = data_efficiency(target, wavy, 50)
    assert got.n == pytest.approx(math.exp(math.log(50) + 0.75 * math.log(2)))


def test_metrics_for_which_higher_is_better_are_reached_from_below():
    a = flat_heights([0.7, 0.8, 0.85, 0.9, 0.95], name="auc")
    b = flat_heights([0.6, 0.7, 0.9, 0.92, 0.93], name="auc")
    assert data_efficiency(a, b, 100).n == pytest.approx(math.sqrt(100 * 250))
    assert data_efficiency(a, b, 1000).n == math.inf
    assert data_efficiency(b, a, 50).n == -math.inf


def test_an_interval_may_be_open_and_excludes_undefined_resamples():
    b_rows = np.tile([9.0, 8, 6, 5, 4], (100, 1))
    b_rows[:30] += 2  # does not reach 5 any more
    b_rows[30:35] = np.nan
    a = flat_heights([8.0, 6, 5, 4, 3.5], np.tile([8.0, 6, 5, 4, 3.5], (100, 1)))
    got = data_efficiency(a, flat_heights([9.0, 8, 6, 5, 4], b_rows), 250)
    assert (got.n, got.low, got.high) == (500, 500, math.inf)
    assert (got.n_boot, got.n_dropped) == (95, 5)
    words = [bound_words(x, got.n_min, got.n_max) for x in (got.n, got.low, got.high)]
    assert words == ["500", "500", "> 1000"]


@pytest.mark.parametrize(
    ("n", "text"),
    [
        *[(610.4, "610"), (50, "50"), (1000, "1000"), (-math.inf, "< 50"), (math.inf, "> 1000")],
        *[(math.nan, "n/a"), (49.9, "< 50"), (1000.1, "> 1000")],
    ],
)
def test_sizes_in_words(n, text):
    assert bound_words(n, 50, 1000) == text


def test_an_undefined_curve_or_a_single_seed_gives_no_size():
    a, undefined = flat_heights([8.0, 6, 5, 4, 3.5]), flat_heights([9.0, np.nan, 6, 5, 4])
    got = data_efficiency(a, replace(undefined, reason="the metric is undefined at a size"), 100)
    assert np.isnan([got.n, got.low, got.high, got.ratio]).all()
    assert got.reason == "the metric is undefined at a size"
    alone = flat_heights([9.0, 8, 6, 5, 4], np.full((50, 5), np.nan), reason="one seed")
    single = data_efficiency(a, alone, 250)
    assert single.n == 500
    assert np.isnan([single.low, single.high]).all()
    assert single.reason == "one seed"


def test_other_sizes_of_a_may_be_undefined():
    a = flat_heights([8.0, 6, 5, 4, np.nan], reason="the metric is undefined at a size")
    got = data_efficiency(a, flat_heights([9.0, 8, 6, 5, 4]), 250)
    assert (got.n, got.low, got.reason) == (500, 500, "")
    few = [replace(a, resampled=a.resampled[:9]), flat_heights([9.0, 8, 6, 5, 4])]
    few[1] = replace(few[1], resampled=few[1].resampled[:9])
    assert data_efficiency(replace(few[0], reason=""), few[1], 250).reason == "too few resamples"


def test_data_efficiency_refuses_unpaired_curves():
    a = flat_heights([8.0, 6, 5, 4, 3.5])
    for other, text in (
        (replace(a, metric="rmse"), "cannot be compared"),
        (replace(a, rng_seed=8), "same resamples"),
        (replace(a, n_subjects=41), "same resamples"),
        (replace(a, seeds=(0, 1, 3)), "different seeds"),
    ):
        with pytest.raises(ValueError, match=text):
            data_efficiency(a, other, 50)
    assert data_efficiency(a, replace(a, seeds=(9,), one_fit=True), 50).n == 50
    with pytest.raises(ValueError, match=r"arm A \(50, 100, .*, got 60"):
        data_efficiency(a, a, 60)


@settings(max_examples=100)
@given(
    st.lists(st.integers(0, 20), min_size=5, max_size=5),
    st.integers(0, 20),
)
def test_the_crossing_equals_that_of_a_brute_force_search(errors, target):
    a = flat_heights([target] * 5)
    got = data_efficiency(a, flat_heights(errors), 50).n
    if errors[0] < target:
        expected = -math.inf
    elif errors[0] == target:
        expected = 50
    else:
        expected = math.inf
        for (n0, e0), (n1, e1) in pairwise(zip(SIZES, errors, strict=True)):
            if e0 > target >= e1:
                share = (e0 - target) / (e0 - e1)
                expected = n0 * (n1 / n0) ** share
                break
    assert got == pytest.approx(expected)
