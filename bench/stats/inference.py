"""The headline test of two architectures, which generalises to new training runs and subjects.

All runs of a benchmark share one test set, so runs and subjects are crossed. This is the design of
multi-reader multi-case studies, with the architecture as modality, the seed as reader and the
subject as case. A test over seeds or subjects alone takes the other factor as fixed and rejects too
often. The test is that of Obuchowski and Rockette (Communications in Statistics 24, 1995) for two
modalities, with the degrees of freedom of Hillis (Statistics in Medicine 26, 2007).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, stdtr, stdtrit
from scipy.stats import false_discovery_control

from bench.stats.measured import MeasuredRuns
from bench.stats.metric import CONSTANT, Floats
from bench.stats.metrics import SMALLEST_P, metric_of

FEW_SUBJECTS = 30
"""With fewer subjects, the covariance over subjects is itself uncertain."""

_NAN = float("nan")


class TTest(NamedTuple):
    """Degrees of freedom, two-sided p-value and confidence bounds of a difference."""

    df: float
    p: float
    low: float
    high: float


class Shares(NamedTuple):
    """The variance components of the difference as proportions, which add up to 1.

    `seeds` decreases with more seeds, `subjects` with more test subjects, and `residual` (the
    interaction of runs and subjects) with either.
    """

    seeds: float
    subjects: float
    residual: float


class Interval(NamedTuple):
    """A mean over seeds with its confidence bounds and the number of values."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """The comparison of arm A with arm B by one metric; values are NaN if there is no test.

    `difference`, `se`, `t`, `low`, `high`, `d_z` and `g_z` refer to A - B, whatever the direction
    of the metric; `improvement` and `p_superior` refer to A being better.

    Parameters
    ----------
    metric : str
    difference, improvement : float
        Mean of A - B over runs; the same with the sign such that positive values favour A.
    se, df, t, p, low, high : float
        Standard error, degrees of freedom, statistic, two-sided p-value, confidence bounds.
    level : float
        Confidence level of the bounds.
    paired : bool
        Whether runs were paired by seed.
    n_seeds : int
        The number of pairs of runs. It is the smaller number of runs if these are not paired, and
        S if a single fit is compared with S runs.
    n_seeds_a, n_seeds_b : int
        The number of runs of each arm; 1 for a single fit.
    one_fit_a, one_fit_b : bool
        Whether the arm is a single fit, independent of the seed.
    n_subjects, n_smallest : int
        The numbers of test subjects in total, and in the smallest group over which the metric
        averages.
    dropped : tuple of int
        Seeds that were excluded because one arm, or a part of a sum, lacks them.
    v_seed, c : float
        Variance of the difference over runs, and estimated covariance of the difference between
        runs, which is due to the test set. The squared standard error is ``v_seed + max(c, 0)``.
    d_z, g_z : float
        Mean divided by the standard deviation of the paired differences, without and with
        correction for few seeds.
    p_superior : float
        The proportion of pairs of runs (of all pairs, if unpaired) in which A is better; ties
        count one half.
    shares : Shares
        Components of the squared standard error.
    few_subjects : TTest or None
        With fewer than 30 subjects in the smallest group, a more conservative test, with degrees
        of freedom that account for the uncertainty of `c`.
    flags : tuple of str
        Limitations of the comparison.
    """

    metric: str
    difference: float
    improvement: float
    se: float
    df: float
    t: float
    p: float
    low: float
    high: float
    level: float
    paired: bool
    n_seeds: int
    n_seeds_a: int
    n_seeds_b: int
    one_fit_a: bool
    one_fit_b: bool
    n_subjects: int
    n_smallest: int
    dropped: tuple[int, ...]
    v_seed: float
    c: float
    d_z: float
    g_z: float
    p_superior: float
    shares: Shares
    few_subjects: TTest | None
    flags: tuple[str, ...]

    @property
    def n_dropped(self) -> int:
        """The number of excluded seeds."""
        return len(self.dropped)

    @property
    def improvement_interval(self) -> tuple[float, float]:
        """The confidence bounds of `improvement`."""
        if metric_of(self.metric).higher_is_better:
            return self.low, self.high
        return -self.high, -self.low


def compare(a: MeasuredRuns, b: MeasuredRuns, level: float = 0.95) -> Comparison:
    """Test whether arms A and B differ; generalises to new training runs and new subjects.

    With S seeds paired by id and d_s = A_s - B_s::

        v = var(d, ddof=1) / S,   C = mean covariance over subjects of two different d_s,
        V = v + max(C, 0),   t = mean(d) / sqrt(V),   df = V^2 / (v^2 / (S - 1))

    Arms that share fewer than two seeds are compared unpaired, with v = v_A + v_B, the sum of the
    variances of the two means, C = C_AA + C_BB - 2 C_AB, and
    df = V^2 / (v_A^2/(S_A - 1) + v_B^2/(S_B - 1)). If v = 0, t has n_smallest - 1 degrees of
    freedom. An arm that is a single fit is compared with every run of the other arm.

    Parameters
    ----------
    a, b : MeasuredRuns
        Measurements by the same metric on the same subjects.
    level : float
        Confidence level, between 0 and 1.

    Returns
    -------
    Comparison
        Without a test if an arm has a single run or the metric is undefined.

    Raises
    ------
    ValueError
        If the metrics or the truths differ, or `level` is not between 0 and 1.
    """
    if a.metric != b.metric:
        raise ValueError(f"{a.metric.name} cannot be compared with {b.metric.name}")
    shapes = a.predictions.shape[1:], b.predictions.shape[1:]
    if shapes[0] != shapes[1] or not np.array_equal(a.truth, b.truth):
        raise ValueError("the two arms have different test subjects or labels")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    a, b, paired, dropped = _joined(a, b)
    gaps = a.values - b.values if paired else np.subtract.outer(a.values, b.values).ravel()
    better = gaps if a.metric.higher_is_better else -gaps
    difference = float(gaps.mean())
    n_seeds = len(gaps) if paired else min(len(a.values), len(b.values))

    noise = CONSTANT * _scale(a, b)
    parts = _paired_parts(a, b, noise) if paired else _unpaired_parts(a, b, noise)
    variance = parts.seeds + parts.subjects
    se, test, few = _NAN, TTest(_NAN, _NAN, _NAN, _NAN), None
    if variance > 0:
        se = float(np.sqrt(variance))
        cautious = variance**2 / (parts.seeds_per_df + parts.subjects**2 / (a.n_smallest - 1))
        hillis = variance**2 / parts.seeds_per_df if parts.seeds > 0 else cautious
        test = _t_test(difference, se, hillis, level)
        if a.n_smallest < FEW_SUBJECTS:
            few = _t_test(difference, se, cautious, level)

    d_z = difference / float(gaps.std(ddof=1)) if paired and parts.seeds > 0 else _NAN
    superior = _NAN
    if n_seeds > 1 and np.isfinite(difference):
        superior = float(np.mean((better > noise) + 0.5 * (np.abs(better) <= noise)))
    return Comparison(
        metric=a.metric.name,
        difference=difference,
        improvement=float(better.mean()),
        se=se,
        df=test.df,
        t=difference / se,
        p=test.p,
        low=test.low,
        high=test.high,
        level=level,
        paired=paired,
        n_seeds=n_seeds,
        n_seeds_a=len(a.values),
        n_seeds_b=len(b.values),
        one_fit_a=a.one_fit,
        one_fit_b=b.one_fit,
        n_subjects=len(a.truth),
        n_smallest=a.n_smallest,
        dropped=dropped,
        v_seed=parts.seeds,
        c=parts.c,
        d_z=d_z,
        g_z=d_z * _small_sample(n_seeds),
        p_superior=superior,
        shares=parts.shares(),
        few_subjects=few,
        flags=_flags(a, b, parts, paired, dropped),
    )


def interval_over_seeds(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean over seeds with its t interval.

    Parameters
    ----------
    values : array (S,)
        One value per seed.
    level : float
        Confidence level, between 0 and 1.

    Returns
    -------
    Interval
        The bounds are NaN for a single seed or constant values. If a value is NaN, so is the mean,
        because undefined runs must not be omitted.

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    found = np.asarray(values, dtype=np.float64)
    n = len(found)
    if not n or not np.isfinite(found).all():
        return Interval(_NAN, _NAN, _NAN, n)
    mean = float(found.mean())
    if n == 1 or found.std(ddof=1) <= CONSTANT * np.abs(found).max():
        return Interval(mean, _NAN, _NAN, n)
    half = float(stdtrit(n - 1, 0.5 + level / 2) * found.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def holm(p: ArrayLike) -> Floats:
    """Return Holm's adjusted p-values (family-wise error rate); NaN remains and is not counted.

    Parameters
    ----------
    p : array (m,)

    Raises
    ------
    ValueError
        If a p-value is not between 0 and 1.
    """
    return _adjusted(p, _step_down)


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Return Benjamini-Hochberg adjusted p-values (false discovery rate), with NaN as in `holm`.

    Parameters
    ----------
    p : array (m,)

    Raises
    ------
    ValueError
        If a p-value is not between 0 and 1.
    """
    return _adjusted(p, false_discovery_control)


