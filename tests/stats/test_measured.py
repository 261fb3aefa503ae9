from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stats.inference import compare
from bench.stats.measured import RunPredictions, combine, measure_runs
from bench.stats.metrics import compute

SIZES = (24, 48, 96)


def ages(seed: int, n: int = 30, n_seeds: int = 4):
    """Return truth, and predictions (arm, size, seed, subject) at three training sizes."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(60, 10, n)
    subject = rng.normal(size=n)
    runs = rng.normal(scale=0.5, size=(2, 3, n_seeds, 1))
    noise = rng.normal(size=(2, 3, n_seeds, n))
    return truth, truth + (5 - np.arange(3)[:, None, None]) * (subject + runs + noise)


def measured(truth, predictions, seeds=None, name="mae", deterministic=False):
    seeds = range(len(predictions)) if seeds is None else seeds
    return measure_runs(
        name, truth, RunPredictions(np.asarray(predictions), tuple(seeds), deterministic)
    )


def k_of(found):
    return found.deviations @ found.deviations.T


# ------------------------------------------------------------------ average precision


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=25),
    st.sampled_from([1, 7, 1e-3]),
)
def test_average_precision_without_each_subject_is_what_is_computed_without_it(pairs, scale):
    truth = np.array([float(label) for label, _ in pairs])
    score = np.array([k for _, k in pairs]) * scale / 50
    if truth.min() == truth.max():
        return
    n = len(truth)
    without = np.array(
        [
            compute("average_precision", np.delete(truth, i), np.delete(score, i)).value
            for i in range(n)
        ]
    )
    got = measured(truth, score[None], name="average_precision").deviations[0]
    np.testing.assert_allclose(
        got, math.sqrt((n - 1) / n) * (without - without.mean()), rtol=1e-9, atol=1e-12
    )


def test_the_variance_of_average_precision_is_that_over_test_sets():
    # Compare the jackknife with the variance over 400 test sets of 300 for a fixed network.
    rng = np.random.default_rng(0)
    values, variances = [], []
    for _ in range(400):
        truth = (rng.uniform(size=300) < 0.3).astype(float)
        score = 1 / (1 + np.exp(-(1.5 * truth + rng.normal(size=300))))
        found = measured(truth, score[None], name="average_precision")
        values.append(found.values[0])
        variances.append(k_of(found)[0, 0])
    assert np.mean(variances) == pytest.approx(np.var(values, ddof=1), rel=0.25)


# ------------------------------------------------------------------ sums over training sizes


def test_the_area_of_a_learning_curve_is_measured_from_the_weighted_losses():
    truth, arms = ages(0)
    weights = np.array([0.5, 1.0, 0.5]) * math.log(2)
    areas = [
        combine([measured(truth, size) for size in arm], weights, disjoint=False) for arm in arms
    ]
    for area, arm in zip(areas, arms, strict=True):
        losses = np.tensordot(weights, abs(arm - truth), axes=1)  # (seed, subject)
        np.testing.assert_allclose(area.values, losses.mean(axis=1))
        np.testing.assert_allclose(k_of(area), np.cov(losses) / len(truth))
        assert area.reasons == ("",) * 4
        assert area.seeds == (0, 1, 2, 3)
    # The result equals the comparison of two arms with these losses as errors.
    plain = [np.tensordot(weights, abs(arm - truth), axes=1) + truth for arm in arms]
    expected = compare(*(measured(truth, each) for each in plain))
    got = compare(*areas)
    for field in ("difference", "se", "df", "p", "low", "high", "c", "d_z"):
        assert getattr(got, field) == pytest.approx(getattr(expected, field)), field
    assert (got.n_subjects, got.n_seeds) == (30, 4)


def test_one_part_of_weight_one_is_that_part():
    truth, arms = ages(1)
    part = measured(truth, arms[0, 0])
    same = combine([part], [1.0], disjoint=False)
    other = measured(truth, arms[1, 0])
    assert compare(same, other) == compare(part, other)


@given(st.integers(0, 10**6), st.floats(-3, 3), st.floats(-3, 3))
def test_a_sum_is_linear_in_its_weights(seed, one, two):
    truth, arms = ages(seed, n=12, n_seeds=2)
    parts = [measured(truth, size) for size in arms[0]]
    left = combine(parts, [one, two, 1.0], disjoint=False)
    right = combine(parts, [2 * one, 2 * two, 2.0], disjoint=False)
    np.testing.assert_allclose(right.values, 2 * left.values, atol=1e-9)
    np.testing.assert_allclose(right.deviations, 2 * left.deviations, atol=1e-9)
    np.testing.assert_allclose(right.sizes, 2 * left.sizes)


# ------------------------------------------------------------------ contrasts of groups


@pytest.mark.parametrize("name", ["mae", "rmse", "auc", "average_precision"])
def test_the_contrast_of_two_groups_has_the_sum_of_their_variances(name):
    truth, arms = ages(2, n=80)
    predictions = arms[0, 0]
    if name in ("auc", "average_precision"):
        truth = (truth > 60).astype(float)
        predictions = 1 / (1 + np.exp(-(predictions - 60) / 10))
    group = np.arange(80) % 3 == 0
    parts = [measured(truth[g], predictions[:, g], name=name) for g in (group, ~group)]
    contrast = combine(parts, [1, -1], disjoint=True)
    np.testing.assert_allclose(contrast.values, parts[0].values - parts[1].values)
    np.testing.assert_allclose(k_of(contrast), k_of(parts[0]) + k_of(parts[1]))
    assert len(contrast.truth) == 80
    assert contrast.n_smallest == min(part.n_smallest for part in parts)


def test_the_interaction_of_arm_and_group_is_welchs_where_runs_do_not_vary():
    truth, arms = ages(3, n=60)
    a, b = (np.repeat(arm[0][:1], 3, axis=0) for arm in arms)
    groups = np.arange(60) < 25, np.arange(60) >= 25
    sums = [
        combine([measured(truth[g], arm[:, g]) for g in groups], [1, -1], disjoint=True)
        for arm in (a, b)
    ]
    got = compare(*sums)
    losses = abs(a[0] - truth) - abs(b[0] - truth)
    means = [losses[g].mean() for g in groups]
    variances = [losses[g].var(ddof=1) / g.sum() for g in groups]
    assert got.difference == pytest.approx(means[0] - means[1])
    assert got.se == pytest.approx(math.sqrt(sum(variances)))
    assert got.df == 24  # the smaller group - 1


def test_rounding_errors_are_judged_by_the_parts_and_not_by_their_difference():
    # Errors are 5 in A and 4 in B up to rounding, so contrasts are 0 up to rounding errors.
    rng = np.random.default_rng(0)
    truth = rng.normal(60, 10, 40)
    a, b = (
        truth + error + np.zeros((3, 1)) + rng.normal(scale=1e-15, size=(3, 40)) * 30
        for error in (5, 4)
    )
    groups = np.arange(40) < 20, np.arange(40) >= 20
    sums = [
        combine([measured(truth[g], arm[:, g]) for g in groups], [1, -1], disjoint=True)
        for arm in (a, b)
    ]
    assert 0 < abs(sums[0].values).max() < 1e-13
    got = compare(*sums)
    assert math.isnan(got.p)
    assert "zero variance: no p" in got.flags
    assert got.p_superior == 0.5


# ------------------------------------------------------------------ seeds and fits


def test_only_seeds_of_every_part_are_kept_and_the_others_are_listed():
    truth, arms = ages(4)
    seeds = [(0, 1, 2, 3), (3, 9, 1, 0)]
    parts = [measured(truth, size, s) for size, s in zip(arms[0, :2], seeds, strict=True)]
    both = combine(parts, [1, 1], disjoint=False)
    assert (both.seeds, both.dropped) == ((0, 1, 3), (2, 9))
    np.testing.assert_allclose(both.values, parts[0].values[[0, 1, 3]] + parts[1].values[[3, 2, 0]])
    other = combine([measured(truth, size) for size in arms[1, :2]], [1, 1], disjoint=False)
    got = compare(both, other)
    assert (got.n_seeds, got.dropped) == (3, (2, 9))
    assert "seeds dropped: 2, 9" in got.flags
    again = combine([both, measured(truth, arms[0, 2])], [1, 1], disjoint=False)
    assert (again.seeds, again.dropped) == ((0, 1, 3), (2, 9))


def test_a_part_that_is_a_single_fit_is_combined_with_every_seed():
    truth, arms = ages(5)
    drawn = measured(truth, arms[0, 0], (4, 5, 6, 7), deterministic=True)
    fit = measured(truth, np.repeat(arms[0, 1][:1], 4, axis=0), deterministic=True)
    for parts in ([drawn, fit], [fit, drawn]):
        both = combine(parts, [1, 1], disjoint=False)
        assert (both.seeds, both.dropped, both.one_fit) == ((4, 5, 6, 7), (), False)
        np.testing.assert_allclose(both.values, drawn.values + fit.values)
        np.testing.assert_allclose(both.deviations, drawn.deviations + fit.deviations)
    fits = combine([fit, fit], [1, 1], disjoint=False)
    assert (fits.one_fit, fits.deterministic, len(fits.values)) == (True, True, 1)
    later = measured(truth, arms[0, 1][:1], (7,), deterministic=True)
    assert combine([fit, later], [1, 1], disjoint=False).values == pytest.approx(2 * fit.values)


def test_an_undefined_part_leaves_the_run_undefined_with_its_reasons():
    truth, arms = ages(6)
    broken = arms[0].copy()
    broken[0, 1, 0] = np.nan
    broken[2, 1, :2] = np.nan
    both = combine([measured(truth, size) for size in broken], [1, 1, 1], disjoint=False)
    assert np.isnan(both.values).tolist() == [False, True, False, False]
    assert both.reasons[1] == (
        "1 of 30 predicted numbers are not finite; 2 of 30 predicted numbers are not finite"
    )
    got = compare(both, combine([measured(truth, x) for x in arms[1]], [1, 1, 1], disjoint=False))
    assert math.isnan(got.p)
    assert math.isnan(got.difference)
    rest = both.only([0, 2, 3])
    assert np.isfinite(rest.sizes).all()


def test_parts_that_cannot_be_combined_are_refused():
    truth, arms = ages(7)
    part = measured(truth, arms[0, 0])
    with pytest.raises(ValueError, match="no measurements"):
        combine([], [], disjoint=False)
    with pytest.raises(ValueError, match="2 weights for 1 parts"):
        combine([part], [1, 1], disjoint=False)
    with pytest.raises(ValueError, match="finite"):
        combine([part], [np.nan], disjoint=False)
    with pytest.raises(ValueError, match="different metrics"):
        combine([part, measured(truth, arms[0, 0], name="rmse")], [1, 1], disjoint=False)
    with pytest.raises(ValueError, match="different subjects"):
        combine([part, measured(truth[:9], arms[0, 0][:, :9])], [1, 1], disjoint=False)
    with pytest.raises(ValueError, match="do not share a seed"):
        combine([part, measured(truth, arms[0, 1], range(9, 13))], [1, 1], disjoint=False)


def test_untested_metrics_are_refused():
    with pytest.raises(ValueError, match="differences in mcc are not tested"):
        measured(np.array([0.0, 1.0]), np.array([[0.2, 0.8]]), name="mcc")
