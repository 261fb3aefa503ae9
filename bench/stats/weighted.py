"""Metrics with weights of subjects, such as their frequencies in bootstrap resamples.

The metrics are computed exactly for the weights, without linearisation. All functions take the
truth (N,), a stack of predictions (S, N) and non-negative weights (B, N), and return values (B, S),
which are NaN if the metric is undefined with the weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.stats.metric import CONSTANT, Floats, Mask
from bench.stats.thresholds import precision_steps

_NAN = float("nan")
_NUMBERS_AT_ONCE = 1 << 18  # 2 MB of weights, which fit into the cache of a core.


def ratio(sums: Floats, totals: Floats) -> Floats:
    """Divide sums (B, S) by totals (B,) or (B, S); NaN if a total is 0."""
    below = np.broadcast_to(totals if totals.ndim == 2 else totals[:, None], sums.shape)
    return np.divide(sums, below, out=np.full(sums.shape, _NAN), where=below > 0)


def weighted_auc(positive: Mask, scores: Floats, weights: Floats) -> Floats:
    """Return the AUC as the weighted proportion of concordant pairs; ties count one half.

    For every positive subject, the weight of negative subjects with a lower score is looked up in
    their cumulative sum. Sums are exact for integer weights.
    """
    lookups = []
    for score in scores:
        order = np.argsort(score[~positive])
        ladder = score[~positive][order]
        first = np.searchsorted(ladder, score[positive], side="left")
        last = np.searchsorted(ladder, score[positive], side="right")
        lookups.append((order, first, last))
    values = []
    for part in _by_subject(weights):
        ups, downs = part[positive], part[~positive]
        pairs = ups.sum(axis=0) * downs.sum(axis=0)
        wins = np.empty((part.shape[1], len(scores)))
        below = np.zeros((len(downs) + 1, part.shape[1]))
        for run, (order, first, last) in enumerate(lookups):
            np.cumsum(downs[order], axis=0, out=below[1:])
            wins[:, run] = np.einsum("ib,ib->b", below[first], ups)
            wins[:, run] += np.einsum("ib,ib->b", below[last], ups)
        values.append(ratio(wins / 2, pairs))
    return np.concatenate(values)


def weighted_precision(truth: Floats, scores: Floats, weights: Floats) -> Floats:
    """Return average precision, the mean of the precision at the thresholds of positives."""
    positive = truth == 1
    lookups = []
    for score in scores:
        step, hits, called = precision_steps(positive, score)
        of_all, of_ups = (np.argsort(each, kind="stable") for each in (step, step[positive]))
        # The indices of the last subject and the last positive at each positive's threshold.
        ends = [each.cumsum().astype(int)[step[positive]] - 1 for each in (called, hits)]
        lookups.append((of_all, of_ups, *ends))
    values = []
    for part in _by_subject(weights):
        ups = part[positive]
        gained = np.empty((part.shape[1], len(scores)))
        for run, (of_all, of_ups, last, last_up) in enumerate(lookups):
            called = np.cumsum(part[of_all], axis=0)[last]
            true = np.cumsum(ups[of_ups], axis=0)[last_up]
            precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
            gained[:, run] = np.einsum("ib,ib->b", precision, ups)
        values.append(ratio(gained, ups.sum(axis=0)))
    found = np.concatenate(values)
    found[(weights @ ~positive) == 0] = _NAN  # Both classes must be present.
    return found


def _by_subject(weights: Floats) -> Iterator[Floats]:
    """Yield the weights (B, N) of a few resamples at a time, transposed to (N, b)."""
    step = max(1, _NUMBERS_AT_ONCE // weights.shape[1])
    for start in range(0, len(weights), step):
        yield np.ascontiguousarray(weights[start : start + step].T)


def weighted_rmse(truth: Floats, stack: Floats, weights: Floats) -> Floats:
    """Return the RMSE."""
    return np.sqrt(ratio(weights @ ((stack - truth) ** 2).T, weights.sum(axis=1)))


def weighted_r2(truth: Floats, stack: Floats, weights: Floats) -> Floats:
    """Return R2."""
    errors = weights @ ((stack - truth) ** 2).T
    return 1 - ratio(errors, _weighted_spread(truth[None], weights)[:, 0])


def weighted_r(truth: Floats, stack: Floats, weights: Floats) -> Floats:
    """Return Pearson's r."""
    x = stack - stack.mean(axis=1, keepdims=True)
    y = truth - truth.mean()
    means = ratio((weights @ y)[:, None], weights.sum(axis=1))
    products = weights @ (x * y).T - (weights @ x.T) * means
    spreads = _weighted_spread(x, weights) * _weighted_spread(y[None], weights)
    return np.clip(ratio(products, np.sqrt(spreads)), -1, 1)


def _weighted_spread(rows: Floats, weights: Floats) -> Floats:
    """Return the weighted sum of squares around the mean of rows (S, N), 0 if negligible."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    squares, sums = weights @ (centred**2).T, weights @ centred.T
    spreads = squares - sums * ratio(sums, weights.sum(axis=1))
    return np.where(spreads > CONSTANT * np.sum(centred**2, axis=1), spreads, 0.0)
