from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import permutation_test, t
from statsmodels.stats.proportion import proportion_confint

from bench.stats.classical import (
    paired_t,
    sign_flip,
    superiority_interval,
    wilcoxon,
)
from bench.stats.inference import holm


def values(seed: int, n: int = 6):
    rng = np.random.default_rng(seed)
    return rng.normal(5, 0.3, n), rng.normal(5.2, 0.3, n)


@pytest.mark.parametrize("seed", range(3))
def test_paired_t_is_the_textbook_formula(seed):
    a, b = values(seed)
    d = a - b
    statistic = d.mean() / (d.std(ddof=1) / math.sqrt(len(d)))
    assert paired_t(a, b).p == pytest.approx(2 * t.sf(abs(statistic), len(d) - 1))


@pytest.mark.parametrize("seed", range(3))
def test_sign_flip_counts_every_pattern(seed):
    a, b = values(seed)
    d = a - b
    sums = [abs(np.dot(signs, d)) for signs in flips(d)]
    assert sign_flip(a, b).p == np.mean(np.array(sums) >= abs(d.sum()) - 1e-9)
    scipy = permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(a, b).p == pytest.approx(scipy.pvalue)


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=7))
def test_sign_flip_counts_patterns_that_tie_in_exact_arithmetic(tenths):
    # As floats, 0.1 + 0.2 - 0.3 is not 0, so equal sums differ by rounding errors.
    sums = [abs(sum(s * x for s, x in zip(signs, tenths, strict=True))) for signs in flips(tenths)]
    expected = np.mean([total >= abs(sum(tenths)) for total in sums])
    assert sign_flip(np.array(tenths) / 10, np.zeros(len(tenths))).p == expected


def flips(values):
    return product([1, -1], repeat=len(values))


@pytest.mark.parametrize("n", [3, 5, 6])
def test_the_clearest_difference_reaches_the_floor_and_no_less(n):
    test = sign_flip(np.arange(n) + 100.0, np.arange(n) * 2.0)
    assert test.p == test.floor == 2 / 2**n
    assert test.can_reject() == (n >= 6)
    assert wilcoxon(np.arange(n) + 100.0, np.arange(n) * 2.0).p == 2 / 2**n


@pytest.mark.parametrize("m", [1, 3, 10, 28])
@pytest.mark.parametrize("test", [sign_flip, wilcoxon])
def test_holm_over_more_pairs_needs_more_seeds(test, m):
    enough = math.ceil(1 + math.log2(m / 0.05))
    for n in (enough - 1, enough):
        found = test(np.arange(n) + 100.0, np.zeros(n))
        assert found.can_reject(0.05, m) == (n == enough)
        # Holm's method gives the same for the clearest possible family.
        assert (holm([found.p] * m)[0] <= 0.05) == (n == enough)
    assert paired_t([1.0, 2.0], [1.0, 3.0]).can_reject(0.05, m)
    with pytest.raises(ValueError, match="m must be at least 1"):
        found.can_reject(0.05, 0)


def test_equal_values_give_no_t_and_a_permutation_p_of_one():
    a = np.array([0.1 + 0.2, 0.3, 0.3])
    b = np.array([0.3, 0.3, 0.3])
    assert math.isnan(paired_t(a, b).p)
    assert paired_t(a, b).note == "the differences do not vary"
    assert sign_flip(a, b).p == 1


@pytest.mark.parametrize("test", [paired_t, sign_flip, wilcoxon])
def test_too_few_pairs_or_an_undefined_run_give_no_p(test):
    assert (test([1.0], [2.0]).note, test([], []).note) == ("fewer than two pairs",) * 2
    assert not test([1.0], [2.0]).can_reject()
    undefined = test([1.0, np.nan, 3.0], [2.0, 2.0, 2.5])
    assert math.isnan(undefined.p)
    assert undefined.note == "a run has no value"
    with pytest.raises(ValueError, match="same length"):
        test([1.0, 2.0], [1.0])


def test_many_pairs_are_not_enumerated():
    assert sign_flip(np.arange(21.0), np.zeros(21)).note == "more than 20 pairs are not enumerated"
    assert sign_flip(np.arange(20.0), np.zeros(20)).p == pytest.approx(4 / 2**20)


