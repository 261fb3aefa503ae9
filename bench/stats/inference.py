"""The headline test of two architectures, over training runs and subjects at once.

All seeds of a benchmark share one test set, so runs and subjects are crossed: the design of
multi-reader multi-case studies, with the architecture as modality, the seed as reader and the
subject as case. A test over seeds alone, or over subjects alone, takes the other for fixed and
rejects too often. This is the test of Obuchowski and Rockette (Communications in Statistics 24,
1995) for two modalities with the degrees of freedom of Hillis (Statistics in Medicine 26, 2007).
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
"""Below this many subjects the covariance over subjects is itself uncertain."""

_NAN = float("nan")


class TTest(NamedTuple):
    """Degrees of freedom, two-sided p and confidence bounds of a difference."""

    df: float
    p: float
    low: float
    high: float


class Shares(NamedTuple):
    """What the variance of the difference is made of; the three add up to 1.

    `seeds` shrinks with more seeds, `subjects` with more test subjects, `residual` (runs and
    subjects together) with either.
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
    """Arm A against arm B by one metric. What cannot be claimed is NaN, with a flag saying why.

    `difference`, `se`, `t`, `low`, `high`, `d_z` and `g_z` are about A - B in the metric's own
    direction; `improvement` and `p_superior` are about A being better.

    Parameters
    ----------
    metric : str
    difference, improvement : float
        Mean of A - B over runs; the same, signed so that positive means A is better.
    se, df, t, p, low, high : float
        Standard error, degrees of freedom, statistic, two-sided p, confidence bounds.
    level : float
        The level of the bounds.
    paired : bool
        Whether runs were paired by seed.
    n_seeds : int
        Pairs of runs. Unpaired: the smaller number of runs. One fit against S runs: S.
    n_seeds_a, n_seeds_b : int
        Runs used of each arm; 1 where it is one fit.
    one_fit_a, one_fit_b : bool
        Whether the arm is one fit whatever the seed: print "1 fit" for its n.
    n_subjects, n_smallest : int
        Test subjects; those in the smallest group over which the metric averages.
    dropped : tuple of int
        Seeds left out because only one arm, or not every part of a sum, has them.
    v_seed, c : float
        Variance of the difference over runs; its covariance between runs, as estimated, which is
        the part due to the test set. The squared standard error is ``v_seed + max(c, 0)``.
    d_z, g_z : float
        Mean over standard deviation of the paired differences; the same, corrected for few seeds.
    p_superior : float
        Share of the pairs of runs (unpaired: of all pairs) in which A is better, ties one half.
    shares : Shares
        Of the squared standard error.
    few_subjects : TTest or None
        With fewer than 30 subjects in the smallest group: the more cautious test, whose degrees of
        freedom also count the uncertainty of `c`.
    flags : tuple of str
        What a reader must know.
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
        """How many seeds were left out."""
        return len(self.dropped)

    @property
    def improvement_interval(self) -> tuple[float, float]:
        """The confidence bounds of `improvement`."""
        if metric_of(self.metric).higher_is_better:
            return self.low, self.high
        return -self.high, -self.low


def compare(a: MeasuredRuns, b: MeasuredRuns, level: float = 0.95) -> Comparison:
    """Test whether arms A and B differ, for new training runs and new subjects alike.

    With S seeds paired by id and d_s = A_s - B_s::

        v = var(d, ddof=1) / S,   C = mean covariance over subjects of two different d_s,
        V = v + max(C, 0),   t = mean(d) / sqrt(V),   df = V^2 / (v^2 / (S - 1))

    Arms that share fewer than two seeds are compared unpaired: v = v_A + v_B, the variances of
    the two means, C = C_AA + C_BB - 2 C_AB, df = V^2 / (v_A^2/(S_A - 1) + v_B^2/(S_B - 1)). Where
    v = 0 the t has n_smallest - 1 degrees of freedom. An arm of one fit is set against every run
    of the other.

    Parameters
    ----------
    a, b : MeasuredRuns
        By the same metric on the same subjects.
    level : float
        Of the confidence interval, between 0 and 1.

    Returns
    -------
    Comparison
        One run of either arm gives the difference and no test; so does an undefined metric.

    Raises
    ------
    ValueError
        When the metrics or the truths differ, or `level` is not between 0 and 1.
    """
    if a.metric != b.metric:
        raise ValueError(f"{a.metric.name} cannot be compared with {b.metric.name}")
    shapes = a.predictions.shape[1:], b.predictions.shape[1:]
    if shapes[0] != shapes[1] or not np.array_equal(a.truth, b.truth):
        raise ValueError("the two arms were tested on different subjects or labels")
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, not at {level}")
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
        One value a seed.
    level : float
        Between 0 and 1.

    Returns
    -------
    Interval
        The bounds are NaN for one seed and for values that do not vary. A value that is NaN makes
        the mean NaN: an undefined run is never averaged over.

    Raises
    ------
    ValueError
        When `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, not at {level}")
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
    """Return Holm's adjusted p-values (family-wise error); NaN stays NaN and is not counted.

    Parameters
    ----------
    p : array (m,)

    Raises
    ------
    ValueError
        When a p is outside 0 to 1.
    """
    return _adjusted(p, _step_down)


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Return Benjamini-Hochberg adjusted p-values (false discovery rate); NaN as in `holm`.

    Parameters
    ----------
    p : array (m,)

    Raises
    ------
    ValueError
        When a p is outside 0 to 1.
    """
    return _adjusted(p, false_discovery_control)


