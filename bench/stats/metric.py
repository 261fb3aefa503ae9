"""The class of metrics, with everything that tables, tests and resampling need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CONSTANT = 1e-12
"""Variation below this fraction of the values is attributed to rounding errors."""


class Score(NamedTuple):
    """The value of a metric; if it is undefined, NaN with the reason."""

    value: float
    reason: str = ""


def everyone(truth: Floats, prediction: Floats) -> dict[str, Mask]:
    """Return all subjects as a single group over which a metric is averaged."""
    return {"there": np.ones(len(truth), dtype=bool)}


def always_defined(truth: Floats, prediction: Floats) -> str:
    """Return an empty text, because the metric is defined for all predictions."""
    return ""


@dataclass(frozen=True)
class Metric:
    """A metric: its value, the contributions of subjects, and what it can be used for.

    Exactly one of `terms` and `value` must be given. All functions receive checked arrays: the
    truth (N,), and predicted ages (N,), probabilities of the positive class (N,), or probabilities
    of all classes (N, K). With `of_classes`, they receive predicted classes (N,) instead of
    probabilities.

    Parameters
    ----------
    name, label : str
        The name in the database and on the command line, and the label in reports.
    unit : str
        The unit; empty if there is none.
    higher_is_better : bool
        Whether higher values are better.
    tasks : tuple of str
        The tasks for which it is defined: ``"regression"``, ``"binary"``, ``"multiclass"``.
    terms : callable, optional
        The contribution of each subject (N,). The metric is the mean over `groups` of the mean
        contribution within each group, and its covariance over test sets is that of these means.
    value : callable, optional
        The value of a metric that is not a mean over subjects. Its covariance over test sets is
        computed by the delete-one-subject jackknife, which is valid for smooth functions of the
        data but not for a median (Efron, 1982), for which `tested` must be False.
    of_classes : bool
        Whether the functions receive classes instead of probabilities.
    groups : callable
        From truth and prediction to the groups of subjects that must not be empty, by name.
    undefined : callable
        Why there is no value although no group is empty; an empty text if there is a value.
    without_each : callable, optional
        The values (N,) with each subject left out in turn; by default computed one by one.
    weighted : callable, optional
        From the truth (N,), a stack of predictions (S, N[, K]) and weights (B, N) to the values
        (B, S) in which each subject counts by its weight. By default, means are weighted, and
        other values are computed on subjects repeated as often as their weights say.
    two_sample : bool
        Whether the terms are the structural components of a two-sample U-statistic, whose mean
        within either group is the value of the metric (DeLong, Biometrics 44, 1988).
    ranked : bool
        Whether models can be ranked by it. This excludes sensitivity, which is 1 if all subjects
        are called positive, and ECE, which is 0 for the prior.
    tested : bool
        Whether differences can be tested.
    bounds : tuple of float
        The smallest and the largest possible value.
    stored : bool
        Whether its values are stored in the database. Those of a plugin's metric are computed from
        the predictions for each report, so that they are up to date if the plugin is edited.

    Raises
    ------
    ValueError
        If neither or both of `terms` and `value` are given.
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool
    tasks: tuple[str, ...]
    terms: Callable[[Floats, Floats], Floats] | None = None
    value: Callable[[Floats, Floats], float] | None = None
    of_classes: bool = False
    groups: Callable[[Floats, Floats], dict[str, Mask]] = everyone
    undefined: Callable[[Floats, Floats], str] = always_defined
    without_each: Callable[[Floats, Floats], Floats] | None = None
    weighted: Callable[[Floats, Floats, Floats], Floats] | None = None
    two_sample: bool = False
    ranked: bool = True
    tested: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    stored: bool = True

    def __post_init__(self) -> None:
        if (self.terms is None) == (self.value is None):
            raise ValueError(
                f"the metric {self.name} must have either a value or terms, not both or neither"
            )

    @property
    def title(self) -> str:
        """The label with the unit, if there is one."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def given(self, prediction: Floats, threshold: float) -> Floats:
        """Return the input of the metric's functions: predictions, or predicted classes (N,)."""
        return classes_of(prediction, threshold) if self.of_classes else prediction


def classes_of(prediction: Floats, threshold: float) -> Floats:
    """Return predicted classes (N,): the most probable class, or that given by the threshold."""
    guess = prediction >= threshold if prediction.ndim == 1 else prediction.argmax(axis=1)
    return guess.astype(np.float64)


def is_constant(values: Floats) -> bool:
    """Whether the values vary by no more than rounding errors, or there is only one value."""
    return bool(np.ptp(values) <= CONSTANT * np.abs(values).max())
