from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.stats.age_gap import fit_correction, fit_line, gap_summary
from bench.stats.metrics import compute


def cohort(seed, n=60, slope=0.6, noise=4.0):
    rng = np.random.default_rng(seed)
    age = rng.uniform(45, 85, n)
    return age, 24 + slope * age + rng.normal(0, noise, n)


def test_the_summary_is_that_of_an_ordinary_regression():
    age, prediction = cohort(1)
    model = sm.OLS(prediction - age, sm.add_constant(age)).fit()
    got = gap_summary(age, prediction, level=0.9)
    assert got.slope == pytest.approx(model.params[1])
    assert (got.low, got.high) == pytest.approx(tuple(model.conf_int(0.1)[1]))
    assert got.r == pytest.approx(stats.pearsonr(age, prediction - age).statistic)
    assert got.mae == pytest.approx(np.abs(prediction - age).mean())
    assert got.mean_gap == pytest.approx((prediction - age).mean())
    assert (got.youngest, got.oldest, got.n_subjects) == (age.min(), age.max(), 60)
    assert not got.reason


@pytest.mark.parametrize("seed", range(3))
def test_lines_equal_scipys(seed):
    x, y = cohort(seed, n=9)
    line, theirs = fit_line(x, y), stats.linregress(x, y)
    assert (line.slope, line.intercept) == pytest.approx((theirs.slope, theirs.intercept))
    half = stats.t.ppf(0.975, 7) * theirs.stderr
    assert (line.low, line.high) == pytest.approx((theirs.slope - half, theirs.slope + half))


def test_beheshtis_correction_subtracts_the_line_of_the_validation_gap():
    age, prediction = cohort(2)
    test_age, test_prediction = cohort(3)
    fitted = fit_correction("beheshti", age, prediction)
    slope, intercept = np.polyfit(age, prediction - age, 1)
    assert (fitted.slope, fitted.intercept) == pytest.approx((slope, intercept))
    got = fitted.apply(test_age, test_prediction)
    assert got == pytest.approx(test_prediction - slope * test_age - intercept)
    # On the validation subjects, the gap no longer depends on age.
    own = gap_summary(age, fitted.apply(age, prediction))
    assert (own.slope, own.mean_gap) == pytest.approx((0, 0), abs=1e-9)


def test_coles_correction_inverts_the_line_of_the_prediction_on_validation():
    age, prediction = cohort(4)
    test_age, test_prediction = cohort(5)
    fitted = fit_correction("cole", age, prediction)
    slope, intercept = np.polyfit(age, prediction, 1)
    got = fitted.apply(test_age, test_prediction)
    assert got == pytest.approx((test_prediction - intercept) / slope)
    assert fitted.n_validation == 60
    # Cole's correction does not use the ages of test subjects.
    assert np.array_equal(got, fitted.apply(test_age[::-1], test_prediction))


def test_beheshti_turns_a_constant_predictor_into_an_error_of_zero():
    """Therefore, corrected predictions must not be used to report accuracy."""
    age, test_age = cohort(6)[0], cohort(7)[0]
    constant = np.full(60, 63.0)
    assert compute("mae", test_age, constant).value > 8
    fitted = fit_correction("beheshti", age, constant)
    assert (fitted.slope, fitted.intercept) == pytest.approx((-1, 63))
    assert compute("mae", test_age, fitted.apply(test_age, constant)).value < 1e-9


def test_cole_is_undefined_if_the_prediction_does_not_depend_on_age():
    age, _ = cohort(8)
    for prediction in (
        np.full(60, 63.0),
        60 + np.random.default_rng(0).normal(0, 5, 60),
        100 - age,  # falls with age: inverting it would turn old into young
    ):
        fitted = fit_correction("cole", age, prediction)
        assert "does not follow age" in fitted.reason
        assert np.isnan(fitted.apply(age, prediction)).all()


def test_few_validation_subjects_are_flagged():
    assert fit_correction("beheshti", *cohort(9, n=29)).flags == (
        "fitted on 29 validation subjects",
    )
    assert fit_correction("beheshti", *cohort(9, n=30)).flags == ()


@pytest.mark.parametrize("method", ["beheshti", "cole"])
@pytest.mark.parametrize(
    ("age", "prediction", "reason"),
    [
        ([60.0], [61.0], "fewer than two"),
        ([60.0, 60, 60], [61.0, 62, 63], "constant"),
        ([60.0, 61, 62], [61.0, np.nan, 63], "not finite"),
        ([60.0, 70], [61.0, 69], "two subjects"),
    ],
)
def test_a_correction_that_cannot_be_fitted_is_nan_with_its_reason(method, age, prediction, reason):
    fitted = fit_correction(method, age, prediction)
    assert reason in fitted.reason
    assert np.isnan(fitted.apply([60.0, 70], [61.0, 69])).all()


def test_undefined_summaries_say_why():
    flat = gap_summary([60.0, 60, 60], [61.0, 62, 64])
    assert flat.mae == pytest.approx(7 / 3)
    assert np.isnan([flat.slope, flat.low, flat.high, flat.r]).all()
    assert "constant" in flat.reason
    broken = gap_summary([60.0, 61, 62], [61.0, np.inf, 64])
    assert np.isnan([broken.mae, broken.mean_gap, broken.slope, broken.r]).all()
    assert "not finite" in broken.reason
    nobody = gap_summary([], [])
    assert np.isnan(nobody.youngest)
    assert nobody.reason == "no subjects"
    shifted = gap_summary([60.1, 61.2, 65.7], [62.1, 63.2, 67.7])
    assert np.isnan(shifted.r)  # always two years more: the gap does not vary
    assert shifted.slope == pytest.approx(0, abs=1e-12)


def test_invalid_arguments_are_refused():
    age, prediction = cohort(10)
    with pytest.raises(ValueError, match="no correction 'both'"):
        fit_correction("both", age, prediction)
    with pytest.raises(ValueError, match="missing"):
        gap_summary([np.nan, 60], [60.0, 61])
    with pytest.raises(ValueError, match="level"):
        gap_summary(age, prediction, 95)
    with pytest.raises(ValueError, match="same length"):
        fit_line([1.0, 2], [1.0])


@given(seed=st.integers(0, 10**4), data=st.data())
def test_the_order_of_subjects_changes_nothing(seed, data):
    age, prediction = cohort(seed, n=12)
    order = list(data.draw(st.permutations(range(12))))
    assert gap_summary(age, prediction)[:-1] == pytest.approx(
        gap_summary(age[order], prediction[order])[:-1]
    )
    for method in ("beheshti", "cole"):
        plain = fit_correction(method, age, prediction)
        mixed = fit_correction(method, age[order], prediction[order])
        assert (plain.slope, plain.intercept) == pytest.approx((mixed.slope, mixed.intercept))
        assert bool(plain.reason) == bool(mixed.reason)
