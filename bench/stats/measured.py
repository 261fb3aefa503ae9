"""Runs of an arm, measured: the metric of every run, and each subject's part in its error.

What a comparison needs of an arm is here; what it does with it is in `bench.stats.inference`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.metric import CONSTANT, Floats, Mask, Metric, Score
from bench.stats.metrics import (
    checked,
    metric_of,
    score_of,
    terms_of,
    values_without_each,
)

_NAN = float("nan")


@dataclass(frozen=True, eq=False)
class RunPredictions:
    """The predictions of one arm on the test set, one run a seed.

    Parameters
    ----------
    predictions : array (S, N) or (S, N, K)
        Of S runs for N subjects (and K classes), the subjects in the order of the truth.
    seeds : tuple of int
        The S different seeds.
    deterministic : bool
        The arm's estimator draws nothing at random. Where its S predictions are also the same, the
        seed changes nothing and the arm counts as one fit, set against every run of the other arm.
        With S = 1 that is taken on trust, so leave it False where only one training subset of
        several was used.

    Raises
    ------
    ValueError
        When there is no run, a seed is there twice, or the shapes do not agree.
    """

    predictions: Floats
    seeds: tuple[int, ...]
    deterministic: bool = False

    def __post_init__(self) -> None:
        shape = self.predictions.shape
        if len(shape) not in (2, 3):
            raise ValueError(f"predictions must be (S, N) or (S, N, K), not {shape}")
        if not self.seeds or len(self.seeds) != shape[0]:
            raise ValueError(f"{shape[0]} runs need as many seeds, not {len(self.seeds)}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("a seed is there twice; keep one run of each seed")


@dataclass(frozen=True, eq=False)
class MeasuredRuns:
    """One arm measured by one metric: all that a comparison needs of it.

    Parameters
    ----------
    metric : Metric
    truth : array (N,)
    predictions : array (S, N) or (S, N, K)
    seeds : tuple of int
    values : array (S,)
        The metric of every run, NaN where undefined.
    reasons : tuple of str
        Why a run's value is undefined, empty where it is defined.
    deviations : array (S, N)
        Each subject's part in the error of each value, scaled so that ``deviations @
        deviations.T`` is the covariance of the values over test sets. NaN where the test set is
        too small to tell.
    sizes : array (S,)
        The size of the numbers that each value was computed from; float noise is judged by it.
    n_smallest : int
        Subjects in the smallest group over which the metric averages.
    deterministic, one_fit : bool
        As said by the caller, and as found: one fit whatever the seed (then S = 1).
    dropped : tuple of int
        Seeds left out because not every part of a sum has them.
    """

    metric: Metric
    truth: Floats
    predictions: Floats
    seeds: tuple[int, ...]
    values: Floats
    reasons: tuple[str, ...]
    deviations: Floats
    sizes: Floats
    n_smallest: int
    deterministic: bool
    one_fit: bool
    dropped: tuple[int, ...] = ()

    def only(self, seeds: Sequence[int]) -> MeasuredRuns:
        """Return the runs of these seeds, in this order."""
        return self._rows([self.seeds.index(seed) for seed in seeds], seeds)

    def _rows(self, rows: list[int], seeds: Sequence[int]) -> MeasuredRuns:
        """Return these rows under these seeds."""
        return replace(
            self,
            predictions=self.predictions[rows],
            seeds=tuple(seeds),
            values=self.values[rows],
            reasons=tuple(self.reasons[row] for row in rows),
            deviations=self.deviations[rows],
            sizes=self.sizes[rows],
        )


def measure_runs(
    name: str, truth: ArrayLike, runs: RunPredictions, threshold: float = 0.5
) -> MeasuredRuns:
    """Measure every run of an arm, with what each subject contributes to its uncertainty.

    The covariance over subjects is, for mean absolute error, Brier score, log loss and accuracy,
    the sample covariance of the per-subject losses / N; for the AUC that of DeLong (Biometrics
    44, 1988); for balanced accuracy, sensitivity and specificity that of the class-wise means;
    for RMSE, R2, r, average precision and plugins' metrics that are no means over subjects the
    delete-one-subject jackknife.

    Parameters
    ----------
    name : str
        A metric of `METRICS`.
    truth : array (N,)
        Ages in years, or class indices.
    runs : RunPredictions
    threshold : float
        As for `metrics.compute`.

    Raises
    ------
    ValueError
        When the metric does not exist, is never tested, or does not fit the shapes.
    """
    kind = metric_of(name)
    if not kind.tested:
        raise ValueError(f"{name} is shown but never tested; choose another metric")
    rows, seeds = runs.predictions, runs.seeds
    same = np.allclose(rows, rows[:1], rtol=CONSTANT, atol=0, equal_nan=True)
    one_fit = runs.deterministic and bool(same)
    if one_fit:
        rows, seeds = rows[:1], seeds[:1]

    target, first = checked(name, truth, rows[0])
    found = [_measure_run(name, target, checked(name, truth, row)[1], threshold) for row in rows]
    values = np.array([score.value for score, _ in found])
    return MeasuredRuns(
        metric=kind,
        truth=target,
        predictions=rows,
        seeds=seeds,
        values=values,
        reasons=tuple(score.reason for score, _ in found),
        deviations=np.stack([deviations for _, deviations in found]),
        sizes=np.abs(values) if kind.unit else np.maximum(np.abs(values), 1.0),
        n_smallest=min(int(group.sum()) for group in kind.groups(target, first).values()),
        deterministic=runs.deterministic,
        one_fit=one_fit,
    )


def combine(
    parts: Sequence[MeasuredRuns], weights: Sequence[float], *, disjoint: bool
) -> MeasuredRuns:
    """Return a weighted sum of measurements of one arm, run by run, to be compared as any other.

    With the weights of a trapezoid it is the area under a learning curve, its parts the training
    sizes; with weights 1 and -1 it is the contrast of two groups of subjects, and comparing two
    arms by it tests the interaction of arm and group.

    Parameters
    ----------
    parts : sequence of MeasuredRuns
        By one metric. Only seeds that all parts have are kept; a part of one fit goes with every
        seed of the others.
    weights : sequence of float
        One a part.
    disjoint : bool
        Whether the parts were measured on different subjects, instead of all on the same.

    Returns
    -------
    MeasuredRuns
        Of one fit only where every part is.

    Raises
    ------
    ValueError
        When there is no part, a weight is missing or not finite, the metrics differ, no seed is
        shared, or parts that are said to be of the same subjects are not.
    """
    if not parts:
        raise ValueError("there is nothing to add")
    if len(parts) != len(weights):
        raise ValueError(f"{len(parts)} parts need as many weights, not {len(weights)}")
    if not np.isfinite(weights).all():
        raise ValueError(f"weights are finite numbers, unlike {list(weights)}")
    if len({part.metric for part in parts}) > 1:
        raise ValueError("measurements by different metrics cannot be added")
    if not disjoint and any(not np.array_equal(p.truth, parts[0].truth) for p in parts):
        raise ValueError("the parts were measured on different subjects")
    several = [part for part in parts if not part.one_fit] or list(parts[:1])
    seeds = tuple(s for s in several[0].seeds if all(s in part.seeds for part in several))
    if not seeds:
        raise ValueError("the parts share no seed")
    lost = {s for part in several for s in (*part.seeds, *part.dropped)} - set(seeds)
    # One row a seed: the single row of one fit is repeated.
    rows = [p._rows([0] * len(seeds), seeds) if p.one_fit else p.only(seeds) for p in parts]
    weighted = list(zip(weights, rows, strict=True))
    deviations = [w * row.deviations for w, row in weighted]
    reasons = zip(*(row.reasons for row in rows), strict=True)
    return MeasuredRuns(
        metric=parts[0].metric,
        truth=np.concatenate([part.truth for part in parts]) if disjoint else parts[0].truth,
        predictions=np.concatenate([row.predictions for row in rows], axis=1),
        seeds=seeds,
        values=np.sum([w * row.values for w, row in weighted], axis=0),
        reasons=tuple("; ".join(dict.fromkeys(filter(None, each))) for each in reasons),
        deviations=np.concatenate(deviations, axis=1) if disjoint else np.sum(deviations, axis=0),
        sizes=np.sum([abs(w) * row.sizes for w, row in weighted], axis=0),
        n_smallest=min(part.n_smallest for part in parts),
        deterministic=all(part.deterministic for part in parts),
        one_fit=all(part.one_fit for part in parts),
        dropped=tuple(sorted(lost)),
    )


def _measure_run(
    name: str, truth: Floats, prediction: Floats, threshold: float
) -> tuple[Score, Floats]:
    """Return a run's score and its deviations (N,), as `MeasuredRuns` defines them."""
    score = score_of(name, truth, prediction, threshold)
    if score.reason:
        return score, np.full(len(truth), _NAN)
    kind = metric_of(name)
    if kind.terms is None:
        return score, _jackknife(values_without_each(name, truth, prediction, threshold))
    members = kind.groups(truth, prediction).values()
    # The components of a two-sample statistic have its value as the mean within either group; any
    # other metric is the mean of its groups' means.
    weight = 1.0 if kind.two_sample else 1 / len(members)
    terms = terms_of(name, truth, prediction, threshold)
    return score, _group_deviations(terms, members, weight)


def _group_deviations(terms: Floats, members: Iterable[Mask], weight: float) -> Floats:
    deviations = np.zeros(len(terms))
    for group in members:
        n = int(group.sum())
        if n < 2:
            return np.full(len(terms), _NAN)
        deviations[group] += weight * (terms[group] - terms[group].mean()) / np.sqrt(n * (n - 1))
    return deviations


def _jackknife(leave_one_out: Floats) -> Floats:
    n = len(leave_one_out)
    return np.sqrt((n - 1) / n) * (leave_one_out - leave_one_out.mean())
