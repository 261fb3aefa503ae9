"""What a metric is: one object with everything that tables, tests and resampling need of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CONSTANT = 1e-12
"""A spread below this fraction of the values is float noise, not variation."""


class Score(NamedTuple):
    """A metric's value; where it is undefined, NaN and the reason in words."""

    value: float
    reason: str = ""


def everyone(truth: Floats, prediction: Floats) -> dict[str, Mask]:
    """Return all subjects as the one group over which a metric is averaged."""
    return {"there": np.ones(len(truth), dtype=bool)}


def always_defined(truth: Floats, prediction: Floats) -> str:
    """Return no reason why a metric would be undefined."""
    return ""


@dataclass(frozen=True)
class Metric:
    """A metric: its value, each subject's part in it, and what it may be used for.

    Exactly one of `terms` and `value` is given. All functions take checked arrays: the truth (N,)
    and predicted ages (N,), probabilities of the positive class (N,) or of every class (N, K); a
    metric `of_classes` is given the class (N,) that each subject is put into in their place.

    Parameters
    ----------
    name, label : str
        The name in the database and on the command line, and the one in a table's head.
    unit : str
        Empty for a number without a unit.
    higher_is_better : bool
        The declared direction.
    tasks : tuple of str
        Of ``"regression"``, ``"binary"``, ``"multiclass"``: where it is defined.
    terms : callable, optional
        Each subject's contribution (N,). The metric is the mean over `groups` of the mean within
        each, and its covariance over test sets that of these means.
    value : callable, optional
        The value of a metric that is no mean over subjects. Its covariance over test sets comes
        from the delete-one-subject jackknife, which is right for smooth functions of the data and
        wrong for a median (Efron, 1982): such a metric is not `tested`.
    of_classes : bool
        Whether the functions are given classes instead of probabilities.
    groups : callable
        From truth and prediction to the groups of subjects that must not be empty, named in words.
    undefined : callable
        Why there is no value although no group is empty; an empty text where there is one.
    without_each : callable, optional
        The values (N,) with each subject left out in turn; computed one by one by default.
    weighted : callable, optional
        From the truth (N,), a stack of predictions (S, N[, K]) and weights (B, N) to the values
        (B, S) where each subject counts by its weight. By default a mean is weighted, and any
        other value computed on subjects repeated as often as their weight says.
    two_sample : bool
        Whether the terms are the structural components of a two-sample U-statistic: the mean
        within either group is the whole value (DeLong, Biometrics 44, 1988).
    ranked : bool
        Whether models may be ranked by it. Sensitivity alone is not: all positive has 1; nor is
        ECE: the prior has 0.
    tested : bool
        Whether differences may be tested.
    bounds : tuple of float
        The smallest and the largest value there can be.
    stored : bool
        Whether its values are kept in the database. Those of a plugin's metric are computed from
        the predictions whenever they are asked for, so that an edited plugin leaves none behind.

    Raises
    ------
    ValueError
        When neither or both of `terms` and `value` are given.
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
                f"the metric {self.name} needs a value or terms of subjects, not both or neither"
            )

    @property
    def title(self) -> str:
        """The label with its unit, if there is one."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def given(self, prediction: Floats, threshold: float) -> Floats:
        """Return what its functions are given: the prediction, or the classes (N,) it means."""
        return classes_of(prediction, threshold) if self.of_classes else prediction


def classes_of(prediction: Floats, threshold: float) -> Floats:
    """Return the class (N,) every subject is put into: the most probable, or by the threshold."""
    guess = prediction >= threshold if prediction.ndim == 1 else prediction.argmax(axis=1)
    return guess.astype(np.float64)


def is_constant(values: Floats) -> bool:
    """Whether the values vary by no more than float noise; one value alone does not vary."""
    return bool(np.ptp(values) <= CONSTANT * np.abs(values).max())
