"""Two trained checkpoints on new subjects: tests within one seed.

They take the two trained networks as given and ask about other subjects only, so they answer which
of two files to use and not which architecture is better. Every seed has its own p; the p-values
share a test set and are never combined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtr, stdtrit
from scipy.stats import binomtest

from bench.stats.metrics import (
    CONSTANT,
    Floats,
    Mask,
    checked,
    placements,
    terms_of,
    undefined,
)

CONDITIONS_ON = "these two checkpoints, new subjects"

_NAN = float("nan")
_SMALLEST = float(np.finfo(np.float64).tiny)  # a p too small for a float is still not zero


@dataclass(frozen=True)
class CheckpointTest:
    """A two-sided test of two checkpoints on the same subjects.

    Parameters
    ----------
    name : str
        The test.
    metric : str
        What `value_a` and `value_b` are: ``auc``, ``accuracy`` or ``mae``.
    n_subjects : int
    value_a, value_b, difference : float
        Of the two checkpoints, and A - B in the metric's own direction.
    se, low, high : float
        Standard error and confidence bounds of the difference; McNemar's test has none.
    p : float
        NaN where there is none; `reason` says why.
    only_a, only_b : int
        Subjects that only A, or only B, classifies correctly; 0 where the metric is another.
    reason : str
    conditions_on : str
        What the test takes as given.
    """

    name: str
    metric: str
    n_subjects: int
    value_a: float = _NAN
    value_b: float = _NAN
    difference: float = _NAN
    se: float = _NAN
    low: float = _NAN
    high: float = _NAN
    p: float = _NAN
    only_a: int = 0
    only_b: int = 0
    reason: str = ""
    conditions_on: str = CONDITIONS_ON


class AucCovariance(NamedTuple):
    """AUCs (R,) of R predictions of the same subjects with their covariance (R, R)."""

    auc: Floats
    covariance: Floats


def auc_covariance(positive: Mask, scores: Floats) -> AucCovariance:
    """Return the AUCs of several predictions and DeLong's covariance of them.

    After DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988), with the structural components
    from midranks in O(R N log N) (`metrics.placements`).

    Parameters
    ----------
    positive : bool array (N,)
        Which subjects are positive; at least two of either class.
    scores : array (R, N)
        Higher means more positive.

    Raises
    ------
    ValueError
        When a class has fewer than two subjects.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if min(n_positive, n_negative) < 2:
        raise ValueError("the variance of an AUC needs two subjects of either class")
    shares = np.stack([placements(positive, row) for row in scores])
    covariance = np.zeros((len(shares), len(shares)))
    for members, n in ((positive, n_positive), (~positive, n_negative)):
        centred = shares[:, members] - shares[:, members].mean(axis=1, keepdims=True)
        covariance += centred @ centred.T / ((n - 1) * n)
    return AucCovariance(shares[:, positive].mean(axis=1), covariance)


