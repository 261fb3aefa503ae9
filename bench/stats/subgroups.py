"""Metrics within subgroups of subjects, and tests of interactions of arms with subgroups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.inference import Comparison, Interval, compare, interval_over_seeds
from bench.stats.measured import MeasuredRuns, RunPredictions, combine, measure_runs
from bench.stats.metric import Mask

NOT_KNOWN = "not known"
"""The level of subjects with a missing covariate."""


class Subgroup(NamedTuple):
    """The metric of an arm for the subjects of one level of a covariate.

    Parameters
    ----------
    level : str
    over_seeds : Interval
        The mean over seeds with its t interval; NaN for the reason in `reason`.
    n_subjects, n_smallest : int
        The number of subjects of the level, and of those in the smallest group over which the
        metric averages.
    reason : str
    """

    level: str
    over_seeds: Interval
    n_subjects: int
    n_smallest: int
    reason: str


class Interaction(NamedTuple):
    """The difference between two levels in the difference of A and B.

    Parameters
    ----------
    level, against : str
    comparison : Comparison
        The comparison of the contrasts of A and B between the two levels. Its difference is
        (A - B) in `level` minus (A - B) in `against`.
    n_not_known : int
        The number of subjects that were excluded because their level is unknown.
    """

    level: str
    against: str
    comparison: Comparison
    n_not_known: int


def levels_of(values: Sequence[object]) -> tuple[str, ...]:
    """Return the level of each subject as text; missing values are ``"not known"``."""
    return tuple(NOT_KNOWN if _is_missing(value) else _text(value) for value in values)


def age_bands(age: Sequence[object], width: int = 10) -> tuple[str, ...]:
    """Return the age band of each subject, such as ``"60-69"`` completed years.

    Parameters
    ----------
    age : sequence (N,)
        Ages in years; missing ages are ``"not known"``.
    width : int
        The width of bands, which begin at multiples of it.

    Raises
    ------
    ValueError
        If an age is negative or not a number, or the width is not positive.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    return tuple(
        NOT_KNOWN if years is None else f"{(low := int(years // width) * width)}-{low + width - 1}"
        for years in _years(age)
    )


