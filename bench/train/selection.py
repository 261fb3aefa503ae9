"""The validation score for early stopping, pruning and tuning. Does not import torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from registry.cards import Task


class Diverged(Exception):
    """The loss or the predictions are not finite."""


def selection_score(
    task: Task, targets: NDArray[np.float64], predictions: NDArray[np.float64], rule: str
) -> float:
    """Return the score (lower is better) that selects the best epoch and the best settings.

    The score is the mean absolute error for age, and the unweighted log loss for classes. With
    ``rule="accuracy"``, as in the papers, it is one minus the accuracy for classes.

    Parameters
    ----------
    task : Task
        What is predicted.
    targets, predictions : array (n,), array (n, k)
        Targets, and predictions as returned by `Learner.predict`.
    rule : str
        ``"loss"`` or ``"accuracy"``.
    """
    if task.kind == "regression":
        return float(np.mean(np.abs(predictions[:, 0] - targets)))
    chosen = targets.astype(int)
    if predictions.shape[1] == 1:
        predictions = np.column_stack([1 - predictions[:, 0], predictions[:, 0]])
        guesses = (predictions[:, 1] >= 0.5).astype(int)
    else:
        guesses = predictions.argmax(axis=1)
    if rule == "accuracy":
        return float(1 - np.mean(guesses == chosen))
    likelihood = predictions[np.arange(len(chosen)), chosen]
    # In float32, a sigmoid can be exactly 0 or 1; clipping keeps the log loss finite.
    return float(-np.mean(np.log(np.clip(likelihood, 1e-7, None))))
