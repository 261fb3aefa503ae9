"""The metric of every run of an arm, and the contribution of each subject to its error.

The measurements of two arms are compared in `bench.stats.inference`. An arm is one of the models
that are compared, with its settings.
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
    """The predictions of one arm for the test set, with one run per seed.

    Parameters
    ----------
    predictions : array (S, N) or (S, N, K)
        Predictions of S runs for N subjects (and K classes), with subjects in the order of the
        truth.
    seeds : tuple of int
        The S different seeds.
    deterministic : bool
        Whether the arm's estimator is deterministic. If its S predictions are also identical, the
        seed has no effect: the arm counts as a single fit, which is compared with every run of
        the other arm. With S = 1 this cannot be verified, so it must be False if only one of
        several training subsets was used.

    Raises
    ------
    ValueError
        If there is no run, a seed occurs twice, or the shapes do not match.
    """

    predictions: Floats
    seeds: tuple[int, ...]
    deterministic: bool = False

    def __post_init__(self) -> None:
        shape = self.predictions.shape
        if len(shape) not in (2, 3):
            raise ValueError(f"predictions must have shape (S, N) or (S, N, K), got {shape}")
        if not self.seeds or len(self.seeds) != shape[0]:
            raise ValueError(
                f"got {len(self.seeds)} seeds for {shape[0]} runs; pass one seed per run"
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("a seed occurs twice; pass one run per seed")


@dataclass(frozen=True, eq=False)
class MeasuredRuns:
    """The runs of one arm measured by one metric, with all that a comparison needs.

    Parameters
    ----------
    metric : Metric
    truth : array (N,)
    predictions : array (S, N) or (S, N, K)
    seeds : tuple of int
    values : array (S,)
        The metric of every run, NaN if undefined.
    reasons : tuple of str
        Why a run's value is undefined; empty if it is defined.
    deviations : array (S, N)
        The contribution of each subject to the error of each value, scaled such that
        ``deviations @ deviations.T`` is the covariance of the values over test sets. NaN if the
        test set is too small.
    sizes : array (S,)
        The magnitude of the numbers from which each value was computed, which determines the size
        of rounding errors.
    n_smallest : int
        The number of subjects in the smallest group over which the metric averages.
    deterministic, one_fit : bool
        Whether the estimator is deterministic, as stated by the caller, and whether all runs were
        found to be the same fit (then S = 1).
    dropped : tuple of int
        Seeds that were excluded because a part of a sum lacks them.
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
        """Return these rows, with these seeds."""
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
    """Compute the metric of every run of an arm, and each subject's contribution to its error.

    The covariance over subjects is the sample covariance of the losses of subjects divided by N
    for mean absolute error, Brier score, log loss and accuracy; that of DeLong (Biometrics 44,
    1988) for the AUC; that of the class-wise means for balanced accuracy, sensitivity and
    specificity; and the delete-one-subject jackknife for RMSE, R2, r, average precision, and
    metrics of plugins that are not means over subjects.

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
        If the metric does not exist, is not tested, or does not match the shapes.
    """
    kind = metric_of(name)
    if not kind.tested:
        raise ValueError(f"differences in {name} are not tested; choose another metric")
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
    """Return a weighted sum of measurements of one arm, run by run.

    The sum can be compared like any other measurement. With the measurements at several training
    sizes and the weights of the trapezoidal rule, it is the area under the learning curve. With
    two groups of subjects and weights 1 and -1, it is their contrast, and comparing two arms tests
    the interaction of arm and group.

    Parameters
    ----------
    parts : sequence of MeasuredRuns
        Measurements by one metric. Only seeds that all parts share are kept; a part that is a
        single fit is combined with every seed of the others.
    weights : sequence of float
        One weight per part.
    disjoint : bool
        Whether the parts were measured on different subjects instead of the same ones.

    Returns
    -------
    MeasuredRuns
        A single fit only if every part is a single fit.

    Raises
    ------
    ValueError
        If there is no part, a weight is missing or not finite, the metrics differ, no seed is
        shared, or the subjects differ although `disjoint` is False.
    """
    if not parts:
        raise ValueError("there are no measurements to combine")
    if len(parts) != len(weights):
        raise ValueError(
            f"got {len(weights)} weights for {len(parts)} parts; pass one weight per part"
        )
    if not np.isfinite(weights).all():
        raise ValueError(f"weights must be finite, got {list(weights)}")
    if len({part.metric for part in parts}) > 1:
        raise ValueError("measurements by different metrics cannot be combined")
    if not disjoint and any(not np.array_equal(p.truth, parts[0].truth) for p in parts):
        raise ValueError("the parts were measured on different subjects")
    several = [part for part in parts if not part.one_fit] or list(parts[:1])
    seeds = tuple(s for s in several[0].seeds if all(s in part.seeds for part in several))
    if not seeds:
        raise ValueError("the parts do not share a seed")
    lost = {s for part in several for s in (*part.seeds, *part.dropped)} - set(seeds)
    # A single fit has one row, which is repeated for each seed.
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
    # The mean of the components of a two-sample statistic within either group is its value; other
    # metrics are means over the means of their groups.
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
