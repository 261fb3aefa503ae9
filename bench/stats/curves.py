"""Learning curves: area under the curve, fitted power laws, and data efficiency.

Areas are compared by the headline test. Fits and data efficiency have percentile intervals from
the crossed bootstrap in `bench.stats.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.bootstrap import ResampledCurve, ascending_sizes, percentile_bounds
from bench.stats.measured import MeasuredRuns, combine
from bench.stats.metric import CONSTANT, Floats
from bench.stats.metrics import metric_of

SIZES_FOR_POWER_LAW = 5
"""The minimum number of training sizes for fitting the three parameters of a power law."""

STEEPEST = 5.0
"""The largest exponent; curves with a larger one are flat beyond the smallest size."""

_NAN = float("nan")
_GRID = 201  # Exponents on the grid of the initial search.
_GOLDEN_STEPS = 60


@dataclass(frozen=True)
class CurveFit:
    """A fitted curve error(n) = a n^-b + c, with error = 1 - metric if higher is better.

    Parameters
    ----------
    kind : str
        ``"power law"``, ``"log-log line"`` (with c = 0 and b of either sign) or ``"none"``.
    a, b, c : float
    higher_is_better : bool
    reason : str
        Why there is no fit, or a warning on the fit.
    """

    kind: str
    a: float
    b: float
    c: float
    higher_is_better: bool
    reason: str = ""

    def at(self, n: ArrayLike) -> Floats:
        """Return the metric expected at n training subjects."""
        return _height((self.a, self.b, self.c), n, self.higher_is_better)


class FitBand(NamedTuple):
    """A fit and its values at some sizes, with percentile bounds from refits in every resample.

    `exponent` and `plateau` are the bounds of b and of the metric for infinitely many subjects.
    """

    fit: CurveFit
    at: Floats
    values: Floats
    low: Floats
    high: Floats
    exponent: tuple[float, float]
    plateau: tuple[float, float]
    level: float
    n_boot: int
    n_dropped: int
    rng_seed: int


@dataclass(frozen=True)
class Efficiency:
    """The training size at which arm B reaches the value of arm A at `n_a`.

    Parameters
    ----------
    n, low, high : float
        The size and its percentile bounds: -inf below B's smallest size, inf if B does not reach
        the value up to its largest size, and NaN if unknown.
    n_a : int
        The training size of A.
    n_min, n_max : int
        B's smallest and largest size.
    level : float
        Confidence level of the bounds.
    n_boot, n_dropped, rng_seed : int
        The numbers of used and undefined resamples, and the random seed of the resamples.
    reason : str
        Why there is no value or no interval.
    """

    n: float
    low: float
    high: float
    n_a: int
    n_min: int
    n_max: int
    level: float
    n_boot: int
    n_dropped: int
    rng_seed: int
    reason: str = ""

    @property
    def ratio(self) -> float:
        """The number of subjects that B needs per subject of A."""
        return self.n / self.n_a

    @property
    def ratio_interval(self) -> tuple[float, float]:
        """The bounds of `ratio`."""
        return self.low / self.n_a, self.high / self.n_a


def area(parts: Sequence[MeasuredRuns], sizes: Sequence[int]) -> MeasuredRuns:
    """Return the mean of every run's learning curve over the logarithm of n.

    It is the area under the linearly interpolated curve over log n, divided by
    log(n_max / n_min), so it is in units of the metric. Comparing the areas of two arms with
    `compare` is the headline test of the whole curve.

    Parameters
    ----------
    parts : sequence of MeasuredRuns
        One per size, on the same test subjects.
    sizes : sequence of int
        Training sizes in ascending order.

    Raises
    ------
    ValueError
        If there are fewer than two sizes, they are not in ascending order, or as for `combine`.
    """
    steps = np.diff(np.log(ascending_sizes(sizes)))
    if not len(steps):
        raise ValueError("the area under a curve needs at least two sizes")
    weights = np.zeros(len(steps) + 1)
    weights[:-1] += steps / 2
    weights[1:] += steps / 2
    return combine(parts, (weights / steps.sum()).tolist(), disjoint=False)


def fit_curve(sizes: Sequence[int], means: ArrayLike, higher_is_better: bool) -> CurveFit:
    """Fit a power law to five or more training sizes, or a log-log line to fewer.

    The power law a n^-b + c with a, b, c >= 0 is fitted to the errors by least squares with equal
    weights. It is linear in a and c for a given b, which is searched on a grid from 0 to 5 and
    refined by golden-section search, so that no starting values are needed.

    Parameters
    ----------
    sizes : sequence of int
        Training sizes in ascending order.
    means : array (n_sizes,)
        The metric at each size.
    higher_is_better : bool
        Whether the error is 1 - metric, for metrics with a best value of 1.

    Returns
    -------
    CurveFit
        Of kind ``"none"``, with the reason, for a single size, an undefined mean, or a log-log line
        with an error that is not positive.

    Raises
    ------
    ValueError
        If the sizes are not in ascending order or the lengths differ.
    """
    n = ascending_sizes(sizes)
    errors = _errors(means, higher_is_better)
    if errors.shape != n.shape:
        raise ValueError(f"means must have shape ({len(n)},), like sizes, got {errors.shape}")
    reason = ""
    if len(n) < 2:
        reason = "a curve needs two sizes or more"
    elif not np.isfinite(errors).all():
        reason = "the metric is undefined at a size"
    elif len(n) < SIZES_FOR_POWER_LAW and errors.min() <= 0:
        reason = "a line in log-log needs positive errors"
    if reason:
        return CurveFit("none", _NAN, _NAN, _NAN, higher_is_better, reason)
    a, b, c = (float(parameter[0]) for parameter in _fit(n, errors[None]))
    if len(n) < SIZES_FOR_POWER_LAW:
        return CurveFit("log-log line", a, b, c, higher_is_better)
    if a == 0:
        reason = "the error does not fall with n"
    elif b >= STEEPEST - 1e-6:
        reason = "flat beyond the smallest size: the exponent is at its bound"
    return CurveFit("power law", a, b, c, higher_is_better, reason)


def fit_interval(curve: ResampledCurve, at: ArrayLike, level: float = 0.95) -> FitBand:
    """Fit a learning curve, and refit it in every resample.

    Parameters
    ----------
    curve : ResampledCurve
    at : array (M,)
        Training sizes at which the fit is evaluated.
    level : float
        Confidence level, between 0 and 1.

    Returns
    -------
    FitBand
        Resamples that cannot be fitted are excluded and counted; all is NaN without a fit.

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1.
    """
    higher = metric_of(curve.metric).higher_is_better
    fit = fit_curve(curve.sizes, curve.means, higher)
    wanted = np.atleast_1d(np.asarray(at, dtype=np.float64))
    errors = _errors(curve.resampled, higher)
    usable = np.isfinite(errors).all(axis=1) & (fit.kind != "none")
    if fit.kind == "log-log line":
        usable &= (errors > 0).all(axis=1)
    refits = np.full((len(errors), len(wanted) + 2), _NAN)
    if usable.any():
        a, b, c = _fit(ascending_sizes(curve.sizes), errors[usable])
        refits[usable, :-2] = _height((a[:, None], b[:, None], c[:, None]), wanted, higher)
        refits[usable, -2] = b
        refits[usable, -1] = 1 - c if higher else c
    bounds = percentile_bounds(refits, level)
    low, high = bounds.low, bounds.high
    return FitBand(
        fit=fit,
        at=wanted,
        values=fit.at(wanted),
        low=low[:-2],
        high=high[:-2],
        exponent=(float(low[-2]), float(high[-2])),
        plateau=(float(low[-1]), float(high[-1])),
        level=level,
        n_boot=bounds.n_boot,
        n_dropped=bounds.n_dropped,
        rng_seed=curve.rng_seed,
    )


def data_efficiency(
    a: ResampledCurve, b: ResampledCurve, n_a: int, level: float = 0.95
) -> Efficiency:
    """Return the training size at which arm B reaches the value of arm A at `n_a`.

    B's means over seeds are interpolated linearly in log n, and the first size at which they are as
    good as A's value is returned, even if B is worse again at larger sizes. The interval is
    computed by the same search in every resample.

    Parameters
    ----------
    a, b : ResampledCurve
        Learning curves with the same resamples.
    n_a : int
        A training size of arm A.
    level : float
        Confidence level of the percentile interval, between 0 and 1.

    Raises
    ------
    ValueError
        If A has no such size, or the metrics or the resamples differ.
    """
    if a.metric != b.metric:
        raise ValueError(f"{a.metric} cannot be compared with {b.metric}")
    if n_a not in a.sizes:
        raise ValueError(
            f"n_a must be a training size of arm A ({', '.join(map(str, a.sizes))}), got {n_a}"
        )
    drawn = [(len(arm.resampled), arm.n_subjects, arm.rng_seed) for arm in (a, b)]
    if drawn[0] != drawn[1]:
        raise ValueError("the two curves do not have the same resamples")
    if a.seeds != b.seeds and not (a.one_fit or b.one_fit):
        raise ValueError("the two curves have different seeds; keep only the seeds that both share")
    higher, column = metric_of(a.metric).higher_is_better, a.sizes.index(n_a)
    sizes = ascending_sizes(b.sizes)

    def reached(of_a: Floats, of_b: Floats) -> Floats:
        return _first_crossing(sizes, _errors(of_b, higher), _errors(of_a[:, column], higher))

    n = float(reached(a.means[None], b.means[None])[0])
    bounds = percentile_bounds(reached(a.resampled, b.resampled), level)
    low, high = (_NAN, _NAN) if np.isnan(n) else (float(bounds.low), float(bounds.high))
    # A may be undefined at other sizes.
    known = not np.isnan([n, low, high]).any()
    return Efficiency(
        n=n,
        low=low,
        high=high,
        n_a=n_a,
        n_min=b.sizes[0],
        n_max=b.sizes[-1],
        level=level,
        n_boot=bounds.n_boot,
        n_dropped=bounds.n_dropped,
        rng_seed=a.rng_seed,
        reason="" if known else a.reason or b.reason or "too few resamples",
    )


def bound_words(n: float, n_min: int, n_max: int) -> str:
    """Return a size as text, such as ``"610"``, ``"< 50"`` (`n_min`) or ``"> 1000"`` (`n_max`)."""
    if np.isnan(n):
        return "n/a"
    if n < n_min:
        return f"< {n_min}"
    return f"> {n_max}" if n > n_max else f"{n:.0f}"


def _errors(values: ArrayLike, higher_is_better: bool) -> Floats:
    given = np.asarray(values, dtype=np.float64)
    return 1 - given if higher_is_better else given


def _height(
    parameters: tuple[ArrayLike, ArrayLike, ArrayLike], n: ArrayLike, higher_is_better: bool
) -> Floats:
    a, b, c = (np.asarray(parameter, dtype=np.float64) for parameter in parameters)
    errors = a * np.asarray(n, dtype=np.float64) ** -b + c
    return np.asarray(1 - errors if higher_is_better else errors)


def _first_crossing(sizes: Floats, errors: Floats, targets: Floats) -> Floats:
    """Return sizes (B,) at which errors (B, n_sizes) first reach targets (B,); NaN if unknown."""
    gaps = errors - targets[:, None]
    noise = CONSTANT * np.maximum(np.abs(errors), np.abs(targets)[:, None])
    gaps = np.where(np.abs(gaps) <= noise, 0.0, gaps)
    reached = gaps <= 0
    first = reached.argmax(axis=1)
    rows, before = np.arange(len(gaps)), np.maximum(first - 1, 0)
    above, below = gaps[rows, before], gaps[rows, first]
    fall = above - below
    share = np.divide(above, fall, out=np.ones_like(fall), where=fall > 0)
    steps = np.log(sizes)
    found = np.exp(steps[before] + share * (steps[first] - steps[before]))
    found[below == 0] = sizes[first[below == 0]]  # Exact, without rounding errors of the logarithm.
    found[(first == 0) & (below < 0)] = -np.inf
    found[~reached.any(axis=1)] = np.inf
    found[np.isnan(gaps).any(axis=1)] = _NAN
    return found


def _fit(sizes: Floats, errors: Floats) -> tuple[Floats, Floats, Floats]:
    """Return a, b and c (B,) fitted to finite errors (B, n_sizes)."""
    if len(sizes) < SIZES_FOR_POWER_LAW:
        return _log_log_line(sizes, errors)
    return _power_law(sizes, errors)


def _log_log_line(sizes: Floats, errors: Floats) -> tuple[Floats, Floats, Floats]:
    x, y = np.log(sizes), np.log(errors)
    slope = y @ (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    a = np.exp(y.mean(axis=1) - slope * x.mean())
    return a, -slope, np.zeros(len(errors))


def _power_law(sizes: Floats, errors: Floats) -> tuple[Floats, Floats, Floats]:
    """Search for the best exponent of every row; a and c are linear for a given exponent."""
    scaled = np.log(sizes / sizes[0])  # exp(-b * scaled) is 1 at the smallest size.
    grid = np.linspace(0, STEEPEST, _GRID)
    misfits = np.stack([_linear(np.exp(-b * scaled)[None], errors)[2] for b in grid])
    best = misfits.argmin(axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, _GRID - 1)]

    def misfit(b: Floats) -> Floats:
        return _linear(np.exp(-b[:, None] * scaled), errors)[2]

    golden = (np.sqrt(5) - 1) / 2
    for _ in range(_GOLDEN_STEPS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        nearer = misfit(left) <= misfit(right)
        low, high = np.where(nearer, low, left), np.where(nearer, right, high)
    b = (low + high) / 2
    # The search cannot return the ends of the range exactly, so the grid is kept if better.
    refined = misfit(b) <= misfits[best, np.arange(len(b))]
    b = np.where(refined, b, grid[best])
    a, c, _ = _linear(np.exp(-b[:, None] * scaled), errors)
    b = np.where(a > 0, b, 0.0)
    return a * sizes[0] ** b, b, c


def _linear(x: Floats, errors: Floats) -> tuple[Floats, Floats, Floats]:
    """Regress errors (B, n) on x (B or 1, n) with a, c >= 0; return a, c and the misfit."""
    x_mean, y_mean = x.mean(axis=1), errors.mean(axis=1)
    centred = x - x_mean[:, None]
    spread = np.sum(centred**2, axis=1) + np.zeros(len(errors))
    free = np.divide(
        np.sum(centred * errors, axis=1), spread, out=np.zeros(len(errors)), where=spread > 0
    )
    through_zero = np.maximum(np.sum(x * errors, axis=1) / np.sum(x**2, axis=1), 0)
    level = np.maximum(y_mean, 0)
    # The solution is the best feasible one of: no plateau, no decrease, both unconstrained.
    candidates = [(through_zero, 0 * level), (0 * level, level), (free, y_mean - free * x_mean)]
    best_a, best_c = candidates[0]
    best = np.full(len(errors), np.inf)
    for a, c in candidates:
        misfit = np.sum((a[:, None] * x + c[:, None] - errors) ** 2, axis=1)
        better = (a >= 0) & (c >= 0) & (misfit < best)
        best_a, best_c = np.where(better, a, best_a), np.where(better, c, best_c)
        best = np.where(better, misfit, best)
    return best_a, best_c, best