@pytest.mark.parametrize("test", [sign_flip, wilcoxon])
@pytest.mark.parametrize(("n", "zeros"), [(5, 0), (7, 1), (6, 3), (4, 3)])
def test_pairs_without_a_difference_raise_the_smallest_possible_p(test, n, zeros):
    b = np.linspace(0.5, 0.6, n)
    a = b + np.where(np.arange(n) < zeros, 0.0, 0.01 * np.arange(1, n + 1))
    found = test(a, b)
    assert found.n == n
    assert found.p == pytest.approx(found.floor)
    assert found.floor == pytest.approx(min(1.0, 2 / 2 ** (n - zeros)))
    assert found.can_reject() == (2 / 2 ** (n - zeros) <= 0.05)


def test_without_any_difference_the_tests_cannot_reject():
    same = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    assert sign_flip(same, same).floor == wilcoxon(same, same).floor == 1.0


def test_all_tests_state_what_they_take_as_fixed():
    a, b = values(0)
    tests = [paired_t(a, b), sign_flip(a, b), wilcoxon(a, b)]
    assert {test.conditions_on for test in tests} == {"new runs, this test set"}


# ------------------------------------------------------------------ signed ranks


@pytest.mark.parametrize("n", [5, 8, 12])
def test_wilcoxon_counts_the_signs_of_untied_ranks(n):
    a, b = values(n, n)
    ranks = stats.rankdata(abs(a - b))
    sums = np.array([np.dot(signs, ranks) for signs in flips(ranks)])
    observed = np.dot(np.sign(a - b), ranks)
    assert wilcoxon(a, b).p == pytest.approx(np.mean(abs(sums) >= abs(observed) - 1e-9))


@given(st.lists(st.integers(-4, 4).filter(bool), min_size=2, max_size=8))
def test_wilcoxon_counts_the_signs_of_tied_ranks_too(tenths):
    # As floats, .3 - .1 and .4 - .2 differ by rounding errors and would not be ties.
    b = np.arange(len(tenths)) / 10
    a = b + np.array(tenths) / 10
    ranks = stats.rankdata(np.abs(tenths))
    sums = np.array([np.dot(signs, ranks) for signs in flips(ranks)])
    observed = np.dot(np.sign(tenths), ranks)
    assert wilcoxon(a, b).p == pytest.approx(np.mean(abs(sums) >= abs(observed) - 1e-9))


def test_wilcoxon_without_any_difference_has_no_p():
    found = wilcoxon([0.1 + 0.2, 0.5, 0.7], [0.3, 0.5, 0.7])
    assert math.isnan(found.p)
    assert found.note == "no pair differs"


# ------------------------------------------------------------------ P(A>B)


@given(st.integers(2, 60), st.data(), st.floats(0.5, 0.999))
def test_the_interval_of_superiority_is_wilsons(n, data, level):
    wins = data.draw(st.integers(0, 2 * n)) / 2  # ties are half a win
    got = superiority_interval(wins / n, n, level)
    expected = proportion_confint(wins, n, alpha=1 - level, method="wilson")
    assert got == pytest.approx(np.clip(expected, 0, 1), abs=1e-9)
    assert 0 <= got[0] <= wins / n + 1e-12
    assert wins / n - 1e-12 <= got[1] <= 1
    # Swap A and B.
    assert superiority_interval(1 - wins / n, n, level) == pytest.approx(
        (1 - got[1], 1 - got[0]), abs=1e-9
    )


def test_five_wins_of_five_have_a_wide_interval():
    low, high = superiority_interval(1.0, 5)
    assert low == pytest.approx(0.5655, abs=1e-4)
    assert high == 1


def test_no_share_or_one_pair_has_no_interval():
    assert all(map(math.isnan, superiority_interval(math.nan, 5)))
    assert all(map(math.isnan, superiority_interval(1.0, 1)))
    with pytest.raises(ValueError, match="share must be between 0 and 1"):
        superiority_interval(1.5, 5)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        superiority_interval(0.5, 5, level=95)
