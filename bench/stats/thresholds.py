"""Contributions of subjects to metrics over all thresholds: AUC and average precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bench.stats.metric import Floats, Mask


def placements(positive: Mask, score: Floats) -> Floats:
    """Return DeLong's structural components (N,), the contributions of subjects to the AUC.

    The component of a positive subject is the proportion of negative subjects with a lower score,
    and that of a negative subject is the proportion of positive subjects with a higher score; ties
    count one half. The mean over either class is the AUC. Components are computed from midranks in
    O(N log N) (Sun and Xu, IEEE Signal Processing Letters 21, 2014).

    Parameters
    ----------
    positive : bool array (N,)
        Both classes must be present.
    score : array (N,)
        Higher means more positive.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    overall = rankdata(score)
    shares = np.empty(len(score))
    shares[positive] = (overall[positive] - rankdata(score[positive])) / n_negative
    shares[~positive] = 1 - (overall[~positive] - rankdata(score[~positive])) / n_positive
    return shares


def precision_steps(positive: Mask, score: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Return the counts for average precision, for thresholds in descending order.

    Parameters
    ----------
    positive : bool array (N,)
    score : array (N,)
        Higher means more positive; subjects with the same score share a threshold.

    Returns
    -------
    step : int array (N,)
        The index of the highest threshold at which each subject is called positive.
    hits, called : array (T,)
        The numbers of true positives and of subjects that are added at each of T thresholds.
    """
    _, step = np.unique(-score, return_inverse=True)
    hits, called = np.bincount(step, weights=positive), np.bincount(step)
    return step, hits.astype(np.float64), called.astype(np.float64)
