"""Quality checks based on the facts of scans. Scans are flagged but not excluded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

UNLIKE = 0.35
"""A scan with a lower correlation with the template is probably not registered to it: shifting the
template by 20 mm reduces its correlation with itself to 0.3 or less."""
OUTSIDE = 0.15
"""Share of the signal more than 8 mm outside the template's brain; skull-stripped scans have
hardly any signal there."""
FAR = 5.0
"""Distance of an outlier from the cohort's median, in robust standard deviations of logarithms."""


@dataclass(frozen=True)
class Concern:
    """A reason to look at scans: its name, the rule that detects it, and the scans concerned."""

    what: str
    rule: str
    scans: pd.Index


def concerns(used: pd.DataFrame, space: str) -> list[Concern]:
    """Return all quality checks, including those that flag no scan.

    Parameters
    ----------
    used : DataFrame
        The used scans with the facts of `bench.data.facts.FACTS`.
    space : str
        ``mni`` or ``native``; only registered scans are compared with the template.

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
    """Tell which values have outlying logarithms, by the median and median absolute deviation."""
    logs = np.log(values.where(values > 0))
    median = logs.median()
    spread = 1.4826 * (logs - median).abs().median()
    if not spread > 0:
        return pd.Series(False, index=values.index)
    return ((logs - median).abs() > FAR * spread) | (logs.isna() & values.notna())
