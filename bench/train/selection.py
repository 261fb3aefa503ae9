"""The score that best epoch, early stopping, pruning and tuning go by. Imports no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from registry.cards import Task


class Diverged(Exception):
    """The loss or the predictions are no longer numbers."""


def selection_score(
    task: Task, targets: NDArray[np.float64], predictions: NDArray[np.float64], rule: str
) -> float:
    """Return the score, lower is better, that best epoch, pruning and tuning all go by.

    Validation mean absolute error in years for age, unweighted log loss for classes;
    with ``rule="accuracy"`` (the papers' rule for classes) one minus the accuracy.

    Parameters
    ----------
    task : Task
        What is predicted.
    targets, predictions : array (n,), array (n, k)
        As `Learner.predict` returns them.
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
    # float32 sigmoids reach 0 and 1; the floor keeps one confident error from being infinite.
    return float(-np.mean(np.log(np.clip(likelihood, 1e-7, None))))
