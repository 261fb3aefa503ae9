"""Metrics with each subject left out in turn, computed together in O(N) or O(N log N)."""

from __future__ import annotations

import numpy as np

from bench.stats.metric import CONSTANT, Floats
from bench.stats.thresholds import precision_steps

_NAN = float("nan")


def rmse_without(truth: Floats, prediction: Floats) -> Floats:
    """Return the RMSE without each subject."""
    if len(truth) == 1:
        return np.full(1, _NAN)
    squares = (prediction - truth) ** 2
    return np.sqrt(np.maximum(squares.sum() - squares, 0) / (len(truth) - 1))


def r2_without(truth: Floats, prediction: Floats) -> Floats:
    """Return R2 without each subject; NaN if all others have the same age."""
    squares = (prediction - truth) ** 2
    return 1 - (squares.sum() - squares) / _spread_without(truth)


def r_without(truth: Floats, prediction: Floats) -> Floats:
    """Return Pearson's r without each subject; NaN if all others have the same age."""
    spreads = np.sqrt(_spread_without(truth)) * np.sqrt(_spread_without(prediction))
    return _products_without(prediction, truth) / spreads


def average_precision_without(truth: Floats, prediction: Floats) -> Floats:
    """Return average precision without each subject, in O(N log N).

    Leaving a subject out reduces the counts at its own and all lower thresholds by one. Terms above
    are unchanged, so their sum is a prefix sum; the sum of changed terms below is a suffix sum.
    """
    positive = truth == 1
    step, hits, called = precision_steps(positive, prediction)
    true, all_called = hits.cumsum(), called.cumsum()
    fewer = np.maximum(all_called - 1, 1)  # At 0, no subject is left.
    above = _before(hits * true / all_called)
    without_hit = above + (hits - 1) * (true - 1) / fewer + _after(hits * (true - 1) / fewer)
    without_miss = above + hits * true / fewer + _after(hits * true / fewer)
    n_positive, n_negative = true[-1], all_called[-1] - true[-1]
    return np.where(
        positive,
        without_hit[step] / (n_positive - 1) if n_positive > 1 else _NAN,
        without_miss[step] / n_positive if n_negative > 1 else _NAN,
    )


def _before(terms: Floats) -> Floats:
    """Return the sum of the terms before each."""
    return np.concatenate([[0.0], terms.cumsum()[:-1]])


def _after(terms: Floats) -> Floats:
    """Return the sum of the terms after each."""
    return _before(terms[::-1])[::-1]


def _spread_without(x: Floats) -> Floats:
    """Return the sum of squares around the mean without each subject; NaN if negligible."""
    spreads = _products_without(x, x)
    return np.where(spreads > CONSTANT * np.sum((x - x.mean()) ** 2), spreads, _NAN)


def _products_without(x: Floats, y: Floats) -> Floats:
    """Return the sum of products around the means, with each subject left out in turn."""
    n = len(x)
    products = (x - x.mean()) * (y - y.mean())
    return products.sum() - products * n / (n - 1)
