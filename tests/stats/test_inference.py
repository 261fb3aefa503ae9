from __future__ import annotations

import math
from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bench.stats.inference import (
    benjamini_hochberg,
    compare,
    holm,
    interval_over_seeds,
)
from bench.stats.measured import MeasuredRuns, RunPredictions, measure_runs
from bench.stats.metrics import compute, metric_of
from bench.stats.thresholds import placements

REGRESSION = ("mae", "rmse", "r2", "r")
BINARY = (
    *("auc", "balanced_accuracy", "accuracy", "sensitivity", "specificity"),
    *("average_precision", "brier", "log_loss"),
)
MULTICLASS = ("balanced_accuracy", "accuracy", "log_loss")
CASES = (
    *[("regression", name) for name in REGRESSION],
    *[("binary", name) for name in BINARY],
    *[("multiclass", name) for name in MULTICLASS],
)


def experiment(task: str, seed: int, n_seeds: int = 4, n: int = 40):
    """Return truth and predictions of two arms, with effects of seeds, subjects and both."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(60, 10, n) if task == "regression" else rng.permutation(np.arange(n) % 3)
    if task == "binary":
        truth = (truth > 0).astype(float)
    width = (3,) if task == "multiclass" else ()
    shared = rng.normal(size=(n, *width))
    signal = np.eye(3)[truth] if task == "multiclass" else (truth - truth.mean()) / truth.std()
    arms = []
    for _ in range(2):
        own = rng.normal(scale=0.5, size=(n, *width))
        bias = rng.normal(scale=0.3, size=(n_seeds, 1, *width))
        logits = signal + bias + shared + own + rng.normal(size=(n_seeds, n, *width))
        if task == "regression":
            arms.append(60 + 10 * logits)
        elif task == "binary":
            arms.append(1 / (1 + np.exp(-logits)))
        else:
            arms.append(np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True))
    return truth, arms[0], arms[1]


def measured(name, truth, predictions, seeds=None, deterministic=False) -> MeasuredRuns:
    seeds = range(len(predictions)) if seeds is None else seeds
    return measure_runs(
        name, truth, RunPredictions(np.asarray(predictions), tuple(seeds), deterministic)
    )


def headline(name, truth, a, b, seeds_a=None, seeds_b=None, **options):
    return compare(measured(name, truth, a, seeds_a), measured(name, truth, b, seeds_b), **options)


def covariance_by_hand(name, truth, rows):
    """Return the covariance (R, R) of R runs over test sets, computed from its definition."""
    n = len(truth)
    if name in (*REGRESSION[1:], "average_precision"):
        without = np.array(
            [
                [compute(name, np.delete(truth, i), np.delete(row, i, 0)).value for i in range(n)]
                for row in rows
            ]
        )
        return np.cov(without, ddof=0) * (n - 1)
    if name == "auc":
        classes = [truth == 1, truth == 0]
        terms = np.array([[float(x) for x in delong_by_pairs(truth, row)] for row in rows])
        return sum(np.cov(terms[:, c]) / c.sum() for c in classes)
    losses = {
        "mae": lambda y, p: abs(p - y),
        "brier": lambda y, p: (p - y) ** 2,
        "log_loss": lambda y, p: -math.log((p if y else 1 - p) if np.ndim(p) == 0 else p[int(y)]),
    }
    right = lambda y, p: float((p >= 0.5 if np.ndim(p) == 0 else np.argmax(p)) == y)  # noqa: E731
    loss = losses.get(name, right)
    terms = np.array([[loss(y, p) for y, p in zip(truth, row, strict=True)] for row in rows])
    if name == "balanced_accuracy":
        classes = [truth == k for k in np.unique(truth)]
        return sum(np.cov(terms[:, c]) / c.sum() for c in classes) / len(classes) ** 2
    members = {"sensitivity": truth == 1, "specificity": truth == 0}.get(name, truth == truth)
    return np.cov(terms[:, members]) / members.sum()


def delong_by_pairs(truth, score):
    """Return structural components by comparing every positive with every negative subject."""

    def half_if_tied(above, below):
        return Fraction(int(above > below) - int(above < below) + 1, 2)

    def share(i):
        others = [j for j in range(len(truth)) if truth[j] != truth[i]]
        pairs = [(i, j) if truth[i] else (j, i) for j in others]
        return sum(half_if_tied(score[p], score[n]) for p, n in pairs) / len(pairs)

    return [share(i) for i in range(len(truth))]


@pytest.mark.parametrize(("task", "name"), CASES)
def test_the_paired_test_is_the_formula_with_the_metrics_own_covariance(task, name):
    truth, a, b = experiment(task, seed=3)
    n_seeds = len(a)
    values = np.array([[compute(name, truth, p).value for p in arm] for arm in (a, b)])
    d = values[0] - values[1]
    everything = covariance_by_hand(name, truth, np.concatenate([a, b]))
    contrast = np.hstack([np.eye(n_seeds), -np.eye(n_seeds)])
    k = contrast @ everything @ contrast.T
    c = (k.sum() - np.trace(k)) / (n_seeds * (n_seeds - 1))
    v_seed = d.var(ddof=1) / n_seeds
    v = v_seed + max(c, 0)
    df = v**2 / (v_seed**2 / (n_seeds - 1))

    got = headline(name, truth, a, b)
    assert (got.v_seed, got.c) == pytest.approx((v_seed, c))
    assert (got.difference, got.se, got.df) == pytest.approx((d.mean(), math.sqrt(v), df))
    assert got.p == pytest.approx(2 * stats.t.sf(abs(d.mean()) / math.sqrt(v), df))
    bounds = stats.t.interval(0.95, df, d.mean(), math.sqrt(v))
    assert (got.low, got.high) == pytest.approx(bounds)
    assert got.improvement == pytest.approx(
        d.mean() if metric_of(name).higher_is_better else -d.mean()
    )
    assert got.d_z == pytest.approx(d.mean() / d.std(ddof=1))
    assert sum(got.shares) == pytest.approx(1)


@pytest.mark.parametrize(("task", "name"), CASES)
def test_the_unpaired_test_is_the_formula_with_the_metrics_own_covariance(task, name):
    truth, a, b = experiment(task, seed=4, n_seeds=4)
    b = b[:3]
    values = [np.array([compute(name, truth, p).value for p in arm]) for arm in (a, b)]
    k = covariance_by_hand(name, truth, np.concatenate([a, b]))
    off = ~np.eye(4, dtype=bool), ~np.eye(3, dtype=bool)
    c = k[:4, :4][off[0]].mean() + k[4:, 4:][off[1]].mean() - 2 * k[:4, 4:].mean()
    parts = [v.var(ddof=1) / len(v) for v in values]
    v = sum(parts) + max(c, 0)

    got = headline(name, truth, a, b, seeds_b=[10, 11, 12])
    assert not got.paired
    assert "unpaired" in got.flags
    assert (got.n_seeds, got.n_seeds_a, got.n_seeds_b) == (3, 4, 3)
    assert (got.v_seed, got.c) == pytest.approx((sum(parts), c))
    assert got.df == pytest.approx(v**2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2))
    assert got.t == pytest.approx((values[0].mean() - values[1].mean()) / math.sqrt(v))
    assert math.isnan(got.d_z)


def test_a_case_computed_by_hand():
    # Loss differences (1, 1, -2) and (3, 1, -1): d = (0, 1), v = 1/4, C = 1, V = 5/4, df = 25.
    truth = np.zeros(3)
    a = np.array([[5.0, 5.0, 2.0], [7.0, -5.0, 3.0]])
    b = np.array([[4.0, 4.0, -4.0], [-4.0, 4.0, 4.0]])
    got = headline("mae", truth, a, b)
    assert (got.difference, got.improvement) == (0.5, -0.5)
    assert (got.v_seed, got.c, got.df) == pytest.approx((0.25, 1.0, 25.0))
    assert got.t == pytest.approx(1 / math.sqrt(5))
    assert got.p == pytest.approx(2 * stats.t.sf(1 / math.sqrt(5), 25))
    assert got.few_subjects.df == pytest.approx(1.5625 / (0.0625 + 0.5))
    assert got.p_superior == 0.25  # one tie, one run in which A is worse
    assert got.d_z == pytest.approx(math.sqrt(0.5))
    assert math.isnan(got.g_z)  # Hedges' correction is 0 at two pairs
    assert got.flags == ("few subjects",)
    # The variances of the runs are 3/2 * 2/3 = 1 and 4/3, so the residual is (7/6 - 1)/2 of V.
    assert got.shares == pytest.approx((2 / 15, 4 / 5, 1 / 15))


def test_for_means_the_variance_is_that_of_the_two_way_analysis_of_variance():
    truth, a, b = experiment("regression", seed=5, n_seeds=5, n=30)
    d = abs(a - truth) - abs(b - truth)
    s, n = d.shape
    seed_means, subject_means = d.mean(axis=1, keepdims=True), d.mean(axis=0, keepdims=True)
    ms_seed = n * seed_means.var(ddof=1)
    ms_subject = s * subject_means.var(ddof=1)
    residual = d - seed_means - subject_means + d.mean()
    ms_residual = (residual**2).sum() / ((s - 1) * (n - 1))
    got = headline("mae", truth, a, b)
    assert got.se**2 == pytest.approx((ms_seed + ms_subject - ms_residual) / (s * n))
    assert got.shares.residual == pytest.approx(ms_residual / (s * n) / got.se**2)


@given(st.integers(0, 10**6), st.sampled_from([2, 5, 100]))
def test_placements_are_delongs_components_with_ties(seed, levels):
    rng = np.random.default_rng(seed)
    truth = np.concatenate([[0, 1], rng.integers(0, 2, 10)])
    score = np.round(rng.uniform(size=12) * levels) / levels
    expected = delong_by_pairs(truth, score)
    np.testing.assert_allclose(placements(truth == 1, score), [float(x) for x in expected])


@given(st.integers(0, 10**6), st.sampled_from(CASES))
def test_order_of_subjects_and_names_of_seeds_do_not_matter(seed, case):
    task, name = case
    truth, a, b = experiment(task, seed=seed)
    rng = np.random.default_rng(seed)
    order, runs = rng.permutation(len(truth)), rng.permutation(len(a))
    plain = headline(name, truth, a, b)
    shuffled = headline(name, truth[order], a[:, order], b[:, order])
    renamed = headline(name, truth, a[runs], b, seeds_a=runs + 50, seeds_b=range(50, 54))
    for other in (shuffled, renamed):
        for field in ("difference", "se", "df", "t", "p", "low", "high", "c", "d_z", "p_superior"):
            expected = pytest.approx(getattr(plain, field), rel=1e-6, abs=1e-9, nan_ok=True)
            assert getattr(other, field) == expected, field


@given(st.integers(0, 10**6), st.sampled_from(CASES), st.booleans())
def test_swapping_the_arms_changes_the_sign_and_not_p(seed, case, paired):
    task, name = case
    truth, a, b = experiment(task, seed=seed)
    seeds = range(4) if paired else range(10, 14)
    one, two = headline(name, truth, a, b, None, seeds), headline(name, truth, b, a, seeds, None)
    assert two.difference == pytest.approx(-one.difference)
    assert two.improvement == pytest.approx(-one.improvement)
    assert (two.low, two.high) == pytest.approx((-one.high, -one.low), nan_ok=True)
    assert (two.p, two.df) == pytest.approx((one.p, one.df), nan_ok=True)
    assert two.p_superior == pytest.approx(1 - one.p_superior)
    assert two.improvement_interval == pytest.approx(
        tuple(-x for x in reversed(one.improvement_interval)), nan_ok=True
    )


@given(st.integers(0, 10**6), st.floats(0.5, 0.99))
def test_the_interval_excludes_zero_exactly_when_p_is_below_alpha(seed, level):
    truth, a, b = experiment("regression", seed=seed)
    got = headline("mae", truth, a, b + 5, level=level)
    if got.p == got.p:
        assert (got.low > 0 or got.high < 0) == (got.p < 1 - level)
        wider = headline("mae", truth, a, b + 5, level=0.995)
        assert wider.low < got.low < got.high < wider.high


@given(st.integers(0, 10**6), st.sampled_from(CASES))
def test_order_and_names_do_not_matter_to_unpaired_runs(seed, case):
    task, name = case
    truth, a, b = experiment(task, seed=seed)
    rng = np.random.default_rng(seed)
    order, runs = rng.permutation(len(truth)), rng.permutation(len(b))
    plain = headline(name, truth, a, b, range(4), range(10, 14))
    other = headline(name, truth[order], a[:, order], b[runs][:, order], range(20, 24), runs + 90)
    for field in ("difference", "se", "df", "t", "p", "low", "high", "c", "p_superior"):
        expected = pytest.approx(getattr(plain, field), rel=1e-6, abs=1e-9, nan_ok=True)
        assert getattr(other, field) == expected, field


@given(st.integers(0, 10**6), st.sampled_from(CASES), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_higher_level_widens_the_interval_and_changes_nothing_else(seed, case, one, two):
    task, name = case
    truth, a, b = experiment(task, seed=seed)
    narrow, wide = (headline(name, truth, a, b, level=x) for x in sorted((one, two)))
    if narrow.p != narrow.p:
        return
    assert wide.low <= narrow.low <= narrow.difference <= narrow.high <= wide.high
    assert replace(wide, low=0, high=0, level=0, few_subjects=None) == replace(
        narrow, low=0, high=0, level=0, few_subjects=None
    )


@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(-50, 50))
def test_another_unit_scales_the_difference_and_does_not_change_the_test(seed, factor, shift):
    truth, a, b = experiment("regression", seed=seed)
    years = headline("mae", truth, a, b)
    other = headline("mae", truth * factor + shift, a * factor + shift, b * factor + shift)
    assert other.difference == pytest.approx(years.difference * factor, rel=1e-6, abs=1e-9)
    assert other.se == pytest.approx(years.se * factor, rel=1e-6)
    assert (other.p, other.df) == pytest.approx((years.p, years.df), rel=1e-6)


def test_a_p_too_small_for_a_float_is_not_zero():
    truth, a, _ = experiment("regression", seed=6, n=400)
    worse = truth + 1e4 + np.random.default_rng(0).normal(size=(4, 400))
    got = headline("mae", truth, np.repeat(a[:1], 4, axis=0), np.repeat(worse[:1], 4, axis=0))
    assert 0 < got.p < 1e-300


def test_improvement_and_its_interval_are_positive_when_a_is_better():
    truth, a, _ = experiment("regression", seed=6)
    worse = a + np.random.default_rng(0).normal(15, 1, a.shape)
    for name in REGRESSION[:3]:
        got = headline(name, truth, a, worse)
        assert got.improvement > 0
        assert got.improvement_interval[0] < got.improvement < got.improvement_interval[1]
        assert got.p_superior == 1
    assert headline("mae", truth, a, worse).difference < 0


def test_one_seed_gives_the_difference_and_no_claim():
    truth, a, b = experiment("regression", seed=7)
    for seeds_b in ([0], [9]):
        got = headline("mae", truth, a[:1], b[:1], [0], seeds_b)
        assert np.isfinite(got.difference)
        numbers = (got.se, got.df, got.t, got.p, got.low, got.high, got.d_z, got.g_z)
        assert all(map(math.isnan, (*numbers, got.p_superior, got.v_seed, *got.shares)))
        assert "one seed: no claim about architectures" in got.flags
    against_many = headline("mae", truth, a, b[:1], range(4), [9])
    assert math.isnan(against_many.p)
    assert "one seed: no claim about architectures" in against_many.flags


def test_unequal_seeds_are_joined_and_the_dropped_ones_listed():
    truth, a, b = experiment("regression", seed=8, n_seeds=4)
    got = headline("mae", truth, a, b, [0, 1, 2, 3], [2, 5, 0, 1])
    expected = headline("mae", truth, a[:3], b[[2, 3, 0]])
    assert (got.p, got.difference) == (expected.p, expected.difference)
    assert (got.n_seeds, got.dropped, got.n_dropped) == (3, (3, 5), 2)
    assert "seeds dropped: 3, 5" in got.flags


def test_arms_that_share_one_seed_of_several_are_unpaired_and_lose_none():
    truth, a, b = experiment("regression", seed=8)
    got = headline("mae", truth, a, b, [0, 1, 2, 3], [3, 4, 5, 6])
    assert (got.paired, got.n_seeds, got.dropped) == (False, 4, ())


def test_identical_predictions_have_no_p_and_are_flagged():
    truth, a, b = experiment("binary", seed=9)
    got = headline("auc", truth, a, a.copy())
    assert got.difference == 0
    assert math.isnan(got.p)
    assert "identical predictions: is this the same checkpoint?" in got.flags
    assert "zero variance: no p" in got.flags
    partly = headline("auc", truth, a, np.concatenate([a[:2], b[2:]]), range(5, 9), range(5, 9))
    assert "identical predictions in seeds 5, 6: is this the same checkpoint?" in partly.flags
    assert partly.p == partly.p


def test_runs_of_one_arm_that_are_identical_are_flagged_unless_it_is_deterministic():
    truth, a, b = experiment("regression", seed=10)
    repeated = np.repeat(a[:1], 4, axis=0)
    flag = "A: identical predictions across seeds: is this one checkpoint?"
    assert flag in headline("mae", truth, repeated, b).flags
    fit = measured("mae", truth, repeated, deterministic=True)
    assert flag not in compare(fit, measured("mae", truth, b)).flags


def test_a_difference_that_varies_only_by_float_noise_has_no_p():
    rng = np.random.default_rng(0)
    truth = rng.normal(60, 10, 37)
    a = truth + rng.uniform(0.1, 0.9, (3, 37))
    gaps = abs(a - truth).mean(axis=1) - abs(a + 0.3 - truth).mean(axis=1)
    assert 0 < gaps.std() < 1e-14
    got = headline("mae", truth, a, a + 0.3)
    assert got.difference == pytest.approx(-0.3)
    assert (got.v_seed, got.c) == (0, 0)
    assert math.isnan(got.p)
    assert math.isnan(got.d_z)
    assert got.flags == ("zero variance: no p",)


def test_without_variance_over_seeds_the_t_is_over_subjects():
    truth, a, b = experiment("regression", seed=11, n=50)
    a, b = np.repeat(a[:1], 3, axis=0), np.repeat(b[:1], 3, axis=0)
    paired = stats.ttest_rel(abs(a[0] - truth), abs(b[0] - truth))
    runs = headline("mae", truth, a, b)
    fits = compare(
        measured("mae", truth, a, deterministic=True),
        measured("mae", truth, b, range(7, 10), deterministic=True),
    )
    for got in (runs, fits):
        assert (got.t, got.p, got.df) == pytest.approx((paired.statistic, paired.pvalue, 49))
        assert "zero seed variance" in got.flags
    assert (fits.n_seeds, fits.one_fit_a, fits.one_fit_b) == (1, True, True)
    assert fits.flags[:2] == ("A is 1 fit", "B is 1 fit")


def test_without_variance_over_seeds_the_auc_has_the_smaller_class_minus_one():
    truth, a, b = experiment("binary", seed=12, n=90)
    a, b = np.repeat(a[:1], 3, axis=0), np.repeat(b[:1], 3, axis=0)
    got = headline("auc", truth, a, b)
    assert (got.n_subjects, got.n_smallest, got.df) == (90, 30, 29)


def test_a_deterministic_arm_is_compared_with_every_run_as_a_single_fit():
    truth, a, b = experiment("regression", seed=13)
    runs = measured("mae", truth, a)
    once = measured("mae", truth, b[:1], [0], deterministic=True)
    repeated = measured("mae", truth, np.repeat(b[:1], 3, axis=0), [7, 8, 9], deterministic=True)
    by_hand = headline("mae", truth, a, np.repeat(b[:1], 4, axis=0))
    for one_fit in (once, repeated):
        got = compare(runs, one_fit)
        assert (got.se, got.df, got.p) == pytest.approx((by_hand.se, by_hand.df, by_hand.p))
        assert (got.n_seeds, got.n_seeds_b, got.one_fit_a, got.one_fit_b) == (4, 1, False, True)
        assert got.flags == ("B is 1 fit",)
        assert compare(one_fit, runs).p == pytest.approx(got.p)
    single = compare(measured("mae", truth, a[:1]), once)
    assert math.isnan(single.p)
    assert "one seed: no claim about architectures" in single.flags


def test_a_deterministic_arm_whose_training_subset_varies_is_paired_like_any_other():
    truth, a, b = experiment("regression", seed=14)
    linear = measured("mae", truth, b, deterministic=True)
    got = compare(measured("mae", truth, a), linear)
    assert got.p == headline("mae", truth, a, b).p
    assert not got.one_fit_b


def test_a_negative_covariance_is_truncated_and_flagged():
    truth = np.zeros(40)
    d = np.tile([1.0, -1.0], 20)
    a = np.stack([5 + d, 5.5 - d])
    got = headline("mae", truth, a, np.full((2, 40), 5.0))
    assert got.c < 0
    assert got.df == pytest.approx(1)
    assert got.se == pytest.approx(math.sqrt(got.v_seed))
    assert "C truncated at 0" in got.flags
    assert got.shares.subjects == 0


@pytest.mark.parametrize("name", REGRESSION)
def test_an_undefined_run_leaves_no_difference_and_no_p(name):
    truth, a, b = experiment("regression", seed=15)
    a[2, 0] = np.nan
    got = headline(name, truth, a, b)
    assert math.isnan(got.difference)
    assert math.isnan(got.p)
    assert got.flags == ("A: undefined in seed 2, 1 of 40 predicted numbers are not finite",)
    rest = headline(name, truth, a[[0, 1, 3]], b, [0, 1, 3])
    assert np.isfinite(rest.p)
    assert "seeds dropped: 2" in rest.flags


def test_a_constant_prediction_has_no_correlation_to_compare():
    truth, a, b = experiment("regression", seed=16)
    got = headline("r", truth, np.full_like(a, 60.0), b)
    assert math.isnan(got.p)
    assert "A: undefined in seed 0, the prediction is constant" in got.flags


@pytest.mark.parametrize(
    ("name", "truth", "a", "b"),
    [
        ("mae", [60.0], [[61.0], [62.0]], [[60.5], [63.0]]),
        ("rmse", [60.0], [[61.0], [62.0]], [[60.5], [63.0]]),
        ("r2", [60.0, 70.0], [[61.0, 64.0], [62.0, 69.0]], [[60.5, 66.0], [63.0, 71.0]]),
        ("r", [60.0, 60.0, 70.0], [[1.0, 2.0, 4.0], [5.0, 2.0, 9.0]], [[1, 0, 3.0], [3, 5, 7.0]]),
        ("auc", [1, 0, 0], [[0.9, 0.1, 0.95], [0.8, 0.3, 0.2]], [[0.4, 0.5, 0.3], [0.2, 0.1, 0.9]]),
        (
            "average_precision",
            [1, 0, 0],
            [[0.9, 0.1, 0.95], [0.8, 0.3, 0.2]],
            [[0.4, 0.5, 0.3], [0.2, 0.1, 0.9]],
        ),
    ],
)
def test_a_test_set_too_small_for_a_variance_gives_no_p(name, truth, a, b):
    got = headline(name, truth, a, b)
    assert np.isfinite(got.difference)
    assert math.isnan(got.p)
    assert "no p-value: the test set is too small or too uniform" in got.flags
    assert "few subjects" in got.flags


def test_few_subjects_are_flagged_with_a_second_more_conservative_test():
    truth, a, b = experiment("binary", seed=17, n=60)  # 20 of the smaller class
    assert headline("mae", *experiment("regression", seed=17, n=30)).few_subjects is None
    got = headline("auc", truth, a, b)
    v = got.se**2
    df = v**2 / (got.v_seed**2 / 3 + got.c**2 / 19)
    assert "few subjects" in got.flags
    assert got.few_subjects.df == pytest.approx(df)
    assert got.few_subjects.df < got.df
    assert got.few_subjects.p == pytest.approx(2 * stats.t.sf(abs(got.t), df))
    assert got.few_subjects.p > got.p
    assert got.few_subjects.low < got.low
    accuracy = headline("accuracy", truth, a, b)
    assert (accuracy.n_smallest, accuracy.few_subjects) == (60, None)


def test_g_z_is_hedges_exact_correction():
    truth, a, b = experiment("regression", seed=18, n_seeds=5)
    got = headline("mae", truth, a, b)
    correction = math.gamma(2) / (math.sqrt(2) * math.gamma(1.5))
    assert got.g_z == pytest.approx(got.d_z * correction)


def test_runs_that_cannot_be_compared_are_refused():
    truth, a, b = experiment("regression", seed=19)
    arm = measured("mae", truth, a)
    with pytest.raises(ValueError, match="different test subjects or labels"):
        compare(arm, measured("mae", truth + 1, b))
    with pytest.raises(ValueError, match="mae cannot be compared with rmse"):
        compare(arm, measured("rmse", truth, b))
    with pytest.raises(ValueError, match="between 0 and 1"):
        compare(arm, arm, level=95)
    with pytest.raises(ValueError, match="not tested"):
        measured("auc_1", np.array([0, 1, 2]), np.full((1, 3, 3), 1 / 3))
    with pytest.raises(ValueError, match="one seed per run"):
        RunPredictions(a, (0, 1))
    with pytest.raises(ValueError, match="twice"):
        RunPredictions(a, (0, 1, 2, 2))
    with pytest.raises(ValueError, match=r"\(S, N\)"):
        RunPredictions(a[0], (0,))


def test_every_field_of_a_comparison_is_a_plain_type():
    got = headline("mae", *experiment("regression", seed=20, n=20))
    plain = (str, float, int, bool, tuple, type(None))
    assert [f.name for f in fields(got) if type(getattr(got, f.name)).__module__ == "numpy"] == []
    assert all(isinstance(getattr(got, f.name), plain) for f in fields(got))


def test_the_interval_over_seeds_is_the_t_interval():
    values = [5.1, 5.4, 4.9, 5.6, 5.0]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    got = interval_over_seeds(values, level=0.9)
    assert got == pytest.approx((np.mean(values), expected.low, expected.high, 5))


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0, 5.0], [0.3, 0.1 + 0.2]])
def test_one_or_equal_values_have_a_mean_and_no_interval(values):
    mean, low, high, n = interval_over_seeds(values)
    assert (mean, n) == (pytest.approx(values[0]), len(values))
    assert math.isnan(low)
    assert math.isnan(high)


def test_an_undefined_value_makes_the_mean_undefined():
    assert all(map(math.isnan, interval_over_seeds([5.0, np.nan, 6.0])[:3]))
    assert interval_over_seeds([]).n == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval_over_seeds([5.0, 6.0], level=0)


def test_adjusted_p_values_leave_nan_out_and_put_it_back():
    p = [0.04, np.nan, 0.01, 0.03, np.nan]
    # Holm: .01*3, then .03*2, then max(.06, .04); Benjamini-Hochberg: .01*3, .03*3/2, .04.
    np.testing.assert_allclose(holm(p), [0.06, np.nan, 0.03, 0.06, np.nan])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.04, np.nan, 0.03, 0.04, np.nan])


@pytest.mark.parametrize(("adjust", "name"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_adjusted_p_values_are_those_of_another_library(adjust, name):
    rng = np.random.default_rng(3)
    for n in (1, 2, 7, 190):
        p = np.round(rng.uniform(size=n) ** 3, 3)  # with ties
        np.testing.assert_allclose(adjust(p), multipletests(p, method=name)[1], rtol=1e-12)


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_adjusting_nothing_gives_nothing(adjust):
    assert adjust([]).shape == (0,)
    assert np.isnan(adjust([np.nan])).all()
    assert adjust([0.2]) == [0.2]
    with pytest.raises(ValueError, match="between 0 and 1"):
        adjust([1.2])


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=12))
def test_holm_is_its_definition_and_never_below_benjamini_hochberg(p):
    known = sorted((x, i) for i, x in enumerate(p) if x == x)
    expected, highest = [math.nan] * len(p), 0.0
    for rank, (x, i) in enumerate(known):
        highest = max(highest, min(1.0, x * (len(known) - rank)))
        expected[i] = highest
    np.testing.assert_allclose(holm(p), expected)
    known_holm, known_bh = holm(p)[[i for _, i in known]], benjamini_hochberg(p)
    assert (known_holm >= known_bh[[i for _, i in known]] - 1e-12).all()
