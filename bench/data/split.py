"""Reproducible, stratified splits by subject, and nested subsets.

Subjects are ordered by the sha256 of a seed and the subject's id, so that the position of a
subject does not depend on which other subjects there are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from registry.cards import Task

SIDES = ("train", "validation", "test")

PATTERN = np.array([0, 1, 0, 2, 0])
"""Sets of five successive subjects of a stratum: 60/20/20, exact for multiples of five."""

PATTERN_WITHOUT_TEST = np.array([0, 1, 0, 0])
"""The same if the test set is given by a site, another cohort or an official split."""

MIN_VALIDATION = 8
MIN_VALIDATION_PER_CLASS = 2


def strata(subjects: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Return the strata of subjects, from coarse to fine.

    Parameters
    ----------
    subjects : DataFrame
        ``y`` (age in years or class), ``sex`` and ``site`` (empty for unknown) of each subject.
    task : Task
        What is predicted.

    Returns
    -------
    DataFrame of int
        ``label``: class or decile of age; ``sex``: label and sex; ``fine``: label, sex and site.
    """
    if task.kind == "classification":
        label = subjects["y"].to_numpy().astype(int)
    else:
        ranks = subjects["y"].rank(method="first").to_numpy() - 1
        label = (10 * ranks / len(subjects)).astype(int)
    sex = 3 * label + subjects["sex"].map({"": 0, "F": 1, "M": 2}).to_numpy()
    sites, site = np.unique(subjects["site"].to_numpy(dtype=str), return_inverse=True)
    fine = len(sites) * sex + site
    return pd.DataFrame({"label": label, "sex": sex, "fine": fine}, index=subjects.index)


def split(
    strata: pd.Series,
    seed: int,
    stored: pd.Series | None = None,
    pattern: NDArray[np.int64] = PATTERN,
) -> pd.Series:
    """Assign units to the training, validation and test sets.

    A unit is a subject, or a group of subjects that must stay together. Each stratum has a quota
    for each set. Units with a stored set keep it; the others, in the order of sha256(seed/unit),
    fill the remaining quotas of train, validation and test, in this order.

    Parameters
    ----------
    strata : Series of int
        The stratum of each unit, indexed by the unit's name.
    seed : int
        Another seed gives another split.
    stored : Series of str, optional
        The set of each unit in an earlier split; units that no longer exist are ignored.
    pattern : ndarray of int
        The sets of successive units, as indices into `SIDES`; repeated as needed.

    Returns
    -------
    Series of str
        ``train``, ``validation`` or ``test`` by unit, in the order of `strata`.
    """
    ids = [str(unit) for unit in strata.index]
    known = {} if stored is None else stored.to_dict()
    sides = pd.Series([known.get(unit, "") for unit in ids], index=strata.index, dtype=object)
    order = np.lexsort((_hashes(ids, str(seed)), strata.to_numpy()))
    grouped = strata.to_numpy()[order]
    placed = sides.to_numpy()[order]
    dealt = pattern[np.arange(len(order)) % len(pattern)]
    starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]][: len(order)]).tolist()
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        before = placed[start:end].tolist()
        left = [
            side
            for number, side in enumerate(SIDES)
            for _ in range(max(0, int((dealt[start:end] == number).sum()) - before.count(side)))
        ]
        new = [start + i for i, side in enumerate(before) if side == ""]
        placed[new] = left[: len(new)]
    sides.iloc[order] = placed
    return sides


def ordered(ids: Sequence[str], levels: pd.DataFrame, seed: int, lead: int = 0) -> NDArray:
    """Return an order of the subjects in which every prefix is roughly stratified.

    Within each stratum, subjects are ordered by sha256(seed/subject); strata are then merged by
    ``(rank + u) / size``, finest level first, with one u in [0, 1) per stratum.

    Parameters
    ----------
    ids : sequence of str
        Subject ids.
    levels : DataFrame of int
        The strata of these subjects, from coarse to fine, in the same order.
    seed : int
        Another seed gives another order.
    lead : int
        Number of subjects of each of the coarsest strata that come first.

    Returns
    -------
    ndarray of int, (n,)
        Positions in `ids`.
    """
    order = np.argsort(_hashes(ids, str(seed)), kind="stable")
    for name in reversed(levels.columns):
        stratum = levels[name].to_numpy()[order]
        rank = pd.Series(stratum).groupby(stratum).cumcount().to_numpy()
        values, which, sizes = np.unique(stratum, return_inverse=True, return_counts=True)
        u = _hashes([f"{name}-{value}" for value in values], str(seed)) / 2.0**64
        place = (rank + u[which]) / sizes[which]
        if name == levels.columns[0]:
            place = np.where(rank < lead, rank + u[which] - lead, place)
        order = order[np.argsort(place, kind="stable")]
    return order


def subset(ids: Sequence[str], levels: pd.DataFrame, n: int, seed: int, lead: int = 0) -> NDArray:
    """Return `n` subjects; subsets of the same seed are nested.

    Parameters
    ----------
    ids, levels, seed, lead
        See `ordered`.
    n : int
        Number of subjects.

    Returns
    -------
    ndarray of int, (n,)
        Positions in `ids`, in ascending order.

    Raises
    ------
    ValueError
        If `n` is not between 1 and the number of subjects.
    """
    if not 1 <= n <= len(ids):
        raise ValueError(f"n must be between 1 and {len(ids)}, got {n}")
    return np.sort(ordered(ids, levels, seed, lead)[:n])


def validation_subset(
    ids: Sequence[str], levels: pd.DataFrame, n_train: int, seed: int, *, classes: int, full: bool
) -> NDArray:
    """Return the validation subjects used with a training size.

    Their number is a third of the training size, because a model "trained on 250 subjects" should
    not rely on many more for validation. It is at least 8, with at least 2 per class, if there are
    so many.

    Parameters
    ----------
    ids, levels, seed
        The validation subjects; see `ordered`.
    n_train : int
        Number of training subjects.
    classes : int
        Number of classes, 0 for regression.
    full : bool
        Use all validation subjects with every training size.

    Returns
    -------
    ndarray of int
        Positions in `ids`, in ascending order.
    """
    if full:
        return np.arange(len(ids))
    n = validation_size(n_train, len(ids), classes, full=full)
    return subset(ids, levels, n, seed, MIN_VALIDATION_PER_CLASS if classes else 0)


def validation_size(n_train: int, n_validation: int, classes: int, *, full: bool) -> int:
    """Return the number of validation subjects used with a training size."""
    if full:
        return n_validation
    lead = MIN_VALIDATION_PER_CLASS if classes else 0
    return min(max(math.ceil(n_train / 3), MIN_VALIDATION, lead * classes), n_validation)


def _hashes(names: Sequence[str], seed: str) -> NDArray[np.uint64]:
    """Return the first 64 bits of sha256(seed/name) for each name."""
    digests = b"".join(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8] for name in names)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)