class _Parts(NamedTuple):
    """What the variance of a difference is made of; all NaN where it cannot be known."""

    seeds: float
    c: float
    residual: float  # the part of `seeds` that more subjects would shrink too
    seeds_per_df: float  # sum of squared variance / its degrees of freedom

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
    """Pair the runs by seed where two seeds are shared; return whether, and the seeds left out."""
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
    """Return the size of the numbers that were subtracted, against which float noise is judged."""
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
    """Return the mean variance of a run over subjects and the mean covariance of two runs."""
    n = len(deviations)
    diagonal = float(np.sum(deviations**2))
    everything = float(np.sum(deviations.sum(axis=0) ** 2))
    return diagonal / n, (everything - diagonal) / (n * (n - 1))


def _beyond(variance: float, noise: float) -> float:
    """Return the variance, or 0 where it is float noise."""
    return 0.0 if abs(variance) <= noise**2 else variance


def _t_test(difference: float, se: float, df: float, level: float) -> TTest:
    half = stdtrit(df, 0.5 + level / 2) * se
    p = max(2 * stdtr(df, -abs(difference) / se), SMALLEST_P)
    return TTest(float(df), float(p), float(difference - half), float(difference + half))


def _small_sample(n: int) -> float:
    """Return Hedges' exact correction of d_z from n pairs; NaN below three, where it is 0."""
    df = n - 1
    if df < 2:
        return _NAN
    return float(np.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / np.sqrt(df / 2))


def _flags(
    a: MeasuredRuns, b: MeasuredRuns, parts: _Parts, paired: bool, dropped: tuple[int, ...]
) -> tuple[str, ...]:
    """Return in plain phrases what a reader of the comparison must know."""
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
        flags.append("test set too small or too uniform for a variance: no p")
    elif parts.seeds == 0:
        flags.append("zero seed variance" if parts.c > 0 else "zero variance: no p")
    if parts.c < 0:
        flags.append("C truncated at 0")
    if a.n_smallest < FEW_SUBJECTS:
        flags.append("few subjects")
    return tuple(flags)


def _seeds_alike(a: MeasuredRuns, b: MeasuredRuns) -> str:
    """Return the seeds in which the two arms predict exactly the same, in words."""
    axes = tuple(range(1, a.predictions.ndim))
    alike = (a.predictions == b.predictions).all(axis=axes)
    seeds = a.seeds if len(a.seeds) >= len(b.seeds) else b.seeds
    return ", ".join(str(seed) for seed, same in zip(seeds, alike, strict=True) if same)


def _adjusted(p: ArrayLike, adjust: Callable[[Floats], Floats]) -> Floats:
    """Adjust what is known; NaN stays where it was and is not counted."""
    given = np.asarray(p, dtype=np.float64)
    known = ~np.isnan(given)
    if ((given[known] < 0) | (given[known] > 1)).any():
        raise ValueError("a p-value lies between 0 and 1")
    adjusted = np.full(given.shape, _NAN)
    if known.any():
        adjusted[known] = adjust(given[known])
    return adjusted


def _step_down(p: Floats) -> Floats:
    # statsmodels has Holm too, and collects the garbage of the whole process at every call.
    order = np.argsort(p)
    steps = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted
