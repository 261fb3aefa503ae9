"""What subjects contribute to metrics over all thresholds of a score: AUC, average precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bench.stats.metric import Floats, Mask


def placements(positive: Mask, score: Floats) -> Floats:
    """Return DeLong's structural components (N,): each subject's own share of the AUC.

    A positive subject has the share of negatives that score below it, a negative one the share of
    positives above it, ties counted one half; the mean over either class is the AUC. In
    O(N log N) by midranks (Sun and Xu, IEEE Signal Processing Letters 2014).

    Parameters
    ----------
    positive : bool array (N,)
        Both classes present.
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
    """Return what average precision is made of, threshold by threshold from the highest score.

    Parameters
    ----------
    positive : bool array (N,)
    score : array (N,)
        Higher means more positive; subjects of one score share a threshold.

    Returns
    -------
    step : int array (N,)
        The threshold at which each subject is first called positive.
    hits, called : array (T,)
        True positives, and subjects, that each of the T thresholds adds.
    """
    _, step = np.unique(-score, return_inverse=True)
    hits, called = np.bincount(step, weights=positive), np.bincount(step)
    return step, hits.astype(np.float64), called.astype(np.float64)
