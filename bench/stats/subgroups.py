"""Subgroups of subjects: an arm's metric in each, and whether two arms differ more in one."""

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
"""The level of subjects whose covariate is missing."""


class Subgroup(NamedTuple):
    """An arm's metric among the subjects of one level.

    Parameters
    ----------
    level : str
    over_seeds : Interval
        The mean over seeds with its t interval; NaN where `reason` says why.
    n_subjects, n_smallest : int
        Subjects of the level; those in the smallest group over which the metric averages.
    reason : str
    """

    level: str
    over_seeds: Interval
    n_subjects: int
    n_smallest: int
    reason: str


class Interaction(NamedTuple):
    """How much more A differs from B in one level than in another.

    Parameters
    ----------
    level, against : str
    comparison : Comparison
        Of A's contrast of the two with B's: its difference is (A - B) in `level` minus (A - B) in
        `against`.
    n_not_known : int
        Subjects left out because their level is not known.
    """

    level: str
    against: str
    comparison: Comparison
    n_not_known: int


def levels_of(values: Sequence[object]) -> tuple[str, ...]:
    """Return each subject's level as text; None, NaN, n/a and empty text are ``"not known"``."""
    return tuple(NOT_KNOWN if _is_missing(value) else _text(value) for value in values)


def age_bands(age: Sequence[object], width: int = 10) -> tuple[str, ...]:
    """Return the band of each subject's age, such as ``"60-69"`` in completed years.

    Parameters
    ----------
    age : sequence (N,)
        In years; missing ones are ``"not known"``.
    width : int
        Of a band; bands begin at multiples of it, whatever the cohort.

    Raises
    ------
    ValueError
        When an age is negative or no number, or the width is not positive.
    """
    if width < 1:
        raise ValueError(f"an age band is at least a year wide, not {width}")
    return tuple(
        NOT_KNOWN if years is None else f"{(low := int(years // width) * width)}-{low + width - 1}"
        for years in _years(age)
    )


def quantile_bands(age: Sequence[object], n: int = 4) -> tuple[str, ...]:
    """Return for each subject the quantile of the cohort's ages, such as ``"60.5 to < 71.2"``.

    Bands hold about equally many subjects and are named by their bounds, so they differ from
    cohort to cohort; subjects of one age are never parted. The last band holds its upper bound.

    Parameters
    ----------
    age : sequence (N,)
        In years; missing ones are ``"not known"``.
    n : int
        Bands, two or more; fewer come out where many subjects have one age.

    Raises
    ------
    ValueError
        When an age is negative or no number, or there are fewer than two bands.
    """
    if n < 2:
        raise ValueError(f"quantiles make two bands or more, not {n}")
    years = _years(age)
    known = np.array([each for each in years if each is not None])
    if not len(known):
        return (NOT_KNOWN,) * len(years)
    # Rounded before anyone is placed, so that a band is what its name says.
    edges = np.unique(np.round(np.quantile(known, np.arange(n + 1) / n), 1))
    names = [f"{low:g} to < {high:g}" for low, high in pairwise(edges)]
    last = f"{edges[-2]:g} to {edges[-1]:g}" if len(edges) > 1 else f"{edges[0]:g}"
    names[-1:] = [last]
    return tuple(
        NOT_KNOWN if each is None else names[int(np.digitize(each, edges[1:-1]))] for each in years
    )


def masks_of(levels: Sequence[str]) -> dict[str, Mask]:
    """Return who is in each level, sorted with numbers by size, ``"not known"`` last."""
    given = np.asarray(levels, dtype=object)
    names = sorted(set(levels), key=lambda name: (name == NOT_KNOWN, _by_numbers(name)))
    return {name: np.asarray(given == name, dtype=bool) for name in names}


def measure_levels(
    name: str, truth: ArrayLike, runs: RunPredictions, levels: Sequence[str], threshold: float = 0.5
) -> dict[str, MeasuredRuns]:
    """Measure an arm among the subjects of every level, by the sub-arrays alone.

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
        When there are not N levels, or as `measure_runs`.
    """
    _check(truth, runs, levels)
    return {
        level: _among(name, truth, runs, mask, threshold)
        for level, mask in masks_of(levels).items()
    }


def subgroup_table(measured: dict[str, MeasuredRuns], level: float = 0.95) -> tuple[Subgroup, ...]:
    """Return a row for every level that `measure_levels` measured.

    An undefined run makes its level undefined: it is never averaged over.

    Raises
    ------
    ValueError
        When `level`, of the interval over seeds, is not between 0 and 1.
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
    """Test whether arms A and B differ more in one group of subjects than in another.

    Parameters
    ----------
    a, b : pair of MeasuredRuns
        Each arm in the two groups.
    level : float
        Of the confidence interval, between 0 and 1.

    Returns
    -------
    Comparison
        The headline test of the difference of differences, (A - B) in the first group minus
        (A - B) in the second.

    Raises
    ------
    ValueError
        As `combine` and `compare`.
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
    """Test the interaction of two arms with a covariate, level by level.

    Two levels are set against each other, of more each against all other subjects. Subjects whose
    level is not known are in neither group. The p are for one Benjamini-Hochberg family, headed
    exploratory.

    Parameters
    ----------
    name : str
        A metric of `METRICS`; classes are called at the threshold one half.
    truth : array (N,)
    arms : pair of RunPredictions
        A and B.
    levels : sequence (N,) of str
    level : float
        Of the confidence intervals, between 0 and 1.

    Returns
    -------
    tuple of Interaction
        Empty where fewer than two levels are known.

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
            "truth, predictions and levels must be of the same subjects, not of"
            f" {lengths[0]}, {lengths[1]} and {lengths[2]}"
        )


def _years(age: Sequence[object]) -> list[float | None]:
    years = [None if _is_missing(each) else float(str(each)) for each in age]
    if any(each is not None and not 0 <= each < np.inf for each in years):
        raise ValueError("an age is negative or infinite")
    return years


def _is_missing(value: object) -> bool:
    return value is None or str(value).strip() in ("", "n/a", "nan", "NaT", "<NA>")


def _text(value: object) -> str:
    # A column of whole numbers becomes one of floats as soon as one is missing.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _by_numbers(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
