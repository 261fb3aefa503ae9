from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from bench.stats.checkpoints import absolute_error_t, checkpoint_tests, delong, mcnemar


def scores(seed: int, n: int = 40, levels: int | None = None):
    """Return labels and two correlated scores, with few levels so that there are ties."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(n) % 3 == 0).astype(float)
    shared = rng.normal(size=n)
    found = [1 / (1 + np.exp(-(truth + shared + rng.normal(size=n)))) for _ in range(2)]
    return truth, *(x if levels is None else np.round(x * levels) / levels for x in found)


def delong_by_pairs(truth, a, b):
    """Return the AUC difference and its variance from the matrix of all pairs of subjects."""
    wins = []
    for score in (a, b):
        positive, negative = score[truth == 1][:, None], score[truth == 0][None]
        wins.append((positive > negative) + 0.5 * (positive == negative))
    by_positive = np.cov([w.mean(axis=1) for w in wins]) / wins[0].shape[0]
    by_negative = np.cov([w.mean(axis=0) for w in wins]) / wins[0].shape[1]
    contrast = np.array([1, -1])
    variance = contrast @ (by_positive + by_negative) @ contrast
    return wins[0].mean() - wins[1].mean(), variance


@pytest.mark.parametrize("levels", [None, 5, 40])
@pytest.mark.parametrize("seed", range(4))
def test_delong_is_the_covariance_over_all_pairs(seed, levels):
    truth, a, b = scores(seed, levels=levels)
    difference, variance = delong_by_pairs(truth, a, b)
    got = delong(truth, a, b)
    assert got.p == pytest.approx(2 * stats.norm.sf(abs(difference) / math.sqrt(variance)))
    assert (got.n, got.note, got.name) == (40, "", "DeLong")


def test_delong_keeps_its_level_over_new_subjects():
    # For two fixed networks with the same AUC, p is uniform over test sets.
    rng = np.random.default_rng(0)
    p = []
    for _ in range(1000):
        truth = (np.arange(80) % 2).astype(float)
        shared = truth + rng.normal(size=80)
        a, b = (1 / (1 + np.exp(-shared - rng.normal(size=80))) for _ in range(2))
        p.append(delong(truth, a, b).p)
    # The standard error of a rate of .05 over 1,000 repeats is .007.
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.075


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=40))
def test_mcnemar_is_the_binomial_test_of_the_discordant(rows):
    truth, a, b = np.array(rows, dtype=float).T
    got = mcnemar(truth, a, b)
    wins = int(((a == truth) & (b != truth)).sum())
    losses = int(((a != truth) & (b == truth)).sum())
    if wins + losses == 0:
        assert math.isnan(got.p)
        assert got.note == "no discordant pair"
    else:
        assert got.p == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
        table = [[0, wins], [losses, 0]]
        assert got.p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    assert got.n == len(rows)


def test_mcnemar_knows_thresholds_and_several_classes():
    truth = np.array([1, 1, 1, 0, 0, 0])
    a = np.array([0.4, 0.45, 0.35, 0.1, 0.2, 0.1])
    b = np.array([0.1, 0.1, 0.2, 0.1, 0.2, 0.1])
    assert mcnemar(truth, a, b).note == "no discordant pair"
    assert mcnemar(truth, a, b, threshold=0.3).p == 0.25
    classes = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    wrong = np.eye(3)[[1, 2, 0, 1, 1, 2]]
    assert mcnemar([0, 1, 2, 0, 1, 2], classes, wrong).p == 2 / 2**4


@pytest.mark.parametrize("seed", range(3))
def test_the_errors_are_compared_by_a_paired_t_over_subjects(seed):
    rng = np.random.default_rng(seed)
    truth = rng.normal(60, 10, 30)
    a, b = truth + rng.normal(0, 5, 30), truth + rng.normal(0, 6, 30)
    expected = stats.ttest_rel(abs(a - truth), abs(b - truth)).pvalue
    got = absolute_error_t(truth, a, b)
    assert got.p == pytest.approx(expected)
    assert (got.n, got.note) == (30, "")


def test_undefined_metrics_have_a_reason_and_no_p():
    half = [0.2, 0.6, 0.7, 0.4]
    cases = [
        (delong([1, 1, 1, 1], half, half), "no subject is negative"),
        (delong([1, 0, 0, 0], half, half[::-1]), "a class has only one subject"),
        (delong([1, 0, 1, 0], half, half), "the differences do not vary over subjects"),
        (delong([1, 0, 1, 0], half, [0.2, np.nan, 0.1, 0]), "1 of 4 predicted numbers are not"),
        # One ranks all subjects correctly, the other none: all differences are 1.
        (delong([1, 1, 0, 0], [4 / 5, 3 / 5, 0, 0], [0, 0, 1, 1]), "do not vary over subjects"),
        (delong([], [], []), "no subjects"),
        (mcnemar([1, 0, 1, 0], half, half), "no discordant pair"),
        (mcnemar([1, 0], [1.5, 0], [0, 0]), "not probabilities"),
        (absolute_error_t([60.0, 70.0], [61, 71], [60, 70]), "the differences do not vary"),
        (absolute_error_t([60.0], [61], [60]), "fewer than two pairs"),
    ]
    for got, note in cases:
        assert math.isnan(got.p), got
        assert note in got.note


@given(st.integers(0, 10**6))
def test_order_of_subjects_and_of_checkpoints_does_not_matter(seed):
    truth, a, b = scores(seed, n=20, levels=6)
    order = np.random.default_rng(seed).permutation(20)
    for test in (delong, mcnemar, absolute_error_t):
        plain = test(truth, a, b)
        assert test(truth[order], a[order], b[order]).p == pytest.approx(plain.p, nan_ok=True)
        assert test(truth, b, a).p == pytest.approx(plain.p, nan_ok=True)
        assert plain.conditions_on == "these two checkpoints, new subjects"
        assert plain.p != 0


@pytest.mark.parametrize(
    ("metric", "test"), [("auc", delong), ("accuracy", mcnemar), ("mae", absolute_error_t)]
)
def test_every_seed_has_its_own_test(metric, test):
    runs = [scores(seed) for seed in range(3)]
    truth = runs[0][0]
    a, b = (np.stack([run[arm] for run in runs]) for arm in (1, 2))
    got = checkpoint_tests(metric, truth, a, b, (7, 3, 5))
    assert list(got) == [7, 3, 5]
    assert got[3] == test(truth, a[1], b[1])


def test_arguments_that_do_not_match_are_refused():
    truth, a, b = scores(0)
    with pytest.raises(ValueError, match="one of auc, accuracy, mae, got brier"):
        checkpoint_tests("brier", truth, a[None], b[None], (0,))
    with pytest.raises(ValueError, match="1 and 1 runs for 2 seeds"):
        checkpoint_tests("auc", truth, a[None], b[None], (0, 1))
    with pytest.raises(ValueError, match="twice"):
        checkpoint_tests("auc", truth, np.stack([a, a]), np.stack([b, b]), (1, 1))
    with pytest.raises(ValueError, match="needs truth"):
        delong(truth, a[:-1], b)
    with pytest.raises(ValueError, match="class indices"):
        mcnemar(truth + 1, a, b)


def test_many_subjects_do_not_need_all_pairs():
    # All pairs of 200,000 subjects would be 10^10 numbers.
    rng = np.random.default_rng(0)
    truth = (rng.uniform(size=200_000) < 0.5).astype(float)
    a, b = (1 / (1 + np.exp(-truth - rng.normal(size=200_000))) for _ in range(2))
    assert 0 < delong(truth, a, b).p <= 1
