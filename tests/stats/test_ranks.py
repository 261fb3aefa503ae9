from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.stats.inference import holm
from bench.stats.ranks import rank_arms

ARMS = ("a", "b", "c", "d")


def cohorts(n):
    return tuple(f"cohort {i}" for i in range(n))


def errors(seed, n=12, spread=1.0):
    """Return errors of four arms with one row per cohort; arms get worse from a to d."""
    rng = np.random.default_rng(seed)
    return rng.normal(10, 3, (n, 1)) + np.array([0, 0.1, 2, 4]) + rng.normal(0, spread, (n, 4))


def test_ranks_by_hand():
    values = [[1, 2, 3], [1, 3, 2], [1, 2, 2], [2, 1, 3], [1, 2, 3]]
    got = rank_arms(values, cohorts(5), ("x", "y", "z"), higher_is_better=False)
    assert got.arms == ("x", "y", "z")
    assert got.ranks.tolist() == [[1, 2, 3], [1, 3, 2], [1, 2.5, 2.5], [2, 1, 3], [1, 2, 3]]
    assert got.mean_ranks == pytest.approx([6 / 5, 10.5 / 5, 13.5 / 5])
    # Friedman's statistic with ties from rank sums (Conover, 1999) is (2 * 28.5) / 9.5 = 6.
    sums, n, k = np.array([6, 10.5, 13.5]), 5, 3
    squares = float((got.ranks**2).sum())
    constant = n * k * (k + 1) ** 2 / 4
    statistic = (k - 1) * ((sums**2).sum() - n * constant) / (squares - constant)
    assert got.statistic == pytest.approx(statistic)
    assert got.p == pytest.approx(stats.chi2.sf(statistic, 2))


def test_direction_reverses_the_ranks_and_does_not_change_the_test():
    values = errors(1)
    low, high = (rank_arms(values, cohorts(12), ARMS, up) for up in (False, True))
    assert low.arms == high.arms[::-1]
    assert low.mean_ranks == pytest.approx(5 - high.mean_ranks[::-1])
    assert (low.statistic, low.p) == pytest.approx((high.statistic, high.p))


def test_pairs_are_wilcoxons_signed_ranks_with_holms_adjustment():
    values = errors(2)
    got = rank_arms(values, cohorts(12), ARMS, False)
    column = dict(zip(ARMS, values.T, strict=True))
    p = [stats.wilcoxon(column[x.a], column[x.b]).pvalue for x in got.pairs]
    assert [x.p for x in got.pairs] == pytest.approx(p)
    assert [x.p_holm for x in got.pairs] == pytest.approx(holm(p))
    assert {frozenset((x.a, x.b)) for x in got.pairs} == {
        frozenset(pair) for pair in combinations(ARMS, 2)
    }


def test_groups_join_neighbours_without_a_significant_difference():
    # a and b are similar; c and d are clearly worse and different.
    got = rank_arms(errors(3, spread=0.3), cohorts(12), ARMS, False)
    assert got.groups == (got.arms[:2],)
    assert set(got.groups[0]) == {"a", "b"}
    everything = rank_arms(errors(4, n=5), cohorts(5), ARMS, False)
    assert everything.groups == (everything.arms,)  # five cohorts cannot tell six pairs apart
    assert everything.floor == pytest.approx(6 * 2 / 2**5)
    nobody = rank_arms(np.arange(12)[:, None] + 100 * np.arange(4), cohorts(12), ARMS, False)
    assert nobody.groups == ()


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(8, 14), n_arms=st.integers(2, 5))
def test_groups_are_the_maximal_runs_found_by_brute_force(seed, n, n_arms):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, n_arms)) + rng.normal(0, 1.5, n_arms)
    arms = tuple("abcdef"[:n_arms])
    got = rank_arms(values, cohorts(n), arms, True)
    apart = {(x.a, x.b) for x in got.pairs if x.p_holm <= 0.05}
    stretches = [
        got.arms[i:j]
        for i in range(n_arms)
        for j in range(i + 2, n_arms + 1)
        if not any((x, y) in apart for x, y in combinations(got.arms[i:j], 2))
    ]
    maximal = [s for s in stretches if not any(set(s) < set(other) for other in stretches)]
    assert list(got.groups) == maximal


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), data=st.data())
def test_the_order_of_cohorts_and_arms_changes_nothing(seed, data):
    values = np.round(errors(seed, n=6), 0)  # with ties
    rows = list(data.draw(st.permutations(range(6))))
    columns = list(data.draw(st.permutations(range(4))))
    plain = rank_arms(values, cohorts(6), ARMS, False)
    mixed = rank_arms(
        values[rows][:, columns],
        [cohorts(6)[i] for i in rows],
        [ARMS[j] for j in columns],
        False,
    )
    assume(not plain.reason)
    assert mixed.arms == plain.arms
    assert mixed.groups == plain.groups
    assert (mixed.statistic, mixed.p) == pytest.approx((plain.statistic, plain.p))
    assert [x.p_holm for x in mixed.pairs] == pytest.approx(
        [x.p_holm for x in plain.pairs], nan_ok=True
    )


def test_values_that_differ_by_rounding_errors_are_ties():
    values = np.tile([[0.1 + 0.2, 0.3, 0.5]], (5, 1))
    got = rank_arms(values, cohorts(5), ("x", "y", "z"), False)
    assert got.ranks[0].tolist() == [1.5, 1.5, 3]
    assert got.pairs[0].note == "no pair differs"
    assert np.isnan(got.pairs[0].p_holm)


def test_two_arms_or_no_difference_have_no_friedman_test():
    two = rank_arms(errors(5)[:, :2], cohorts(12), ("a", "b"), False)
    assert np.isnan(two.p)
    assert "three models" in two.reason
    assert len(two.pairs) == 1
    same = rank_arms(np.ones((6, 3)), cohorts(6), ("a", "b", "c"), False)
    assert np.isnan([same.statistic, same.p]).all()
    assert "equal ranks" in same.reason
    assert same.groups == (("a", "b", "c"),)


def test_invalid_blocks_and_missing_values_are_refused():
    values = errors(6, n=6)
    with pytest.raises(ValueError, match=r"5 different cohorts, got 4.*seeds"):
        rank_arms(values[:4], cohorts(4), ARMS, False)
    with pytest.raises(ValueError, match="must be unique"):
        rank_arms(values, ("one",) * 6, ARMS, False)
    with pytest.raises(ValueError, match="must be unique"):
        rank_arms(values, cohorts(6), ("a", "a", "b", "c"), False)
    with pytest.raises(ValueError, match="two arms"):
        rank_arms(values[:, :1], cohorts(6), ("a",), False)
    with pytest.raises(ValueError, match="must have shape"):
        rank_arms(values.T, cohorts(6), ARMS, False)
    with pytest.raises(ValueError, match="alpha"):
        rank_arms(values, cohorts(6), ARMS, False, alpha=5)
    values[2, 1] = np.nan
    with pytest.raises(ValueError, match="b has no value in cohort 2"):
        rank_arms(values, cohorts(6), ARMS, False)
