"""Thresholds, operating points and ROC curves of models with two classes.

Thresholds are chosen on VALIDATION predictions and applied to test predictions. If they were chosen
on the test set, results would be too optimistic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

from bench.stats.metric import Floats
from bench.stats.metrics import checked, compute

_NAN = float("nan")
_RULE = re.compile(r"(sensitivity|specificity)>=(0?\.\d+|0|1(?:\.0*)?)")


class Proportion(NamedTuple):
    """A proportion of n subjects with its Wilson interval; NaN for the reason in `reason`."""

    value: float
    low: float
    high: float
    successes: int
    n: int
    reason: str = ""


class Threshold(NamedTuple):
    """A threshold, with its results on the subjects on which it was chosen; NaN with a `reason`."""

    rule: str
    value: float
    sensitivity: float
    specificity: float
    n_subjects: int
    reason: str = ""


class OperatingPoint(NamedTuple):
    """Results with a threshold. PPV and NPV apply to populations with this prevalence only."""

    threshold: float
    sensitivity: Proportion
    specificity: Proportion
    ppv: Proportion
    npv: Proportion
    prevalence: Proportion


@dataclass(frozen=True, eq=False)
class Roc:
    """A ROC curve that starts at (0, 0) with threshold infinity; empty for the reason in `reason`.

    Parameters
    ----------
    fpr, tpr, thresholds : array (T,)
        Subjects with the same score share a point.
    reason : str
    """

    fpr: Floats
    tpr: Floats
    thresholds: Floats
    reason: str = ""


@dataclass(frozen=True, eq=False)
class MeanRoc:
    """The mean of ROC curves over seeds, with a t interval over seeds only.

    Parameters
    ----------
    fpr, tpr, low, high : array (G,)
        The bounds are clipped to 0 and 1, and are NaN for a single seed. They generalise to new
        training runs but not to new subjects.
    n_seeds : int
    level : float
    reason : str
        Why there is no curve, or no interval.
    """

    fpr: Floats
    tpr: Floats
    low: Floats
    high: Floats
    n_seeds: int
    level: float
    reason: str = ""


def wilson(successes: int, n: int, level: float = 0.95) -> Proportion:
    """Return a proportion with its interval by Wilson (JASA 22, 1927).

    Parameters
    ----------
    successes, n : int
    level : float
        Between 0 and 1.

    Returns
    -------
    Proportion
        NaN for n = 0.

    Raises
    ------
    ValueError
        If `successes` is not between 0 and `n`, or `level` is not between 0 and 1.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be between 0 and n, got {successes} of {n}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    if n == 0:
        return Proportion(_NAN, _NAN, _NAN, 0, 0, "no subjects")
    share, z = successes / n, float(ndtri(0.5 + level / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # With 0 or n successes, a bound equals the proportion; avoid rounding errors.
    low = 0.0 if successes == 0 else max(float(middle - half), 0.0)
    high = 1.0 if successes == n else min(float(middle + half), 1.0)
    return Proportion(share, low, high, int(successes), int(n))


def choose_threshold(truth: ArrayLike, score: ArrayLike, rule: str = "youden") -> Threshold:
    """Choose a threshold on VALIDATION predictions; subjects are positive if score >= threshold.

    Parameters
    ----------
    truth : array (N,)
        Class indices, with 1 as the positive class.
    score : array (N,)
        P(positive).
    rule : str
        ``"youden"``: the lowest threshold that maximises sensitivity + specificity.
        ``"sensitivity>=x"``: the highest threshold with this sensitivity, which has the best
        specificity. ``"specificity>=x"``: the lowest threshold with this specificity, which has the
        best sensitivity.

    Returns
    -------
    Threshold
        One of the scores. NaN if a class is absent, a score is not a probability, or the
        specificity is reached only if no subject is called positive.

    Raises
    ------
    ValueError
        If there is no such rule, the shapes do not match, or the truth is not a class index.
    """
    asked = _RULE.fullmatch(rule)
    if rule != "youden" and not asked:
        raise ValueError(
            f"there is no rule {rule!r}; choose youden, sensitivity>=x or specificity>=x"
            " with x from 0 to 1"
        )
    truth, score = _binary(truth, score)
    n = len(truth)
    if reason := compute("auc", truth, score).reason:
        return Threshold(rule, _NAN, _NAN, _NAN, n, reason)
    thresholds, true, false = _counts(truth, score)  # from the highest threshold down
    n_positive, n_negative = true[-1], false[-1]
    sensitivity, specificity = true / n_positive, (n_negative - false) / n_negative
    if not asked:
        # Computed from integers, so that ties are exact.
        youden = true * n_negative - false * n_positive
        chosen = _lowest(youden == youden.max())
    elif asked[1] == "sensitivity":
        chosen = int(np.argmax(sensitivity >= float(asked[2])))
    elif (specificity >= float(asked[2])).any():
        chosen = _lowest(specificity >= float(asked[2]))
    else:
        return Threshold(rule, _NAN, _NAN, _NAN, n, "reached only if no subject is called positive")
    return Threshold(
        rule,
        float(thresholds[chosen]),
        float(sensitivity[chosen]),
        float(specificity[chosen]),
        n,
    )


def operating_point(
    truth: ArrayLike, score: ArrayLike, threshold: float, level: float = 0.95
) -> OperatingPoint:
    """Return the results with a threshold on test predictions, with Wilson intervals.

    Parameters
    ----------
    truth, score : array (N,)
        As for `choose_threshold`.
    threshold : float
        Subjects are positive if score >= threshold. Results are NaN if it is NaN.
    level : float
        Between 0 and 1.

    Returns
    -------
    OperatingPoint
        A proportion is NaN if its denominator is 0.

    Raises
    ------
    ValueError
        If the shapes do not match, the truth is not a class index, or `level` is not between 0
        and 1.
    """
    truth, score = _binary(truth, score)
    positive, called = truth == 1, score >= threshold
    reason = compute("brier", truth, score).reason
    if np.isnan(threshold):
        reason = "no threshold could be chosen"

    def share(of: NDArray[np.bool_], among: NDArray[np.bool_]) -> Proportion:
        if reason:
            return Proportion(_NAN, _NAN, _NAN, 0, 0, reason)
        return wilson(int((of & among).sum()), int(among.sum()), level)

    return OperatingPoint(
        threshold=float(threshold),
        sensitivity=share(called, positive),
        specificity=share(~called, ~positive),
        ppv=share(positive, called),
        npv=share(~positive, ~called),
        prevalence=wilson(int(positive.sum()), len(positive), level),
    )


def roc_curve(truth: ArrayLike, score: ArrayLike) -> Roc:
    """Return the ROC curve of one run.

    Parameters
    ----------
    truth, score : array (N,)
        As for `choose_threshold`.

    Raises
    ------
    ValueError
        If the shapes do not match or the truth is not a class index.
    """
    truth, score = _binary(truth, score)
    if reason := compute("auc", truth, score).reason:
        return Roc(np.empty(0), np.empty(0), np.empty(0), reason)
    thresholds, true, false = _counts(truth, score)
    return Roc(
        fpr=np.concatenate([[0.0], false / false[-1]]),
        tpr=np.concatenate([[0.0], true / true[-1]]),
        thresholds=np.concatenate([[np.inf], thresholds]),
    )


def mean_roc(
    truth: ArrayLike, scores: ArrayLike, n_points: int = 101, level: float = 0.95
) -> MeanRoc:
    """Average the ROC curves of several seeds (Fawcett, Pattern Recognition Letters 27, 2006).

    Curves are averaged vertically: each curve is interpolated linearly on an equidistant grid of
    false positive rates (with the upper end of vertical segments), and the mean and t interval over
    seeds are computed at each point.

    Parameters
    ----------
    truth : array (N,)
    scores : array (S, N)
    n_points : int
        The number of grid points, at least two.
    level : float
        Confidence level, between 0 and 1.

    Returns
    -------
    MeanRoc
        NaN if a run has no curve, because undefined runs must not be omitted.

    Raises
    ------
    ValueError
        If there is no run, the shapes do not match, or `level` or `n_points` is out of range.
    """
    if n_points < 2 or not 0 < level < 1:
        raise ValueError("a mean ROC curve needs at least two points and a level between 0 and 1")
    runs = np.asarray(scores, dtype=np.float64)
    if runs.ndim != 2 or not len(runs):
        raise ValueError(f"scores must have shape (S, N), got {runs.shape}")
    grid, n = np.linspace(0, 1, n_points), len(runs)
    curves = [roc_curve(truth, run) for run in runs]
    nothing = np.full(n_points, _NAN)
    for curve in curves:
        if curve.reason:
            return MeanRoc(grid, nothing, nothing, nothing, n, level, curve.reason)
    # np.interp uses the last of repeated points, which is the upper end of a vertical segment.
    read = np.array([np.interp(grid, curve.fpr, curve.tpr) for curve in curves])
    mean = read.mean(axis=0)
    if n == 1:
        return MeanRoc(grid, mean, nothing, nothing, n, level, "one seed: no interval")
    half = stdtrit(n - 1, 0.5 + level / 2) * read.std(axis=0, ddof=1) / np.sqrt(n)
    low, high = np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1)
    return MeanRoc(grid, mean, low, high, n, level)


def _binary(truth: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats]:
    return checked("auc", truth, score)


def _counts(truth: Floats, score: Floats) -> tuple[Floats, Floats, Floats]:
    """Return scores in descending order, with the true and false positives (T,) at each."""
    order = np.argsort(-score, kind="stable")
    sorted_scores, positive = score[order], truth[order] == 1
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(score) - 1)
    true = np.cumsum(positive)[last].astype(np.float64)
    return sorted_scores[last], true, last + 1 - true


def _lowest(chosen: NDArray[np.bool_]) -> int:
    """Return the last index that is True, which is that of the lowest threshold."""
    return int(np.flatnonzero(chosen)[-1])