def quantile_bands(age: Sequence[object], n: int = 4) -> tuple[str, ...]:
    """Return the quantile of each subject's age, such as ``"60.5 to < 71.2"``.

    Bands contain approximately equal numbers of subjects and are named by their bounds, so they
    differ between cohorts. Subjects of the same age are in the same band. The last band includes
    its upper bound.

    Parameters
    ----------
    age : sequence (N,)
        Ages in years; missing ages are ``"not known"``.
    n : int
        The number of bands, at least two. There are fewer if many subjects have the same age.

    Raises
    ------
    ValueError
        If an age is negative or not a number, or `n` is less than two.
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, got {n}")
    years = _years(age)
    known = np.array([each for each in years if each is not None])
    if not len(known):
        return (NOT_KNOWN,) * len(years)
    # Edges are rounded first, so that bands agree with their names.
    edges = np.unique(np.round(np.quantile(known, np.arange(n + 1) / n), 1))
    names = [f"{low:g} to < {high:g}" for low, high in pairwise(edges)]
    last = f"{edges[-2]:g} to {edges[-1]:g}" if len(edges) > 1 else f"{edges[0]:g}"
    names[-1:] = [last]
    return tuple(
        NOT_KNOWN if each is None else names[int(np.digitize(each, edges[1:-1]))] for each in years
    )


def masks_of(levels: Sequence[str]) -> dict[str, Mask]:
    """Return masks of subjects by level, in natural order with ``"not known"`` last."""
    given = np.asarray(levels, dtype=object)
    names = sorted(set(levels), key=lambda name: (name == NOT_KNOWN, _by_numbers(name)))
    return {name: np.asarray(given == name, dtype=bool) for name in names}


def measure_levels(
    name: str, truth: ArrayLike, runs: RunPredictions, levels: Sequence[str], threshold: float = 0.5
) -> dict[str, MeasuredRuns]:
    """Measure an arm on the subjects of every level separately.

    Parameters
    ----------
    name : str
        A metric of `METRICS`.
    truth : array (N,)
    runs : RunPredictions
    levels : sequence (N,) of str
    threshold : float
        As for `metrics.compute`.

    Raises
    ------
    ValueError
        If there are not N levels, or as for `measure_runs`.
    """
    _check(truth, runs, levels)
    return {
        level: _among(name, truth, runs, mask, threshold)
        for level, mask in masks_of(levels).items()
    }


def subgroup_table(measured: dict[str, MeasuredRuns], level: float = 0.95) -> tuple[Subgroup, ...]:
    """Return one row for every level measured by `measure_levels`.

    If a run is undefined, so is the mean of its level, because undefined runs must not be omitted.

    Raises
    ------
    ValueError
        If `level`, the confidence level of the interval over seeds, is not between 0 and 1.
    """
    return tuple(
        Subgroup(
            level=name,
            over_seeds=interval_over_seeds(part.values, level),
            n_subjects=len(part.truth),
            n_smallest=part.n_smallest,
            reason="; ".join(dict.fromkeys(filter(None, part.reasons))),
        )
        for name, part in measured.items()
    )


def interaction(
    a: tuple[MeasuredRuns, MeasuredRuns], b: tuple[MeasuredRuns, MeasuredRuns], level: float = 0.95
) -> Comparison:
    """Test whether the difference of arms A and B differs between two groups of subjects.

    Parameters
    ----------
    a, b : pair of MeasuredRuns
        The measurements of each arm in the two groups.
    level : float
        Confidence level, between 0 and 1.

    Returns
    -------
    Comparison
        The headline test of the difference of differences, (A - B) in the first group minus
        (A - B) in the second.

    Raises
    ------
    ValueError
        As for `combine` and `compare`.
    """
    contrasts = [combine(parts, (1.0, -1.0), disjoint=True) for parts in (a, b)]
    return compare(contrasts[0], contrasts[1], level)


def interactions(
    name: str,
    truth: ArrayLike,
    arms: tuple[RunPredictions, RunPredictions],
    levels: Sequence[str],
    level: float = 0.95,
) -> tuple[Interaction, ...]:
    """Test the interactions of two arms with the levels of a covariate.

    Two levels are compared with each other; with more levels, each is compared with all other
    subjects. Subjects with an unknown level are in neither group. The p-values are exploratory and
    meant to be adjusted together by the method of Benjamini and Hochberg.

    Parameters
    ----------
    name : str
        A metric of `METRICS`; the threshold between classes is one half.
    truth : array (N,)
    arms : pair of RunPredictions
        A and B.
    levels : sequence (N,) of str
    level : float
        Confidence level, between 0 and 1.

    Returns
    -------
    tuple of Interaction
        Empty if there are fewer than two known levels.

    Raises
    ------
    ValueError
        When there are not N levels, or as `measure_runs` and `compare`.
    """
    for runs in arms:
        _check(truth, runs, levels)
    masks = masks_of(levels)
    missing = int(masks.pop(NOT_KNOWN, np.zeros(0, dtype=bool)).sum())
    known = np.array([each != NOT_KNOWN for each in levels], dtype=bool)
    names = list(masks)
    if len(names) < 2:
        return ()
    against = "all others" if len(names) > 2 else names[1]
    found = []
    for each in names if len(names) > 2 else names[:1]:
        sides = (masks[each], known & ~masks[each])
        a, b = (
            (_among(name, truth, runs, sides[0]), _among(name, truth, runs, sides[1]))
            for runs in arms
        )
        found.append(Interaction(each, against, interaction(a, b, level), missing))
    return tuple(found)


def _among(
    name: str, truth: ArrayLike, runs: RunPredictions, mask: Mask, threshold: float = 0.5
) -> MeasuredRuns:
    part = RunPredictions(runs.predictions[:, mask], runs.seeds, runs.deterministic)
    return measure_runs(name, np.asarray(truth)[mask], part, threshold)


def _check(truth: ArrayLike, runs: RunPredictions, levels: Sequence[str]) -> None:
    lengths = len(np.asarray(truth)), runs.predictions.shape[1], len(levels)
    if len(set(lengths)) > 1:
        raise ValueError(
            "truth, predictions and levels must have the same number of subjects, got"
            f" {lengths[0]}, {lengths[1]} and {lengths[2]}"
        )


def _years(age: Sequence[object]) -> list[float | None]:
    years = [None if _is_missing(each) else float(str(each)) for each in age]
    if any(each is not None and not 0 <= each < np.inf for each in years):
        raise ValueError("ages must be finite and non-negative")
    return years


def _is_missing(value: object) -> bool:
    return value is None or str(value).strip() in ("", "n/a", "nan", "NaT", "<NA>")


def _text(value: object) -> str:
    # A column of integers with missing values contains floats.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _by_numbers(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
