"""Equivalence tests with a margin that was chosen before the runs.

The absence of a significant difference is not evidence of equivalence. Two architectures are
equivalent if two one-sided tests both reject that the difference is as large as the margin (TOST;
Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987). Both tests use the standard
error and degrees of freedom of the headline test, so they generalise to new training runs and new
subjects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from bench.stats.inference import Comparison
from bench.stats.metrics import SMALLEST_P

BETTER_BY_MORE = "better by more than the margin"
BETTER = "better"
EQUIVALENT = "equivalent within the margin"
EQUIVALENT_BUT_REAL = "equivalent within the margin (difference is real)"
NOT_INFERIOR = "not inferior"
UNDECIDED = "undecided"
WORSE = "worse"
WORSE_BY_MORE = "worse by more than the margin"
NO_TEST = "n/a"


@dataclass(frozen=True)
class Equivalence:
    """The equivalence tests of arm A and arm B; all values are NaN if there is no test.

    Parameters
    ----------
    margin : float
        The largest negligible difference, in units of the metric.
    alpha : float
        The significance level of each one-sided test.
    p_not_inferior : float
        One-sided p against "A is worse by the margin or more".
    p_not_superior : float
        One-sided p against "A is better by the margin or more".
    p : float
        The larger of the two, which is less than `alpha` if the arms are equivalent.
    p_inside : float
        The posterior probability, with a flat prior, that the difference is within the margin. It
        is computed from the t distribution centred at the estimate and scaled by its standard
        error.
    low, high : float
        Confidence bounds of the improvement at level 1 - 2 alpha, which are within the margin if
        and only if p < alpha.
    """

    margin: float
    alpha: float
    p_not_inferior: float
    p_not_superior: float
    p: float
    p_inside: float
    low: float
    high: float


def equivalence(comparison: Comparison, margin: float, alpha: float = 0.05) -> Equivalence:
    """Test whether the improvement of A over B is between -margin and margin.

    Parameters
    ----------
    comparison : Comparison
    margin : float
        A positive number in units of the metric, fixed before the runs.
    alpha : float
        The significance level of each one-sided test, between 0 and 0.5.

    Raises
    ------
    ValueError
        If the margin is not a positive number, or `alpha` is out of range.
    """
    _check(margin, alpha)
    estimate, se, df = comparison.improvement, comparison.se, comparison.df
    not_inferior = max(float(stdtr(df, -(estimate + margin) / se)), SMALLEST_P)
    not_superior = max(float(stdtr(df, (estimate - margin) / se)), SMALLEST_P)
    inside = stdtr(df, (margin - estimate) / se) - stdtr(df, (-margin - estimate) / se)
    low, high = _bounds(comparison, 1 - 2 * alpha)
    return Equivalence(
        margin=margin,
        alpha=alpha,
        p_not_inferior=not_inferior,
        p_not_superior=not_superior,
        p=max(not_inferior, not_superior),
        p_inside=float(inside),
        low=low,
        high=high,
    )


def verdict(comparison: Comparison, margin: float, alpha: float = 0.05) -> str:
    """Return the verdict on A given the margin.

    The verdict depends on two confidence intervals of the improvement. The interval of level
    1 - alpha shows whether there is a difference and whether it exceeds the margin; the interval of
    level 1 - 2 alpha shows equivalence and non-inferiority. The verdict is the first that applies:

    1. "better by more than the margin" or "worse by more than the margin": the 1 - alpha interval
       is beyond the margin;
    2. "equivalent within the margin": the 1 - 2 alpha interval is within the margin. If the
       1 - alpha interval excludes 0, "(difference is real)" is added, because a difference that
       was declared negligible remains so even if it is significant;
    3. "better" or "worse": the 1 - alpha interval excludes 0;
    4. "not inferior": the lower bound of the 1 - 2 alpha interval is above -margin;
    5. "undecided".

    The verdict is "n/a" if there is no test. Verdicts are not adjusted for the number of pairs.

    Parameters
    ----------
    comparison, margin, alpha
        As for `equivalence`.

    Raises
    ------
    ValueError
        As for `equivalence`.
    """
    _check(margin, alpha)
    low, high = _bounds(comparison, 1 - alpha)
    inner_low, inner_high = _bounds(comparison, 1 - 2 * alpha)
    if np.isnan(low):
        return NO_TEST
    if low > margin:
        return BETTER_BY_MORE
    if high < -margin:
        return WORSE_BY_MORE
    differs = low > 0 or high < 0
    if -margin < inner_low and inner_high < margin:
        return EQUIVALENT_BUT_REAL if differs else EQUIVALENT
    if differs:
        return BETTER if low > 0 else WORSE
    return NOT_INFERIOR if inner_low > -margin else UNDECIDED


def _check(margin: float, alpha: float) -> None:
    if not 0 < margin < np.inf:
        raise ValueError(f"margin must be a positive number in units of the metric, got {margin}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be between 0 and 0.5, got {alpha}")


def _bounds(comparison: Comparison, level: float) -> tuple[float, float]:
    """Return confidence bounds of the improvement; NaN if there is no test."""
    half = float(stdtrit(comparison.df, 0.5 + level / 2) * comparison.se)
    return comparison.improvement - half, comparison.improvement + half
