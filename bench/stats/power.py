"""Power and sample size: the numbers of seeds and test subjects needed to detect a difference.

The squared standard error of the headline test is the sum of components for seeds, for subjects and
for both (Hillis, Obuchowski and Berbaum, Academic Radiology 18, 2011), which decrease with the
respective numbers. Therefore, the effect of more seeds or a larger test set can be predicted from
one comparison. With any number of seeds, the standard error is at least sqrt(C).

Post-hoc power is not provided. The power of a comparison for the observed difference is a function
of its p-value and carries no further information. Use a difference that would matter in practice
for planning, and the confidence interval for interpreting results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import stdtrit
from scipy.stats import nct

from bench.stats.inference import Comparison
from bench.stats.metric import Floats

MOST = 1_000_000
"""The maximum number of seeds or subjects in searches."""

_GRID = 500


@dataclass(frozen=True)
class Components:
    """Variance components of a difference, for one seed and one test subject.

    With S seeds and N subjects the squared standard error of the headline test is
    ``seed / S + subject / N + residual / (S N)``.

    Parameters
    ----------
    seed, subject, residual : float
        Non-negative, in squared units of the metric; at least one is positive.
    smallest_share : float
        The proportion of subjects in the smallest group over which the metric averages (for the
        AUC, the smaller class). It matters only if nothing varies with the seed.

    Raises
    ------
    ValueError
        If a variance is negative or not finite, all are 0, or the share is not in (0, 1].
    """

    seed: float
    subject: float
    residual: float
    smallest_share: float = 1.0

    def __post_init__(self) -> None:
        parts = (self.seed, self.subject, self.residual)
        if not all(isfinite(part) and part >= 0 for part in parts) or not any(parts):
            raise ValueError(f"variances must be non-negative and not all 0, got {parts}")
        if not 0 < self.smallest_share <= 1:
            raise ValueError(f"smallest_share must be in (0, 1], got {self.smallest_share}")

    @property
    def varies_with_seed(self) -> bool:
        """Whether the variance depends on the number of seeds."""
        return self.seed > 0 or self.residual > 0


@dataclass(frozen=True)
class Projection:
    """The expected precision of a comparison with other numbers of seeds and subjects.

    Parameters
    ----------
    n_seeds, n_subjects : float
    se, df : float
        Standard error of the difference and its degrees of freedom.
    half_width : float
        Half-width of the confidence interval, at the level of the comparison.
    """

    n_seeds: float
    n_subjects: float
    se: float
    df: float
    half_width: float


def components_of(comparison: Comparison) -> Components:
    """Return the variance components of a comparison.

    As in the test, a negative estimate of the covariance over subjects is replaced by 0. The
    subject component is then 0, so that plans are too optimistic.

    Raises
    ------
    ValueError
        If the comparison has no test, or its runs were not paired by seed, because unpaired arms
        have separate numbers of seeds and variances.
    """
    if not isfinite(comparison.se):
        why = f": {'; '.join(comparison.flags)}" if comparison.flags else ""
        raise ValueError(f"the variance of this comparison is unknown{why}")
    if not comparison.paired:
        raise ValueError("the runs are not paired by seed, so precision cannot be projected")
    seeds, subjects, residual = (share * comparison.se**2 for share in comparison.shares)
    s, n = comparison.n_seeds, comparison.n_subjects
    return Components(seeds * s, subjects * n, residual * s * n, comparison.n_smallest / n)


def project(comparison: Comparison, n_seeds: float, n_subjects: float) -> Projection:
    """Return the expected precision with other numbers of seeds and test subjects.

    The degrees of freedom are those of Hillis, V^2 / (v^2 / (S - 1)), where v is the sum of the
    components for seeds and for the residual. With the numbers of the comparison itself, the result
    is its own interval.

    Parameters
    ----------
    comparison : Comparison
    n_seeds : float
        At least two; ``inf`` for the limit that is due to the test set.
    n_subjects : float
        The number of subjects, with the same proportions of groups as in the test set.

    Raises
    ------
    ValueError
        As for `components_of`, and if the numbers are too small for a test.
    """
    components = components_of(comparison)
    se, df = _se_and_df(components, n_seeds, n_subjects)
    half = _quantile(df, comparison.level) * se
    return Projection(n_seeds, n_subjects, float(se), float(df), float(half))


def projection_table(
    comparison: Comparison,
    seeds: Sequence[float] = (3, 5, 10, 20),
    factors: Sequence[float] = (1, 2, 4),
) -> tuple[tuple[Projection, ...], ...]:
    """Return projections for numbers of seeds (rows) and multiples of the test set (columns).

    Raises
    ------
    ValueError
        As for `project`.
    """
    n = comparison.n_subjects
    return tuple(tuple(project(comparison, s, factor * n) for factor in factors) for s in seeds)


def gain_from_seeds(comparison: Comparison) -> float:
    """Return the proportion (0 to 1) by which more seeds could narrow the interval at most.

    With infinitely many seeds, the half-width is the normal quantile times sqrt(C).

    Raises
    ------
    ValueError
        As for `components_of`.
    """
    if not components_of(comparison).varies_with_seed:
        return 0.0
    n = comparison.n_subjects
    now = project(comparison, comparison.n_seeds, n)
    return 1 - project(comparison, inf, n).half_width / now.half_width


def gain_from_subjects(comparison: Comparison) -> float:
    """Return the proportion (0 to 1) by which more subjects could narrow the interval at most.

    The interval is not always narrowest with infinitely many subjects: as the component for
    subjects vanishes, the degrees of freedom decrease to the number of seeds - 1. Therefore, the
    minimum over many numbers of subjects is used.

    Raises
    ------
    ValueError
        As for `components_of`.
    """
    components = components_of(comparison)
    if components.seed == 0:
        return 1.0
    n = comparison.n_subjects * np.geomspace(1, 1e12, 4 * _GRID)
    se, df = _se_and_df(components, comparison.n_seeds, n)
    halves = _quantile(df, comparison.level) * se
    return float(1 - halves.min() / halves[0])


def power(
    difference: float,
    components: Components,
    n_seeds: int,
    n_subjects: int,
    alpha: float = 0.05,
) -> float:
    """Return the probability that the headline test detects a true difference.

    It is computed from both tails of a noncentral t distribution with noncentrality
    difference / se and Hillis' degrees of freedom. The components are taken as known, so it is
    approximate.

    Parameters
    ----------
    difference : float
        A true difference in units of the metric; its sign does not matter.
    components : Components
    n_seeds, n_subjects : int
    alpha : float
        Level of the two-sided test; use alpha / m for a family of m pairs.

    Raises
    ------
    ValueError
        If the difference is not finite, `alpha` is out of range, or the numbers are too small for
        a test.
    """
    _check(difference, alpha)
    se, df = _se_and_df(components, n_seeds, n_subjects)
    return float(_reached(abs(difference) / se, df, alpha))


def smallest_detectable(
    components: Components,
    n_seeds: int,
    n_subjects: int,
    power: float = 0.8,
    alpha: float = 0.05,
) -> float:
    """Return the difference, in units of the metric, that is detected with the given power.

    Raises
    ------
    ValueError
        As for the function `power`, and if `power` is not between `alpha` and 1.
    """
    se, df = _se_and_df(components, n_seeds, n_subjects)
    return _noncentrality(float(df), power, alpha) * float(se)


def required_seeds(
    difference: float,
    components: Components,
    n_subjects: int,
    power: float = 0.8,
    alpha: float = 0.05,
) -> int | None:
    """Return the smallest number of seeds that detects the difference with the given power.

    Returns
    -------
    int or None
        None if no number up to `MOST` is sufficient, because the test set is too small; 1 if
        nothing varies with the seed.

    Raises
    ------
    ValueError
        As for `smallest_detectable`.
    """
    _check(difference, alpha, power)

    def reached(n_seeds: ArrayLike) -> Floats:
        se, df = _se_and_df(components, n_seeds, n_subjects)
        return _reached(abs(difference) / se, df, alpha)

    return _first(reached, 2 if components.varies_with_seed else 1, power)


def required_subjects(
    difference: float,
    components: Components,
    n_seeds: int,
    power: float = 0.8,
    alpha: float = 0.05,
) -> int | None:
    """Return the smallest number of test subjects that detects the difference with this power.

    Returns
    -------
    int or None
        None if no number up to `MOST` is sufficient, because there are too few seeds.

    Raises
    ------
    ValueError
        As for `smallest_detectable`.
    """
    _check(difference, alpha, power)

    def reached(n_subjects: ArrayLike) -> Floats:
        se, df = _se_and_df(components, n_seeds, n_subjects)
        return _reached(abs(difference) / se, df, alpha)

    return _first(reached, ceil(2 / components.smallest_share), power)


def smallest_d_z(n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the standardised difference that a paired t test over n seeds detects.

    Parameters
    ----------
    n : int
        The number of pairs of runs, at least two. The test takes the test set as fixed.
    power, alpha : float
        Power and level of the two-sided test.

    Raises
    ------
    ValueError
        If n is less than 2, or `power` is not between `alpha` and 1.
    """
    if n < 2:
        raise ValueError(f"a paired t test needs at least two pairs, got {n}")
    return _noncentrality(n - 1, power, alpha) / float(np.sqrt(n))


