"""Tests over runs alone, which are reported in addition to the headline test.

They take the test set as fixed. For new subjects, their type-I error at .05 is .08 to .33, so they
do not support claims about architectures.
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
"""Up to this number of pairs, all 2^n sign patterns are enumerated; above, there is no p."""


@dataclass(frozen=True)
class SeedTest:
    """A two-sided test of paired values over runs.

    Parameters
    ----------
    name, conditions_on : str
        The name of the test, and what it takes as fixed.
    n : int
        The number of pairs.
    p : float
        NaN if there is no test, for the reason in `note`.
    floor : float
        The smallest possible p-value for differences of these sizes, whatever their signs; pairs
        without a difference do not lower it. If it is above the significance level, the test
        cannot reject at all, which is not the same as "not significant".
    note : str
    """

    name: str
    conditions_on: str
    n: int
    p: float
    floor: float
    note: str = ""

    def can_reject(self, alpha: float = 0.05, m: int = 1) -> bool:
        """Whether p could be at most `alpha`, after Holm's adjustment for m comparisons.

        Sign and rank tests need 1 + log2(m / alpha) pairs with a difference.
        """
        if m < 1:
            raise ValueError(f"m must be at least 1, got {m}")
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
        Without p for fewer than two pairs, undefined values, or constant differences.

    Raises
    ------
    ValueError
        If the lengths differ.
    """
    first, second = _pairs(a, b)
    gaps = first - second
    note = _no_test(gaps) or _no_spread(first, second)
    p = float("nan") if note else max(float(ttest_rel(first, second).pvalue), SMALLEST_P)
    floor = 0.0 if len(gaps) > 1 else 1.0
    return SeedTest("paired t over seeds", _GIVEN, len(gaps), p, floor, note)


def sign_flip(a: ArrayLike, b: ArrayLike) -> SeedTest:
    """Exact sign-flip permutation test over seeds of the mean difference.

    All 2^n ways to swap the two arms within seeds are enumerated. p is the proportion of them with
    a mean difference at least as large as the observed one; it is at least 2 / 2^k with k pairs
    that differ.

    Parameters
    ----------
    a, b : array (S,)
        A metric of two arms, paired by seed.

    Returns
    -------
    SeedTest
        Without p for fewer than two pairs, more than 20, or undefined values.

    Raises
    ------
    ValueError
        If the lengths differ.
    """
    first, second = _pairs(a, b)
    gaps = first - second
    n = len(gaps)
    note = _no_test(gaps)
    if n > MOST_ENUMERATED:
        note = f"more than {MOST_ENUMERATED} pairs are not enumerated"
    p, floor = float("nan"), _two_sided_floor(n)
    if not note:
        sums = gaps[:1]  # The first sign is kept, because flipping all signs does not change |sum|.
        for gap in gaps[1:]:
            sums = np.concatenate([sums + gap, sums - gap])
        size = np.abs(first).sum() + np.abs(second).sum()
        p = float(np.mean(np.abs(sums) >= abs(gaps.sum()) - CONSTANT * size))
        floor = _two_sided_floor(int(np.count_nonzero(_steps(first, second))))
    return SeedTest("sign-flip permutation over seeds", _GIVEN, n, p, floor, note)


def wilcoxon(a: ArrayLike, b: ArrayLike) -> SeedTest:
    """Wilcoxon's signed-rank test over seeds (`scipy.stats.wilcoxon`, ``method="auto"``).

    Pairs without a difference are excluded; differences equal to a relative 1e-12 are ties.

    Parameters
    ----------
    a, b : array (S,)
        A metric of two arms, paired by seed.

    Returns
    -------
    SeedTest
        Without p for fewer than two pairs, undefined values, or if no pair differs.

    Raises
    ------
    ValueError
        If the lengths differ.
    """
    first, second = _pairs(a, b)
    note, p, n = _no_test(first - second), float("nan"), len(first)
    floor = _two_sided_floor(n)
    if not note:
        p, note = signed_rank_p(first, second)
        # p is smallest if all differences have the same sign.
        floor = 1.0 if note else _signed_rank_p(np.abs(_steps(first, second)))
    return SeedTest("Wilcoxon signed ranks over seeds", _GIVEN, n, p, floor, note)


def signed_rank_p(a: Floats, b: Floats) -> tuple[float, str]:
    """Return Wilcoxon's two-sided p for finite paired values, or NaN and the reason."""
    steps = _steps(a, b)
    if not steps.any():
        return float("nan"), "no pair differs"
    return _signed_rank_p(steps), ""


def superiority_interval(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of P(A>B), the probability that a new pair of runs favours A.

    This is Wilson's score interval of a proportion (Journal of the American Statistical Association
    22, 1927). Ties count as half a win, which makes the interval conservative. The test set is
    taken as fixed. Runs must be paired by seed, because pairs of every run with every other run
    are not independent.

    Parameters
    ----------
    share : float
        The proportion of wins, with ties counted one half.
    n : int
        The number of pairs of runs.
    level : float
        Confidence level, between 0 and 1.

    Returns
    -------
    low, high : float
        NaN if the share is NaN or there are fewer than two pairs.

    Raises
    ------
    ValueError
        If the share or the level is not between 0 and 1.
    """
    if share < 0 or share > 1:
        raise ValueError(f"share must be between 0 and 1, got {share}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    if np.isnan(share) or n < 2:
        return float("nan"), float("nan")
    z = float(ndtri(0.5 + level / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"paired values must have the same length, got shapes {first.shape} and {second.shape}"
        )
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
    """Return the differences, rounded so that those equal up to rounding errors are ties."""
    noise = CONSTANT * max(np.abs(first).max(), np.abs(second).max())
    return np.round((first - second) / noise) if noise > 0 else np.zeros(len(first))


def _signed_rank_p(steps: Floats) -> float:
    # "exact" would use the distribution for untied ranks even if there are ties.
    return max(float(signed_ranks(steps, method="auto").pvalue), SMALLEST_P)


def _two_sided_floor(n: int) -> float:
    """Return the proportion of the 2^n sign patterns that are as extreme as the most extreme."""
    return min(1.0, 2 / 2**n)
