"""Bootstrap of learning curves over training runs and subjects.

Runs and subjects are crossed, so both are sampled with replacement, independently of each other
(pigeonhole bootstrap; Owen, Annals of Applied Statistics 1, 2007). The same resamples are used for
all training sizes and arms, so that their differences remain paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.measured import RunPredictions
from bench.stats.metric import CONSTANT, Floats
from bench.stats.metrics import checked, compute, weighted_values

_NAN = float("nan")


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """The predictions of one arm at several training sizes, with the same seeds at each.

    Parameters
    ----------
    metric : str
        A name of `METRICS`.
    sizes : tuple of int
        Training sizes in subjects, ascending.
    truth : array (N,)
    stacks : tuple of array (S, N) or (S, N, K)
        For each size, the predictions of S runs for the N test subjects.
    seeds : tuple of int
        The S seeds.
    dropped : tuple of int
        Seeds that were excluded because a size lacks them.
    one_fit : bool
        Whether the arm is a single fit at all sizes; then S = 1.
    threshold : float
        As for `metrics.compute`.

    Raises
    ------
    ValueError
        If the sizes are not in ascending order or the shapes do not match.
    """

    metric: str
    sizes: tuple[int, ...]
    truth: Floats
    stacks: tuple[Floats, ...]
    seeds: tuple[int, ...]
    dropped: tuple[int, ...] = ()
    one_fit: bool = False
    threshold: float = 0.5

    def __post_init__(self) -> None:
        ascending_sizes(self.sizes)
        if len(self.stacks) != len(self.sizes):
            raise ValueError(
                f"got {len(self.stacks)} stacks of predictions for {len(self.sizes)} sizes"
            )
        shape = (len(self.seeds), len(self.truth))
        if any(stack.shape[:2] != shape for stack in self.stacks):
            raise ValueError(f"every stack must contain {shape[0]} runs of {shape[1]} subjects")
        if not self.seeds or (self.one_fit and len(self.seeds) > 1):
            raise ValueError(
                "a curve must have at least one run per size, and a single fit exactly one"
            )

    @cached_property
    def values(self) -> Floats:
        """The metric of every run at every size (S, n_sizes); NaN if undefined."""
        return np.array(
            [
                [compute(self.metric, self.truth, row, self.threshold).value for row in stack]
                for stack in self.stacks
            ]
        ).T

    @property
    def means(self) -> Floats:
        """The mean over seeds at every size (n_sizes,); NaN if a run is undefined."""
        return np.asarray(self.values.mean(axis=0))

    def only(self, seeds: Sequence[int]) -> LearningCurve:
        """Return the runs of these seeds; a single fit is returned unchanged."""
        if self.one_fit:
            return self
        rows = [self.seeds.index(seed) for seed in seeds]
        dropped = tuple(sorted({*self.dropped, *self.seeds} - set(seeds)))
        stacks = tuple(stack[rows] for stack in self.stacks)
        return replace(self, stacks=stacks, seeds=tuple(seeds), dropped=dropped)


class Resamples(NamedTuple):
    """How often each seed (B, S) and each subject (B, N) occurs in each of B resamples."""

    seeds: Floats
    subjects: Floats
    rng_seed: int


class Bounds(NamedTuple):
    """Percentile bounds, with the numbers of used resamples and of undefined ones."""

    low: Floats
    high: Floats
    n_boot: int
    n_dropped: int


@dataclass(frozen=True, eq=False)
class ResampledCurve:
    """The means of a learning curve at every size, as observed and in every resample.

    Parameters
    ----------
    metric : str
    sizes : tuple of int
    means : array (n_sizes,)
        Observed means over seeds.
    resampled : array (B, n_sizes)
        Means in every resample; NaN if undefined.
    seeds : tuple of int
    one_fit : bool
        As for the learning curve.
    n_subjects, rng_seed : int
    reason : str
        Why there are no intervals; empty if there are.
    """

    metric: str
    sizes: tuple[int, ...]
    means: Floats
    resampled: Floats
    seeds: tuple[int, ...]
    one_fit: bool
    n_subjects: int
    rng_seed: int
    reason: str = ""


def ascending_sizes(sizes: Sequence[int]) -> Floats:
    """Return training sizes as floats.

    Raises
    ------
    ValueError
        If there are none, one is not positive, or they are not in ascending order.
    """
    found = np.asarray(sizes, dtype=np.float64)
    if found.ndim != 1 or not len(found) or not found[0] > 0 or not (np.diff(found) > 0).all():
        raise ValueError(
            f"training sizes must be positive and in ascending order, got {tuple(sizes)}"
        )
    return found


def learning_curve(
    name: str, truth: ArrayLike, by_size: Mapping[int, RunPredictions], threshold: float = 0.5
) -> LearningCurve:
    """Return the learning curve of an arm, with the seeds that all its sizes share.

    Parameters
    ----------
    name : str
        A name of `METRICS`.
    truth : array (N,)
        Ages in years, or class indices.
    by_size : mapping of int to RunPredictions
        The runs at each training size. If the arm is a single fit at a size, this fit is used for
        every seed of the other sizes.
    threshold : float
        As for `metrics.compute`.

    Returns
    -------
    LearningCurve
        With seeds in ascending order, so that it does not depend on the order of the runs.

    Raises
    ------
    ValueError
        If there is no size, the sizes do not share a seed, or the metric does not match the shapes.
    """
    sizes = tuple(sorted(by_size))
    ascending_sizes(sizes)
    target = checked(name, truth, by_size[sizes[0]].predictions[0])[0]
    single = {size: _is_one_fit(by_size[size]) for size in sizes}
    several = [set(by_size[size].seeds) for size in sizes if not single[size]]
    present = set[int]().union(*several)
    seeds = tuple(sorted(present.intersection(*several)))
    if several and not seeds:
        raise ValueError("the training sizes do not share a seed")
    stacks = []
    for size in sizes:
        runs = by_size[size]
        if single[size]:
            rows = [0] * max(len(seeds), 1)
        else:
            rows = [runs.seeds.index(seed) for seed in seeds]
        stacks.append(np.asarray(runs.predictions[rows], dtype=np.float64))
    return LearningCurve(
        metric=name,
        sizes=sizes,
        truth=target,
        stacks=tuple(stacks),
        seeds=seeds or by_size[sizes[0]].seeds[:1],
        dropped=tuple(sorted(present - set(seeds))),
        one_fit=not several,
        threshold=threshold,
    )


def draw_resamples(
    n_seeds: int, n_subjects: int, n_boot: int = 1000, rng_seed: int = 0
) -> Resamples:
    """Sample seeds and subjects with replacement, independently of each other.

    The same resamples are meant to be used for all training sizes and arms.

    Raises
    ------
    ValueError
        If one of the numbers is not positive.
    """
    if min(n_seeds, n_subjects, n_boot) < 1:
        raise ValueError("a bootstrap needs at least one seed, one subject and one resample")
    rng = np.random.default_rng(rng_seed)
    counts = [
        rng.multinomial(n, np.full(n, 1 / n), size=n_boot).astype(np.float64)
        for n in (n_seeds, n_subjects)
    ]
    return Resamples(counts[0], counts[1], rng_seed)


def crossed_means(curve: LearningCurve, resamples: Resamples) -> Floats:
    """Return the mean over seeds of each run's metric at every size in every resample.

    The metric is computed for the weights of each resample; it is not linearised.

    Parameters
    ----------
    curve : LearningCurve
    resamples : Resamples
        With as many seeds and subjects as the curve. For a single fit, only subjects are resampled.

    Returns
    -------
    array (B, n_sizes)
        NaN in resamples in which the metric is undefined, such as the AUC if a class is absent,
        and in all resamples at a size with an undefined run.

    Raises
    ------
    ValueError
        If the numbers of seeds or subjects differ.
    """
    n_seeds, n_subjects = resamples.seeds.shape[1], resamples.subjects.shape[1]
    if len(curve.truth) != n_subjects or not (curve.one_fit or len(curve.seeds) == n_seeds):
        raise ValueError(
            f"the resamples have {n_seeds} seeds and {n_subjects} subjects, but the curve has"
            f" {len(curve.seeds)} and {len(curve.truth)}; keep only the seeds that all arms share"
        )
    drawn = resamples.seeds[:, :1] * 0 + 1 if curve.one_fit else resamples.seeds
    means = np.full((len(drawn), len(curve.sizes)), _NAN)
    for size, stack in enumerate(curve.stacks):
        if np.isnan(curve.values[:, size]).any():
            continue
        values = weighted_values(
            curve.metric, curve.truth, stack, resamples.subjects, curve.threshold
        )
        # Runs that are not in a resample may be undefined.
        means[:, size] = np.where(drawn > 0, drawn * values, 0).sum(axis=1) / drawn.shape[1]
    return means


def resample_curve(curve: LearningCurve, resamples: Resamples) -> ResampledCurve:
    """Return the means of the curve over seeds, as observed and in every resample.

    There is no interval for a single run, because it does not show the variance of training runs.
    With few seeds, bootstrap intervals are too narrow, so the number of seeds should be reported.

    Raises
    ------
    ValueError
        As for `crossed_means`.
    """
    resampled, reason = crossed_means(curve, resamples), ""
    if len(curve.seeds) == 1 and not curve.one_fit:
        resampled, reason = np.full_like(resampled, _NAN), "one seed: no interval"
    elif np.isnan(curve.means).any():
        reason = "the metric is undefined at a size"
    return ResampledCurve(
        metric=curve.metric,
        sizes=curve.sizes,
        means=curve.means,
        resampled=resampled,
        seeds=curve.seeds,
        one_fit=curve.one_fit,
        n_subjects=len(curve.truth),
        rng_seed=resamples.rng_seed,
        reason=reason,
    )


def percentile_bounds(values: ArrayLike, level: float = 0.95) -> Bounds:
    """Return percentile bounds over resamples.

    With k = floor((B + 1)(1 - level) / 2), they are the k-th smallest and the k-th largest value
    (Davison and Hinkley, Bootstrap Methods and their Application, 1997). They are not interpolated,
    so that values may be infinite.

    Parameters
    ----------
    values : array (B,) or (B, M)
        Resamples with NaN are excluded and counted.
    level : float
        Between 0 and 1.

    Returns
    -------
    Bounds
        NaN if k is 0, because there are too few resamples for this level.

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    given = np.asarray(values, dtype=np.float64)
    rows = given.reshape(len(given), -1)
    defined = ~np.isnan(rows).any(axis=1)
    kept = np.sort(given[defined], axis=0)
    n = len(kept)
    k = int((n + 1) * (1 - level) / 2 + 1e-9)
    if k < 1:
        nothing = np.full(given.shape[1:], _NAN)
        return Bounds(nothing, nothing, n, len(given) - n)
    return Bounds(kept[k - 1], kept[n - k], n, len(given) - n)


def _is_one_fit(runs: RunPredictions) -> bool:
    rows = runs.predictions
    same = np.allclose(rows, rows[:1], rtol=CONSTANT, atol=0, equal_nan=True)
    return runs.deterministic and bool(same)