def _se_and_df(
    components: Components, n_seeds: ArrayLike, n_subjects: ArrayLike
) -> tuple[Floats, Floats]:
    """Return the standard error and Hillis' degrees of freedom; both numbers can be arrays."""
    s = np.asarray(n_seeds, dtype=np.float64)
    n = np.asarray(n_subjects, dtype=np.float64)
    least = 2 if components.varies_with_seed else 1
    if not (s >= least).all():
        raise ValueError(f"n_seeds must be at least {least} for a test, got {s.min():g}")
    if not (n * components.smallest_share > 1).all() or np.isinf(n).any():
        raise ValueError(
            f"a test needs two subjects in the smallest group, got {n.min():g} subjects in total"
        )
    runs = components.seed / s + components.residual / (s * n)
    variance = runs + components.subject / n
    if not components.varies_with_seed:
        return np.sqrt(variance), components.smallest_share * n - 1
    endless = np.isinf(s)
    ratio = variance / np.where(endless, 1.0, runs)
    df = ratio**2 * (np.where(endless, 2.0, s) - 1)
    return np.sqrt(variance), np.where(endless, inf, df)


def _quantile(df: Floats, level: float) -> Floats:
    return stdtrit(df, 0.5 + level / 2)


def _reached(noncentrality: ArrayLike, df: ArrayLike, alpha: float) -> Floats:
    """Return the power of a two-sided t test."""
    critical = stdtrit(df, 1 - alpha / 2)
    # The lower tail is computed as an upper tail, for which scipy does not return NaN.
    return nct.sf(critical, df, noncentrality) + nct.sf(critical, df, np.negative(noncentrality))


def _noncentrality(df: float, power: float, alpha: float) -> float:
    """Return the noncentrality at which a two-sided t test has this power."""
    _check(0.0, alpha, power)
    high = 1.0
    while _reached(high, df, alpha) < power:
        high *= 2
    return float(brentq(lambda x: _reached(x, df, alpha) - power, 0.0, high, xtol=1e-12))


def _first(reached: Callable[[ArrayLike], Floats], least: int, wanted: float) -> int | None:
    """Return the smallest number from `least` to `MOST` with this power."""
    grid = np.unique(np.geomspace(least, MOST, _GRID).round().astype(int))
    found = np.flatnonzero(reached(grid) >= wanted)
    if not len(found):
        return None
    high = int(grid[found[0]])
    low = int(grid[found[0] - 1]) if found[0] else high - 1
    while high - low > 1:
        middle = (low + high) // 2
        if reached(middle) >= wanted:
            high = middle
        else:
            low = middle
    return high


def _check(difference: float, alpha: float, power: float | None = None) -> None:
    if not isfinite(difference):
        raise ValueError(f"difference must be finite, got {difference}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
    if power is not None and not alpha < power < 1:
        raise ValueError(f"power must be between alpha ({alpha}) and 1, got {power}")
