"""How many seeds and subjects a question needs, from what the variance was made of.

The headline test's squared standard error splits into a part of the seeds, a part of the subjects
and a part of both (Hillis, Obuchowski and Berbaum, Academic Radiology 18, 2011). Each shrinks with
its own number, so one comparison tells what more seeds or a larger test set would bring, and where
the test set alone sets the floor: sqrt(C), however many seeds.

There is no post-hoc power here. The power of a finished comparison at the difference it observed
is its p-value in other words and says nothing new; ask instead for the difference that would
matter, and of a finished comparison read the interval.
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
"""Numbers of seeds or subjects beyond this are not looked for."""

_GRID = 500


@dataclass(frozen=True)
class Components:
    """The variance of a difference for one seed and one test subject.

    With S seeds and N subjects the squared standard error of the headline test is
    ``seed / S + subject / N + residual / (S N)``.

    Parameters
    ----------
    seed, subject, residual : float
        In squared units of the metric; 0 or more, not all 0.
    smallest_share : float
        Subjects of the smallest group over which the metric averages (of the AUC the smaller
        class), as a share of all. It counts only where nothing varies with the seed.

    Raises
    ------
    ValueError
        When a variance is negative or not finite, all are 0, or the share is not in (0, 1].
    """

    seed: float
    subject: float
    residual: float
    smallest_share: float = 1.0

    def __post_init__(self) -> None:
        parts = (self.seed, self.subject, self.residual)
        if not all(isfinite(part) and part >= 0 for part in parts) or not any(parts):
            raise ValueError(f"variances are 0 or more, and not all 0, unlike {parts}")
        if not 0 < self.smallest_share <= 1:
            raise ValueError(f"a share of the subjects is in (0, 1], not {self.smallest_share}")

    @property
    def varies_with_seed(self) -> bool:
        """Whether more seeds change anything."""
        return self.seed > 0 or self.residual > 0


@dataclass(frozen=True)
class Projection:
    """What to expect of the same comparison with other numbers.

    Parameters
    ----------
    n_seeds, n_subjects : float
    se, df : float
        Standard error of the difference and its degrees of freedom.
    half_width : float
        Of the confidence interval, at the comparison's own level.
    """

    n_seeds: float
    n_subjects: float
    se: float
    df: float
    half_width: float


def components_of(comparison: Comparison) -> Components:
    """Return the variance components of a comparison.

    A covariance over subjects that was estimated below 0 counts as 0, as in the test: the subject
    component is then 0, and what is planned from it is optimistic.

    Raises
    ------
    ValueError
        When the comparison has no test, or its runs were not paired by seed: two numbers of seeds
        with a variance each do not project to one.
    """
    if not isfinite(comparison.se):
        why = f": {'; '.join(comparison.flags)}" if comparison.flags else ""
        raise ValueError(f"the variance of this comparison is not known{why}")
    if not comparison.paired:
        raise ValueError("the runs are not paired by seed, so no number of seeds is projected")
    seeds, subjects, residual = (share * comparison.se**2 for share in comparison.shares)
    s, n = comparison.n_seeds, comparison.n_subjects
    return Components(seeds * s, subjects * n, residual * s * n, comparison.n_smallest / n)


def project(comparison: Comparison, n_seeds: float, n_subjects: float) -> Projection:
    """Return the interval to expect with other numbers of seeds and test subjects.

    The degrees of freedom are those of Hillis, V^2 / (v^2 / (S - 1)), with v the parts of the seed
    and of the residual. With the numbers of the comparison itself the result is its own interval.

    Parameters
    ----------
    comparison : Comparison
    n_seeds : float
        Two or more; ``inf`` for the floor that the test set sets.
    n_subjects : float
        Subjects, mixed as in the test set.

    Raises
    ------
    ValueError
        As `components_of`, and when the numbers are too small for a test.
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
    """Return projections, a row a number of seeds, a column a multiple of the test subjects.

    Raises
    ------
    ValueError
        As `project`.
    """
    n = comparison.n_subjects
    return tuple(tuple(project(comparison, s, factor * n) for factor in factors) for s in seeds)


def gain_from_seeds(comparison: Comparison) -> float:
    """Return the share, 0 to 1, by which more seeds would narrow the interval at most.

    The narrowest is the one of endless seeds: the normal quantile times sqrt(C).

    Raises
    ------
    ValueError
        As `components_of`.
    """
    if not components_of(comparison).varies_with_seed:
        return 0.0
    n = comparison.n_subjects
    now = project(comparison, comparison.n_seeds, n)
    return 1 - project(comparison, inf, n).half_width / now.half_width