class _Parts(NamedTuple):
    """Variance components of a difference; NaN if unknown."""

    seeds: float
    c: float
    residual: float  # The part of `seeds` that also decreases with more subjects.
    seeds_per_df: float  # Sum of squared variances divided by their degrees of freedom.

    @property
    def subjects(self) -> float:
        return 0.0 if self.c < 0 else self.c

    def shares(self) -> Shares:
        total = self.seeds + self.subjects
        if not total > 0:
            return Shares(_NAN, _NAN, _NAN)
        residual = min(max(self.residual, 0.0), self.seeds)
        return Shares((self.seeds - residual) / total, self.subjects / total, residual / total)


_UNKNOWN = _Parts(_NAN, _NAN, _NAN, _NAN)


def _joined(
    a: MeasuredRuns, b: MeasuredRuns
) -> tuple[MeasuredRuns, MeasuredRuns, bool, tuple[int, ...]]:
    """Pair runs by seed if two seeds are shared; also return whether, and the excluded seeds."""
    lost = {*a.dropped, *b.dropped}
    paired = a.one_fit or b.one_fit
    if not paired:
        shared = [seed for seed in a.seeds if seed in b.seeds]
        paired = len(shared) >= min(2, len(a.seeds), len(b.seeds))
        if paired:
            lost |= set(a.seeds) ^ set(b.seeds)
            a, b = a.only(shared), b.only(shared)
    return a, b, paired, tuple(sorted(lost))