def delong(truth: ArrayLike, a: ArrayLike, b: ArrayLike, level: float = 0.95) -> CheckpointTest:
    """DeLong's test of two AUCs on the same subjects.

    Parameters
    ----------
    truth : array (N,)
        0 or 1.
    a, b : array (N,)
        P(positive) of the two checkpoints.
    level : float
        Of the normal confidence interval.

    Returns
    -------
    CheckpointTest
        Without p where a class has fewer than two subjects, a prediction is undefined, or the
        difference has no variance: equal ranks, or both checkpoints separate perfectly.

    Raises
    ------
    ValueError
        When the shapes do not fit, the truth is no class index, or `level` is not between 0
        and 1.
    """
    name = "DeLong"
    target, first, second, reason = _checked("auc", truth, a, b, level)
    if reason:
        return CheckpointTest(name, "auc", len(target), reason=reason)
    positive = target == 1
    if min(positive.sum(), (~positive).sum()) < 2:
        values = [float(placements(positive, row)[positive].mean()) for row in (first, second)]
        reason = "fewer than two subjects of a class: no variance"
        return _untested(name, "auc", len(target), values[0], values[1], reason)
    auc, covariance = auc_covariance(positive, np.stack([first, second]))
    value_a, value_b = float(auc[0]), float(auc[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    # The sum of three terms of size up to 1: what is left of equal ones is float noise.
    if variance <= CONSTANT * max(covariance[0, 0], covariance[1, 1]):
        return _untested(
            name, "auc", len(target), value_a, value_b, "the difference has no variance"
        )
    difference, se = value_a - value_b, float(np.sqrt(variance))
    half = float(ndtri(0.5 + level / 2)) * se
    return CheckpointTest(
        name,
        "auc",
        len(target),
        value_a,
        value_b,
        difference,
        se,
        difference - half,
        difference + half,
        max(float(2 * ndtr(-abs(difference) / se)), _SMALLEST),
    )


def mcnemar(truth: ArrayLike, a: ArrayLike, b: ArrayLike, threshold: float = 0.5) -> CheckpointTest:
    """Exact McNemar test of two accuracies on the same subjects.

    Of the subjects that only one checkpoint classifies correctly, either is as likely to be the
    right one: a two-sided binomial test.

    Parameters
    ----------
    truth : array (N,)
        Class indices.
    a, b : array (N,) or (N, K)
        P(positive), or the probabilities of K classes.
    threshold : float
        Two classes: positive if P(positive) >= threshold.

    Returns
    -------
    CheckpointTest
        Where the two are right on the same subjects p is 1, and `reason` says so.

    Raises
    ------
    ValueError
        When the shapes do not fit or the truth is no class index.
    """
    name = "exact McNemar"
    target, first, second, reason = _checked("accuracy", truth, a, b)
    if reason:
        return CheckpointTest(name, "accuracy", len(target), reason=reason)
    right_a = terms_of("accuracy", target, first, threshold) == 1
    right_b = terms_of("accuracy", target, second, threshold) == 1
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p, reason = 1.0, "both are right on the same subjects"
    if only_a + only_b:
        p, reason = max(float(binomtest(only_a, only_a + only_b).pvalue), _SMALLEST), ""
    return CheckpointTest(
        name,
        "accuracy",
        len(target),
        float(right_a.mean()),
        float(right_b.mean()),
        (only_a - only_b) / len(target),
        p=p,
        only_a=only_a,
        only_b=only_b,
        reason=reason,
    )


def absolute_error_t(
    truth: ArrayLike, a: ArrayLike, b: ArrayLike, level: float = 0.95
) -> CheckpointTest:
    """Paired t test over subjects of two checkpoints' absolute errors.

    Parameters
    ----------
    truth, a, b : array (N,)
        Ages in years, and those predicted by the two checkpoints.
    level : float
        Of the t interval.

    Returns
    -------
    CheckpointTest
        Without p for fewer than two subjects, an undefined prediction, or errors whose
        difference does not vary.

    Raises
    ------
    ValueError
        When the shapes do not fit, the truth is not finite, or `level` is not between 0 and 1.
    """
    name = "paired t on absolute error"
    target, first, second, reason = _checked("mae", truth, a, b, level)
    n = len(target)
    if reason:
        return CheckpointTest(name, "mae", n, reason=reason)
    errors = np.abs(np.stack([first, second]) - target)
    value_a, value_b = (float(value) for value in errors.mean(axis=1))
    if n < 2:
        return _untested(name, "mae", n, value_a, value_b, "fewer than two subjects")
    gaps = errors[0] - errors[1]
    # Errors are differences of ages, so their float noise is that of the ages.
    size = max(np.abs(target).max(), np.abs(first).max(), np.abs(second).max())
    if gaps.std(ddof=1) <= CONSTANT * size:
        return _untested(name, "mae", n, value_a, value_b, "the differences do not vary")
    difference, se = float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(n))
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * se
    return CheckpointTest(
        name,
        "mae",
        n,
        value_a,
        value_b,
        difference,
        se,
        difference - half,
        difference + half,
        max(float(2 * stdtr(n - 1, -abs(difference) / se)), _SMALLEST),
    )


TESTS: dict[str, Callable[[ArrayLike, ArrayLike, ArrayLike], CheckpointTest]] = {
    "auc": delong,
    "accuracy": mcnemar,
    "mae": absolute_error_t,
}
"""The test of two checkpoints by metric; other metrics have none here."""


def each_seed(
    name: str, truth: ArrayLike, a: Floats, b: Floats, seeds: Sequence[int]
) -> dict[int, CheckpointTest]:
    """Test the two checkpoints of every seed by itself; the p-values are listed, never combined.

    Parameters
    ----------
    name : str
        A metric of `TESTS`.
    truth : array (N,)
    a, b : array (S, N) or (S, N, K)
        Predictions of the two arms, paired by seed.
    seeds : sequence of int (S,)

    Raises
    ------
    ValueError
        When the metric has no such test, seeds repeat, or the shapes do not fit.
    """
    if name not in TESTS:
        raise ValueError(f"checkpoints are tested by {', '.join(TESTS)}, not by {name!r}")
    if not len(a) == len(b) == len(seeds) == len(set(seeds)):
        raise ValueError("each arm needs one run of each seed, and no seed twice")
    rows = zip(seeds, a, b, strict=True)
    return {seed: TESTS[name](truth, row_a, row_b) for seed, row_a, row_b in rows}


def _checked(
    name: str, truth: ArrayLike, a: ArrayLike, b: ArrayLike, level: float = 0.95
) -> tuple[Floats, Floats, Floats, str]:
    """Return the arrays as float64 and why the metric is undefined for A or B, if it is."""
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, not at {level}")
    target, first = checked(name, truth, a)
    _, second = checked(name, truth, b)
    if first.shape != second.shape:
        raise ValueError(f"the two predictions differ in shape: {first.shape}, {second.shape}")
    reasons = [f"A: {text}" if (text := undefined(name, target, first)) else ""]
    reasons += [f"B: {text}" if (text := undefined(name, target, second)) else ""]
    return target, first, second, "; ".join(filter(None, reasons))


def _untested(
    name: str, metric: str, n: int, value_a: float, value_b: float, reason: str
) -> CheckpointTest:
    return CheckpointTest(name, metric, n, value_a, value_b, value_a - value_b, reason=reason)
