"""The brain-age gap (predicted minus true age), its dependence on age, and its correction.

Predictions regress to the mean, so the gap decreases with age. For group analyses, this is removed
by a correction that is fitted on validation subjects. Corrected predictions depend on the true age,
so they must not be used to rank models or to report accuracy: with Beheshti's correction, even a
constant prediction has a mean absolute error of 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from bench.stats.metric import CONSTANT, Floats, is_constant
from bench.stats.metrics import checked, compute

FEW_SUBJECTS = 30
"""With fewer validation subjects, corrections are flagged as uncertain."""

METHODS = ("beheshti", "cole")

_NAN = float("nan")


class Line(NamedTuple):
    """A least-squares line with confidence bounds of its slope; NaN for the reason in `reason`."""

    slope: float
    intercept: float
    low: float
    high: float
    reason: str = ""


class GapSummary(NamedTuple):
    """The uncorrected gap of one run; undefined values are NaN, with the reason in `reason`.

    Parameters
    ----------
    mae, mean_gap : float
        Mean absolute error and mean gap in years; the gap is positive if brains look older.
    slope, low, high : float
        Slope of the gap on age, in years per year, with its confidence bounds.
    r : float
        Pearson correlation of gap and age.
    youngest, oldest : float
        The age range of the subjects.
    n_subjects : int
    level : float
        Confidence level of the bounds.
    reason : str
    """

    mae: float
    mean_gap: float
    slope: float
    low: float
    high: float
    r: float
    youngest: float
    oldest: float
    n_subjects: int
    level: float
    reason: str


@dataclass(frozen=True)
class Correction:
    """A correction of the predicted ages of a run, fitted on its validation subjects.

    Parameters
    ----------
    method : str
        With ``"beheshti"``, slope * age + intercept is the expected gap; with ``"cole"``, it is the
        expected prediction.
    slope, intercept : float
    n_validation : int
    reason : str
        Why it is undefined; corrected predictions are then NaN.
    flags : tuple of str
    """

    method: str
    slope: float
    intercept: float
    n_validation: int
    reason: str = ""
    flags: tuple[str, ...] = ()

    def apply(self, age: ArrayLike, prediction: ArrayLike) -> Floats:
        """Return corrected predictions (N,) for test subjects of the same run.

        They are meant for group analyses only, see the docstring of this module.
        """
        true, predicted = checked("mae", age, prediction)
        if self.reason:
            return np.full(len(true), _NAN)
        if self.method == "cole":
            return (predicted - self.intercept) / self.slope
        return predicted - (self.slope * true + self.intercept)


def fit_line(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Line:
    """Fit y on x by least squares, with the t interval of the slope.

    Parameters
    ----------
    x, y : array (N,)
    level : float
        Confidence level, between 0 and 1.

    Returns
    -------
    Line
        NaN if x is constant or a value is not finite; without bounds for two points.

    Raises
    ------
    ValueError
        If the lengths differ or `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"x and y must have the same length, got shapes {x.shape} and {y.shape}")
    if len(x) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        reason = "fewer than two subjects" if len(x) < 2 else "a value is not finite"
        return Line(_NAN, _NAN, _NAN, _NAN, reason)
    if is_constant(x):
        return Line(_NAN, _NAN, _NAN, _NAN, "the age is constant")
    df, centred = len(x) - 2, x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ (y - y.mean())) / spread
    intercept = float(y.mean() - slope * x.mean())
    if df == 0:
        return Line(slope, intercept, _NAN, _NAN, "two subjects: no interval")
    residuals = y - y.mean() - slope * centred
    half = float(stdtrit(df, 0.5 + level / 2) * np.sqrt(residuals @ residuals / df / spread))
    return Line(slope, intercept, slope - half, slope + half)


def gap_summary(age: ArrayLike, prediction: ArrayLike, level: float = 0.95) -> GapSummary:
    """Describe the uncorrected gap of one run.

    Parameters
    ----------
    age, prediction : array (N,)
        In years.
    level : float
        Confidence level of the slope, between 0 and 1.

    Raises
    ------
    ValueError
        If the lengths differ, an age is not finite, or `level` is not between 0 and 1.
    """
    true, predicted = checked("mae", age, prediction)
    mae, gap = compute("mae", true, predicted), predicted - true
    line = fit_line(true, gap, level)
    r = _NAN
    # The correlation is undefined if the gap varies only by rounding errors.
    if not mae.reason and np.ptp(gap) > CONSTANT * np.abs(predicted).max():
        r = compute("r", true, gap).value
    return GapSummary(
        mae=mae.value,
        mean_gap=_NAN if mae.reason else float(gap.mean()),
        slope=line.slope,
        low=line.low,
        high=line.high,
        r=r,
        youngest=float(true.min()) if len(true) else _NAN,
        oldest=float(true.max()) if len(true) else _NAN,
        n_subjects=len(true),
        level=level,
        reason=mae.reason or line.reason,
    )


def fit_correction(method: str, age: ArrayLike, prediction: ArrayLike) -> Correction:
    """Fit a correction on the VALIDATION predictions of a run, for its test predictions.

    ``"beheshti"`` fits gap = s age + i and subtracts it from the prediction (Beheshti et al.,
    NeuroImage: Clinical 24, 2019). ``"cole"`` fits prediction = a age + b and inverts it, to
    (prediction - b) / a (Cole et al., Molecular Psychiatry 23, 2018).

    Parameters
    ----------
    method : str
    age, prediction : array (N,)
        Ages of the validation subjects, in years.

    Returns
    -------
    Correction
        Undefined if no line can be fitted. Cole's correction divides by a and is also undefined if
        the 95 % interval of a includes 0.

    Raises
    ------
    ValueError
        If there is no such method, the lengths differ, or an age is not finite.
    """
    if method not in METHODS:
        raise ValueError(f"there is no correction {method!r}; choose {' or '.join(METHODS)}")
    true, predicted = checked("mae", age, prediction)
    line = fit_line(true, predicted - true if method == "beheshti" else predicted)
    n, reason = len(true), line.reason
    if method == "cole" and not reason:
        noise = CONSTANT * np.abs(predicted).max() / np.ptp(true)
        if not (line.low > 0 and line.slope > noise):
            reason = (
                "on validation the prediction does not follow age:"
                f" slope {line.slope:.2f}, 95 % CI {line.low:.2f} to {line.high:.2f}"
            )
    flags = (f"fitted on {n} validation subjects",) if n < FEW_SUBJECTS else ()
    return Correction(method, line.slope, line.intercept, n, reason, flags)
