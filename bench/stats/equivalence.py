"""Whether a difference matters: the headline test set against a margin chosen before the run.

A difference that is not significant is no evidence of none. Two architectures are the same for
practical purposes where two one-sided tests together reject that the difference is as large as the
margin in either direction (TOST; Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15,
1987). Both use the standard error and the degrees of freedom of the headline test, so what they
say covers new training runs and new subjects alike.
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
    """Arm A against arm B and a margin; everything is NaN where there is no test.

    Parameters
    ----------
    margin : float
        The largest difference that does not matter, in the metric's units.
    alpha : float
        The level of each one-sided test.
    p_not_inferior : float
        One-sided p against "A is worse by the margin or more".
    p_not_superior : float
        One-sided p against "A is better by the margin or more".
    p : float
        The larger of the two: at most `alpha` where the arms are equivalent.
    p_inside : float
        P(inside the margin): what lies between -margin and margin of the t distribution centred
        at the estimate and scaled by its standard error; the posterior under a flat prior.
    low, high : float
        Bounds of the improvement at level 1 - 2 alpha, which lie inside the margin exactly where
        p < alpha.
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
    """Test whether the improvement of A over B lies between -margin and margin.

    Parameters
    ----------
    comparison : Comparison
    margin : float
        Above 0, in the metric's units; fixed before the run.
    alpha : float
        Of each of the two one-sided tests, between 0 and one half.

    Raises
    ------
    ValueError
        When the margin is not a positive number, or `alpha` is out of range.
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
    """Return in words what the comparison says about A, given the margin.

    Two intervals of the improvement decide, as is standard: that of level 1 - alpha whether there
    is a difference and whether it exceeds the margin, that of level 1 - 2 alpha whether the
    margin's bounds are ruled out. The first of these that holds is said:

    1. "better by more than the margin", "worse by more than the margin": the 1 - alpha interval
       lies beyond the margin;
    2. "equivalent within the margin": the 1 - 2 alpha interval lies inside the margin; where the
       1 - alpha interval leaves 0 out, "(difference is real)" is added, because a difference that
       was declared too small to matter does not come to matter by being certain;
    3. "better", "worse": the 1 - alpha interval leaves 0 out;
    4. "not inferior": the lower bound of the 1 - 2 alpha interval is above -margin;
    5. "undecided".

    "n/a" is said where there is no test. Verdicts are of one pair: they are not adjusted for the
    number of pairs.

    Parameters
    ----------
    comparison, margin, alpha
        As for `equivalence`.

    Raises
    ------
    ValueError
        As `equivalence`.
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
        raise ValueError(f"a margin is a positive number in the metric's units, not {margin}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha lies between 0 and 0.5, not at {alpha}")


def _bounds(comparison: Comparison, level: float) -> tuple[float, float]:
    """Return the bounds of the improvement; NaN without a test."""
    half = float(stdtrit(comparison.df, 0.5 + level / 2) * comparison.se)
    return comparison.improvement - half, comparison.improvement + half