def _scale(a: MeasuredRuns, b: MeasuredRuns) -> float:
    """Return the magnitude of the values, which determines the size of rounding errors."""
    return float(np.concatenate([a.sizes, b.sizes]).max())


def _paired_parts(a: MeasuredRuns, b: MeasuredRuns, noise: float) -> _Parts:
    gaps, deviations = a.values - b.values, a.deviations - b.deviations
    n = len(gaps)
    if a.one_fit and b.one_fit:
        return _Parts(0.0, _beyond(float(np.sum(deviations**2)), noise), 0.0, 0.0)
    if n == 1:
        return _UNKNOWN
    seeds = _beyond(float(gaps.var(ddof=1)), noise) / n
    own, c = _covariance(deviations)
    return _Parts(seeds, _beyond(c, noise), (own - c) / n, seeds**2 / (n - 1))


def _unpaired_parts(a: MeasuredRuns, b: MeasuredRuns, noise: float) -> _Parts:
    if min(len(a.values), len(b.values)) == 1:
        return _UNKNOWN
    seeds, residual, seeds_per_df = 0.0, 0.0, 0.0
    c = -2 * float(a.deviations.mean(axis=0) @ b.deviations.mean(axis=0))
    for arm in (a, b):
        n = len(arm.values)
        variance = _beyond(float(arm.values.var(ddof=1)), noise) / n
        own, between = _covariance(arm.deviations)
        seeds += variance
        seeds_per_df += variance**2 / (n - 1)
        residual += (own - between) / n
        c += between
    return _Parts(seeds, _beyond(c, noise), residual, seeds_per_df)


