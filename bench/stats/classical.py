"""Tests over seeds alone, shown beside the headline test for what they condition on.

They take the test set for the whole population: with new subjects their type-I error at .05 is
.08 to .33, so they never carry a claim about architectures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import ttest_rel

from bench.stats.metrics import CONSTANT, Floats

MOST_ENUMERATED = 20
"""Up to this many pairs all 2^n sign patterns are looked at; beyond it there is no p."""


@dataclass(frozen=True)
class SeedTest:
    """A two-sided test of paired values over seeds.

    Parameters
    ----------
    name, conditions_on : str
        The test, and what it takes as given.
    n : int
        Pairs.
    p : float
        NaN where there is none; `note` says why.
    floor : float
        The smallest p that n pairs can give. At a floor above the chosen level print "cannot
        reject at this n", not "not significant".
    note : str
    """

    name: str
    conditions_on: str
    n: int
    p: float
    floor: float
    note: str = ""

    def can_reject(self, alpha: float = 0.05) -> bool:
        """Whether any data of this n could give a p of at most `alpha`."""
        return self.floor <= alpha


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
    note = _no_test(gaps)
    size = np.abs(np.concatenate([first, second])).max(initial=0)
    if not note and gaps.std(ddof=1) <= CONSTANT * size:
        note = "the differences do not vary"
    p = float("nan") if note else float(ttest_rel(first, second).pvalue)
    floor = 0.0 if len(gaps) > 1 else 1.0
    return SeedTest("paired t over seeds", _GIVEN, len(gaps), p, floor, note)


def sign_flip(a: ArrayLike, b: ArrayLike) -> SeedTest:
    """Exact sign-flip permutation test over seeds of the mean difference.

    All 2^n ways to swap the two arms within seeds are counted; p is the share of them whose mean
    difference is at least as large as the observed one, and cannot be below 2 / 2^n.

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
    p = float("nan")
    if not note:
        sums = gaps[:1]  # flipping every sign changes no absolute sum, so the first one stays
        for gap in gaps[1:]:
            sums = np.concatenate([sums + gap, sums - gap])
        size = np.abs(first).sum() + np.abs(second).sum()
        p = float(np.mean(np.abs(sums) >= abs(gaps.sum()) - CONSTANT * size))
    return SeedTest("sign-flip permutation over seeds", _GIVEN, n, p, min(1.0, 2 / 2**n), note)


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"paired values need one length, not {first.shape} and {second.shape}")
    return first, second


def _no_test(gaps: Floats) -> str:
    if len(gaps) < 2:
        return "fewer than two pairs"
    return "" if np.isfinite(gaps).all() else "a run has no value"
