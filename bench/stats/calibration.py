"""Calibration of predicted probabilities of two classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtri

from bench.stats.builtin import ECE_BINS, PROBABILITY_FLOOR
from bench.stats.metric import Floats, is_constant
from bench.stats.metrics import checked, compute
from bench.stats.operating import Proportion, wilson

_NAN = float("nan")
_STEPS = 100


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability curve: observed proportions of positives by predicted probability.

    Parameters
    ----------
    edges : array (bins + 1,)
        Edges of bins of equal width; a bin includes its lower edge, and the last one also 1.
    counts : int array (bins,)
        Number of subjects.
    predicted : array (bins,)
        Mean predicted probability; NaN in empty bins.
    observed : tuple of Proportion
        Proportion of positives with its Wilson interval; NaN in empty bins.
    reason : str
        Why there is no curve; all bins are then empty.
    """

    edges: Floats
    counts: NDArray[np.intp]
    predicted: Floats
    observed: tuple[Proportion, ...]
    reason: str = ""


class Estimate(NamedTuple):
    """A coefficient with its Wald confidence bounds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CalibrationLine:
    """The logistic regression of truth on logit(p): logit P(y = 1) = intercept + slope logit(p).

    Parameters
    ----------
    intercept, slope : Estimate
        Fitted together; perfect calibration has an intercept of 0 and a slope of 1. A slope below
        1 means that probabilities are too extreme.
    in_the_large : Estimate
        The intercept with the slope fixed at 1; it is positive if probabilities are too low on
        average.
    level : float
        Confidence level of the bounds.
    reason : str
        Why all values are NaN.
    """

    intercept: Estimate
    slope: Estimate
    in_the_large: Estimate
    level: float
    reason: str = ""


def reliability(
    truth: ArrayLike, probability: ArrayLike, n_bins: int = ECE_BINS, level: float = 0.95
) -> Reliability:
    """Return the reliability curve of one run.

    Parameters
    ----------
    truth : array (N,)
        Class indices, with 1 as the positive class.
    probability : array (N,)
        P(positive).
    n_bins : int
        The number of bins of equal width from 0 to 1.
    level : float
        Confidence level of the Wilson intervals, between 0 and 1.

    Raises
    ------
    ValueError
        If the shapes do not match, the truth is not a class index, there is no bin, or `level` is
        not between 0 and 1.
    """
    if n_bins < 1:
        raise ValueError("a reliability curve needs at least one bin")
    truth, probability = checked("brier", truth, probability)
    edges = np.arange(n_bins + 1) / n_bins
    reason = compute("brier", truth, probability).reason
    if reason:
        truth, probability = truth[:0], probability[:0]
    bins = np.digitize(probability, edges[1:-1])
    counts = np.bincount(bins, minlength=n_bins)
    sums = np.bincount(bins, weights=probability, minlength=n_bins)
    hits = np.bincount(bins, weights=truth, minlength=n_bins)
    return Reliability(
        edges=edges,
        counts=counts,
        predicted=np.divide(sums, counts, out=np.full(n_bins, _NAN), where=counts > 0),
        observed=tuple(wilson(int(k), int(n), level) for k, n in zip(hits, counts, strict=True)),
        reason=reason,
    )


def calibration_line(
    truth: ArrayLike, probability: ArrayLike, level: float = 0.95
) -> CalibrationLine:
    """Fit the calibration intercept and slope of one run (Cox, Biometrika 45, 1958).

    Parameters
    ----------
    truth, probability : array (N,)
        As for `reliability`; probabilities are clipped 1e-7 from 0 and 1.
    level : float
        Confidence level of the Wald intervals, between 0 and 1.

    Returns
    -------
    CalibrationLine
        NaN with the reason if a class is absent, all predictions are equal, or a probability
        separates the classes, so that the slope is infinite.

    Raises
    ------
    ValueError
        If the shapes do not match, the truth is not a class index, or `level` is not between 0
        and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    truth, probability = checked("brier", truth, probability)
    x = logit(np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR))
    reason = compute("auc", truth, probability).reason or _no_line(truth, x)
    both = _newton(truth, np.stack([np.ones_like(x), x]), np.zeros_like(x)) if not reason else None
    one = _newton(truth, np.ones((1, len(x))), x) if not reason else None
    if both is None or one is None:
        nothing = Estimate(_NAN, _NAN, _NAN)
        reason = reason or "the regression does not converge"
        return CalibrationLine(nothing, nothing, nothing, level, reason)
    z = float(ndtri(0.5 + level / 2))
    intercept, slope, in_the_large = (
        Estimate(float(value), float(value - z * se), float(value + z * se))
        for value, se in (*zip(*both, strict=True), *zip(*one, strict=True))
    )
    return CalibrationLine(intercept, slope, in_the_large, level)


def _no_line(truth: Floats, x: Floats) -> str:
    """Return why there is no finite estimate of the slope, or an empty text."""
    if is_constant(x):
        return "the prediction is constant"
    positive, negative = x[truth == 1], x[truth == 0]
    # With one predictor, the estimate is finite if and only if the two classes overlap.
    if negative.max() <= positive.min() or positive.max() <= negative.min():
        return "a probability separates the classes: the slope is infinite"
    return ""


def _newton(truth: Floats, design: Floats, offset: Floats) -> tuple[Floats, Floats] | None:
    """Return coefficients (P,) and standard errors of a logistic regression on a design (P, N)."""
    beta = np.zeros(len(design))

    def loss(at: Floats) -> float:
        eta = at @ design + offset
        return float(np.sum(np.logaddexp(0, eta) - truth * eta))

    for _ in range(_STEPS):
        p = expit(beta @ design + offset)
        information = (design * p * (1 - p)) @ design.T
        gradient = design @ (truth - p)
        if not np.linalg.cond(information) < 1e14:
            return None
        step, before = np.linalg.solve(information, gradient), loss(beta)
        # Stop if the Newton decrement is negligible; the last step makes the result exact.
        if gradient @ step <= 1e-12 * (1 + before):
            return beta + step, np.sqrt(np.diag(np.linalg.inv(information)))
        # Far from the optimum, a full step may overshoot; halving helps, as the loss is convex.
        while loss(beta + step) > before and np.abs(step).max() > 1e-12:
            step = step / 2
        beta = beta + step
    return None