def _covariance(deviations: Floats) -> tuple[float, float]:
    """Return the mean variance of a run and the mean covariance of two runs, over subjects."""
    n = len(deviations)
    diagonal = float(np.sum(deviations**2))
    everything = float(np.sum(deviations.sum(axis=0) ** 2))
    return diagonal / n, (everything - diagonal) / (n * (n - 1))


def _beyond(variance: float, noise: float) -> float:
    """Return the variance, or 0 if it is due to rounding errors."""
    return 0.0 if abs(variance) <= noise**2 else variance


def _t_test(difference: float, se: float, df: float, level: float) -> TTest:
    half = stdtrit(df, 0.5 + level / 2) * se
    p = max(2 * stdtr(df, -abs(difference) / se), SMALLEST_P)
    return TTest(float(df), float(p), float(difference - half), float(difference + half))


def _small_sample(n: int) -> float:
    """Return Hedges' exact correction of d_z from n pairs; NaN for fewer than three."""
    df = n - 1
    if df < 2:
        return _NAN
    return float(np.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / np.sqrt(df / 2))


def _flags(
    a: MeasuredRuns, b: MeasuredRuns, parts: _Parts, paired: bool, dropped: tuple[int, ...]
) -> tuple[str, ...]:
    """Return the limitations of the comparison."""
    arms = (("A", a), ("B", b))
    flags = [
        f"{letter}: undefined in seed {seed}, {reason}"
        for letter, arm in arms
        for seed, reason in zip(arm.seeds, arm.reasons, strict=True)
        if reason
    ]
    defined = not flags
    if dropped:
        flags.append(f"seeds dropped: {', '.join(map(str, dropped))}")
    if not paired:
        flags.append("unpaired")
    flags += [f"{letter} is 1 fit" for letter, arm in arms if arm.one_fit]

    if a.predictions.shape == b.predictions.shape and np.array_equal(a.predictions, b.predictions):
        flags.append("identical predictions: is this the same checkpoint?")
    elif paired and (same := _seeds_alike(a, b)):
        flags.append(f"identical predictions in seeds {same}: is this the same checkpoint?")
    for letter, arm in arms:
        different = {row.tobytes() for row in arm.predictions}
        if len(different) < len(arm.seeds) and not arm.deterministic:
            flags.append(f"{letter}: identical predictions across seeds: is this one checkpoint?")

    if defined and parts is _UNKNOWN:
        flags.append("one seed: no claim about architectures")
    elif defined and np.isnan(parts.c):
        flags.append("no p-value: the test set is too small or too uniform")
    elif parts.seeds == 0:
        flags.append("zero seed variance" if parts.c > 0 else "zero variance: no p")
    if parts.c < 0:
        flags.append("C truncated at 0")
    if a.n_smallest < FEW_SUBJECTS:
        flags.append("few subjects")
    return tuple(flags)


def _seeds_alike(a: MeasuredRuns, b: MeasuredRuns) -> str:
    """Return a list of seeds in which both arms have identical predictions."""
    axes = tuple(range(1, a.predictions.ndim))
    alike = (a.predictions == b.predictions).all(axis=axes)
    seeds = a.seeds if len(a.seeds) >= len(b.seeds) else b.seeds
    return ", ".join(str(seed) for seed, same in zip(seeds, alike, strict=True) if same)


def _adjusted(p: ArrayLike, adjust: Callable[[Floats], Floats]) -> Floats:
    """Adjust p-values; NaN remains and is not counted."""
    given = np.asarray(p, dtype=np.float64)
    known = ~np.isnan(given)
    if ((given[known] < 0) | (given[known] > 1)).any():
        raise ValueError("p-values must be between 0 and 1")
    adjusted = np.full(given.shape, _NAN)
    if known.any():
        adjusted[known] = adjust(given[known])
    return adjusted


def _step_down(p: Floats) -> Floats:
    # statsmodels provides Holm's method too, but runs the garbage collector with every call.
    order = np.argsort(p)
    steps = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted
