"""What the facts of scans give reason to look at. Nothing is left out for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

UNLIKE = 0.35
"""A scan whose correlation with the template is lower does not look registered to it: the template
moved by 20 mm has 0.3 or less with itself."""
OUTSIDE = 0.15
"""Skull-stripped scans have hardly any signal more than 8 mm outside the template's brain."""
FAR = 5.0
"""Robust standard deviations from the median of the cohort, of a logarithm."""


@dataclass(frozen=True)
class Concern:
    """A reason to look at scans, how it is found, and which scans it concerns."""

    what: str
    rule: str
    scans: pd.Index


def concerns(used: pd.DataFrame, space: str) -> list[Concern]:
    """Return what to look at, those without scans included.

    Parameters
    ----------
    used : DataFrame
        The used scans with the facts of `bench.data.facts.FACTS`.
    space : str
        ``mni`` or ``native``; scans that are not registered are not judged by the template.

    Returns
    -------
    list of Concern
    """
    rules: list[tuple[str, str, Callable[[], pd.Series]]] = [
        (
            "left and right unknown",
            "the header gives no orientation",
            lambda: used["orientation"] == "unknown",
        ),
        (
            "voxels that are not numbers",
            "NaN or infinite voxels were set to 0",
            lambda: used["n_nonfinite"] > 0,
        ),
        (
            "unusual intensities",
            f"mean or deviation is more than {FAR:g} robust standard deviations from the median, "
            "in logarithms",
            lambda: _far(used["mean"]) | _far(used["sd"]),
        ),
    ]
    if space == "mni":
        rules += [
            (
                "looks unregistered",
                f"correlation with the MNI152 template within its brain is below {UNLIKE:g}",
                lambda: used["likeness"] < UNLIKE,
            ),
            (
                "looks not skull-stripped",
                f"more than {OUTSIDE:.0%} of the signal is over 8 mm outside the template's brain",
                lambda: used["outside"] > OUTSIDE,
            ),
        ]
    return [Concern(what, rule, used.index[find()]) for what, rule, find in rules]


def _far(values: pd.Series) -> pd.Series:
    """Return which values are outliers of the logarithm, by median and median deviation."""
    logs = np.log(values.where(values > 0))
    middle = logs.median()
    spread = 1.4826 * (logs - middle).abs().median()
    if not spread > 0:
        return pd.Series(False, index=values.index)
    return ((logs - middle).abs() > FAR * spread) | (logs.isna() & values.notna())