def gain_from_subjects(comparison: Comparison) -> float:
    """Return the share, 0 to 1, by which more test subjects would narrow the interval at most.

    The narrowest is not always the one of endless subjects: as the part of the subjects vanishes,
    the degrees of freedom fall to the number of seeds - 1. So the best of many numbers is taken.

    Raises
    ------
    ValueError
        As `components_of`.
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
    """Return the probability that the headline test finds a true difference.

    It is that of a noncentral t with difference / se and Hillis' degrees of freedom, both tails
    counted. The components are taken as known, so it is a plan, not a promise.

    Parameters
    ----------
    difference : float
        The one that would matter, in the metric's units; its sign does not count.
    components : Components
    n_seeds, n_subjects : int
    alpha : float
        Of the two-sided test; alpha / m where m pairs share a family.

    Raises
    ------
    ValueError
        When the difference is not finite, `alpha` is out of range, or the numbers are too small
        for a test.
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
    """Return the difference, in the metric's units, that is found with the given probability.

    Raises
    ------
    ValueError
        As for the function `power`, and when `power` is not between `alpha` and 1.
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
    """Return the smallest number of seeds that finds the difference with the given probability.

    Returns
    -------
    int or None
        None where no number up to `MOST` does: the test set is then too small, whatever the
        seeds. 1 where nothing varies with the seed.

    Raises
    ------
    ValueError
        As `smallest_detectable`.
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
    """Return the smallest number of test subjects that finds the difference so probably.

    Returns
    -------
    int or None
        None where no number up to `MOST` does: there are then too few seeds, whatever the test
        set.

    Raises
    ------
    ValueError
        As `smallest_detectable`.
    """
    _check(difference, alpha, power)

    def reached(n_subjects: ArrayLike) -> Floats:
        se, df = _se_and_df(components, n_seeds, n_subjects)
        return _reached(abs(difference) / se, df, alpha)

    return _first(reached, ceil(2 / components.smallest_share), power)


def smallest_d_z(n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the standardised difference that a paired t test over n seeds finds so probably.

    Parameters
    ----------
    n : int
        Pairs of runs, 2 or more. The test takes the test set for the whole population.
    power, alpha : float
        Probability of finding it; level of the two-sided test.

    Raises
    ------
    ValueError
        When n is below 2, or `power` is not between `alpha` and 1.
    """
    if n < 2:
        raise ValueError(f"a paired t test needs two pairs, not {n}")
    return _noncentrality(n - 1, power, alpha) / float(np.sqrt(n))


def _se_and_df(
    components: Components, n_seeds: ArrayLike, n_subjects: ArrayLike
) -> tuple[Floats, Floats]:
    """Return the standard error and Hillis' degrees of freedom, over arrays of either number."""
    s = np.asarray(n_seeds, dtype=np.float64)
    n = np.asarray(n_subjects, dtype=np.float64)
    least = 2 if components.varies_with_seed else 1
    if not (s >= least).all():
        raise ValueError(f"a test needs {least} or more seeds, not {s.min():g}")
    if not (n * components.smallest_share > 1).all() or np.isinf(n).any():
        raise ValueError(f"a test needs two subjects in its smallest group, not {n.min():g} in all")
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
    # The lower tail is the upper one of the opposite sign, which scipy computes without NaN.
    return nct.sf(critical, df, noncentrality) + nct.sf(critical, df, np.negative(noncentrality))


def _noncentrality(df: float, power: float, alpha: float) -> float:
    """Return the noncentrality at which a two-sided t test has that power."""
    _check(0.0, alpha, power)
    high = 1.0
    while _reached(high, df, alpha) < power:
        high *= 2
    return float(brentq(lambda x: _reached(x, df, alpha) - power, 0.0, high, xtol=1e-12))


def _first(reached: Callable[[ArrayLike], Floats], least: int, wanted: float) -> int | None:
    """Return the first number from `least` to `MOST` with that power."""
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
        raise ValueError(f"a difference to be found is a number, not {difference}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, not at {alpha}")
    if power is not None and not alpha < power < 1:
        raise ValueError(f"power lies between alpha, {alpha}, and 1, not at {power}")
