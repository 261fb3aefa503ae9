"""Tests over runs alone, shown beside the headline test for what they condition on.

They take the test set for the whole population: with new subjects their type-I error at .05 is .08
to .33, so they never carry a claim about architectures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri
from scipy.stats import ttest_rel
from scipy.stats import wilcoxon as signed_ranks

from bench.stats.metric import CONSTANT, Floats
from bench.stats.metrics import SMALLEST_P

MOST_ENUMERATED = 20
"""Up to this many pairs all 2^n sign patterns are looked at; beyond it there is no p."""


@dataclass(frozen=True)
class SeedTest:
    """A two-sided test of paired values over runs.

    Parameters
    ----------
    name, conditions_on : str
        The test, and what it takes as given.
    n : int
        Pairs.
    p : float
        NaN where there is none; `note` says why.
    floor : float
        The smallest p that differences of these sizes can give, whatever their signs; pairs
        without a difference lower nothing. At a floor above the chosen level print "cannot reject
        at this n", not "not significant".
    note : str
    """

    name: str
    conditions_on: str
    n: int
    p: float
    floor: float
    note: str = ""

    def can_reject(self, alpha: float = 0.05, m: int = 1) -> bool:
        """Whether the pairs could give a p of at most `alpha`, after Holm over m comparisons.

        A sign or rank test needs 1 + log2(m / alpha) pairs that differ.
        """
        if m < 1:
            raise ValueError(f"a family has one pair or more, not {m}")
        return self.floor * m <= alpha


_GIVEN = "new runs, this test set"


def paired_t(a: ArrayLike, b: ArrayLike) -> SeedTest:
    """Paired t test over seeds (`scipy.stats.ttest_rel`).

    Parameters
    ----------
    a, b : array (S,)
        A metric of two arms, paired by seed.

    Returns
    -------
    SeedTest
        Without p for fewer than two pairs, an undefined value, or differences that do not vary.

    Raises
    ------
    ValueError
        When the two are not of one length.
    """
    first, second = _pairs(a, b)
    gaps = first - second
    note = _no_test(gaps) or _no_spread(first, second)
    p = float("nan") if note else max(float(ttest_rel(first, second).pvalue), SMALLEST_P)
    floor = 0.0 if len(gaps) > 1 else 1.0
    return SeedTest("paired t over seeds", _GIVEN, len(gaps), p, floor, note)


def sign_flip(a: ArrayLike, b: ArrayLike) -> SeedTest:
    """Exact sign-flip permutation test over seeds of the mean difference.

    All 2^n ways to swap the two arms within seeds are counted; p is the share of them whose mean
    difference is at least as large as the observed one, and cannot be below 2 / 2^k with k pairs
    that differ.

    Parameters
    ----------
    a, b : array (S,)
        A metric of two arms, paired by seed.

    Returns
    -------
    SeedTest
        Without p for fewer than two pairs, more than 20, or an undefined value.

    Raises
    ------
    ValueError
        When the two are not of one length.
    """
    first, second = _pairs(a, b)
    gaps = first - second
    n = len(gaps)
    note = _no_test(gaps)
    if n > MOST_ENUMERATED:
        note = f"more than {MOST_ENUMERATED} pairs are not enumerated"
    p, floor = float("nan"), _two_sided_floor(n)
    if not note:
        sums = gaps[:1]  # flipping every sign changes no absolute sum, so the first one stays
        for gap in gaps[1:]:
            sums = np.concatenate([sums + gap, sums - gap])
        size = np.abs(first).sum() + np.abs(second).sum()
        p = float(np.mean(np.abs(sums) >= abs(gaps.sum()) - CONSTANT * size))
        floor = _two_sided_floor(int(np.count_nonzero(_steps(first, second))))
    return SeedTest("sign-flip permutation over seeds", _GIVEN, n, p, floor, note)


def wilcoxon(a: ArrayLike, b: ArrayLike) -> SeedTest:
    """Wilcoxon's signed-rank test over seeds (`scipy.stats.wilcoxon`, ``method="auto"``).

    Pairs without a difference are left out; differences that agree to a relative 1e-12 are ties.

    Parameters
    ----------
    a, b : array (S,)
        A metric of two arms, paired by seed.

    Returns
    -------
    SeedTest
        Without p for fewer than two pairs, an undefined value, or no difference at all.

    Raises
    ------
    ValueError
        When the two are not of one length.
    """
    first, second = _pairs(a, b)
    note, p, n = _no_test(first - second), float("nan"), len(first)
    floor = _two_sided_floor(n)
    if not note:
        p, note = signed_rank_p(first, second)
        # With all signs alike the ranks are as far from balance as these sizes allow.
        floor = 1.0 if note else _signed_rank_p(np.abs(_steps(first, second)))
    return SeedTest("Wilcoxon signed ranks over seeds", _GIVEN, n, p, floor, note)


def signed_rank_p(a: Floats, b: Floats) -> tuple[float, str]:
    """Return Wilcoxon's two-sided p of finite paired values, or NaN and why there is none."""
    steps = _steps(a, b)
    if not steps.any():
        return float("nan"), "no pair differs"
    return _signed_rank_p(steps), ""


def superiority_interval(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of P(A>B), the probability that a new pair of runs favours A.

    Wilson's score interval of a proportion (Journal of the American Statistical Association 22,
    1927), with half a win for a tie, which varies less than a win or a loss, so that the interval
    is then wide rather than narrow. It takes the test set as given and is for runs paired by seed:
    the pairs of all runs with all are no independent trials.

    Parameters
    ----------
    share : float
        Wins and half the ties, over n.
    n : int
        Pairs of runs.
    level : float
        Between 0 and 1.

    Returns
    -------
    low, high : float
        NaN where there is no share or fewer than two pairs.

    Raises
    ------
    ValueError
        When the share or the level is not between 0 and 1.
    """
    if share < 0 or share > 1:
        raise ValueError(f"a share lies between 0 and 1, not at {share}")
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, not at {level}")
    if np.isnan(share) or n < 2:
        return float("nan"), float("nan")
    z = float(ndtri(0.5 + level / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"paired values need one length, not {first.shape} and {second.shape}")
    return first, second


def _no_test(gaps: Floats) -> str:
    if len(gaps) < 2:
        return "fewer than two pairs"
    return "" if np.isfinite(gaps).all() else "a run has no value"


def _no_spread(first: Floats, second: Floats) -> str:
    size = max(np.abs(first).max(), np.abs(second).max())
    vary = (first - second).std(ddof=1) > CONSTANT * size
    return "" if vary else "the differences do not vary"


def _steps(first: Floats, second: Floats) -> Floats:
    """Return the differences in units of float noise, rounded: what agrees is equal."""
    noise = CONSTANT * max(np.abs(first).max(), np.abs(second).max())
    return np.round((first - second) / noise) if noise > 0 else np.zeros(len(first))


def _signed_rank_p(steps: Floats) -> float:
    # "exact" takes its table for untied ranks also where ranks are tied; "auto" does not.
    return max(float(signed_ranks(steps, method="auto").pvalue), SMALLEST_P)


def _two_sided_floor(n: int) -> float:
    """Return the share of sign patterns of n pairs that are as extreme as the most extreme one."""
    return min(1.0, 2 / 2**n)
