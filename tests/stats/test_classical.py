from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test, t

from bench.stats.classical import paired_t, sign_flip


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
    # As floats 0.1 + 0.2 - 0.3 is not 0, so equal sums differ by noise.
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


def test_equal_values_give_no_t_and_a_permutation_p_of_one():
    a = np.array([0.1 + 0.2, 0.3, 0.3])
    b = np.array([0.3, 0.3, 0.3])
    assert math.isnan(paired_t(a, b).p)
    assert paired_t(a, b).note == "the differences do not vary"
    assert sign_flip(a, b).p == 1


@pytest.mark.parametrize("test", [paired_t, sign_flip])
def test_too_few_pairs_or_an_undefined_run_give_no_p(test):
    assert (test([1.0], [2.0]).note, test([], []).note) == ("fewer than two pairs",) * 2
    assert not test([1.0], [2.0]).can_reject()
    undefined = test([1.0, np.nan, 3.0], [2.0, 2.0, 2.5])
    assert math.isnan(undefined.p)
    assert undefined.note == "a run has no value"
    with pytest.raises(ValueError, match="one length"):
        test([1.0, 2.0], [1.0])


def test_many_pairs_are_said_not_to_be_enumerated():
    assert sign_flip(np.arange(21.0), np.zeros(21)).note == "more than 20 pairs are not enumerated"
    assert sign_flip(np.arange(20.0), np.zeros(20)).p == pytest.approx(4 / 2**20)


def test_both_say_what_they_take_as_given():
    a, b = values(0)
    assert {paired_t(a, b).conditions_on, sign_flip(a, b).conditions_on} == {
        "new runs, this test set"
    }
