"""Who trains, validates and tests: by subject, stratified, and the same whenever it is asked.

A place in any order comes from sha256 of a seed and the subject's id, so that it does not depend
on who else is there.
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
"""Sides of each five neighbours in the order of strata: 60/20/20, exact for multiples of five."""

PATTERN_WITHOUT_TEST = np.array([0, 1, 0, 0])
"""The same where the test set is given: by a site, by another cohort, or officially."""

MIN_VALIDATION = 8
MIN_VALIDATION_PER_CLASS = 2


def strata(subjects: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Return the strata of subjects, coarse to fine.

    Parameters
    ----------
    subjects : DataFrame
        ``y`` (age in years or class), ``sex`` and ``site`` (empty for unknown) of each subject.
    task : Task
        What is predicted.

    Returns
    -------
    DataFrame of int
        ``label``: the class, or the decile of age; ``sex``: the same by sex; ``fine``: by site too.
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
    """Put every unit, a subject or a group of subjects that belong together, on a side.

    Each stratum has its quota of every side. Units that were placed before stay where they are; the
    others, in the order of sha256(seed/unit), fill what the quotas leave of train, validation and
    test, in this order.

    Parameters
    ----------
    strata : Series of int
        The stratum of each unit, indexed by the unit's name.
    seed : int
        Draws another split.
    stored : Series of str, optional
        Sides by unit of an earlier split; units that are gone are ignored.
    pattern : ndarray of int
        Which sides neighbours get in turn, by their index in `SIDES`.

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
    """Return an order of which every prefix is roughly stratified.

    Within each stratum subjects are ordered by sha256(seed/subject); strata are then merged by
    ``(rank + u) / size``, finest level first, with one u in [0, 1) a stratum.

    Parameters
    ----------
    ids : sequence of str
        Subject ids.
    levels : DataFrame of int
        The strata of these subjects, coarse to fine, in the same order.
    seed : int
        Draws another order.
    lead : int
        So many subjects of each coarsest stratum come first, as far as it has them.

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
    """Return `n` subjects; a larger subset of the same seed holds every smaller one.

    Parameters
    ----------
    ids, levels, seed, lead
        See `ordered`.
    n : int
        How many, at most all.

    Returns
    -------
    ndarray of int, (n,)
        Positions in `ids`, ascending: a set has no order.

    Raises
    ------
    ValueError
        When `n` is not between 1 and the number of subjects.
    """
    if not 1 <= n <= len(ids):
        raise ValueError(f"a subset of {n} of {len(ids)} subjects does not exist")
    return np.sort(ordered(ids, levels, seed, lead)[:n])


def validation_subset(
    ids: Sequence[str], levels: pd.DataFrame, n_train: int, seed: int, *, classes: int, full: bool
) -> NDArray:
    """Return the validation subjects that belong to a training size.

    A third of the training size, or "250 scans" would be untrue; at least 8 and at least 2 of each
    class, at most all.

    Parameters
    ----------
    ids, levels, seed
        The validation subjects, see `ordered`.
    n_train : int
        Training subjects.
    classes : int
        How many classes there are, 0 for age.
    full : bool
        All validation subjects at every size.

    Returns
    -------
    ndarray of int
        Positions in `ids`, ascending.
    """
    if full:
        return np.arange(len(ids))
    n = validation_size(n_train, len(ids), classes, full=full)
    return subset(ids, levels, n, seed, MIN_VALIDATION_PER_CLASS if classes else 0)


def validation_size(n_train: int, n_validation: int, classes: int, *, full: bool) -> int:
    """Return how many of the validation subjects belong to a training size."""
    if full:
        return n_validation
    lead = MIN_VALIDATION_PER_CLASS if classes else 0
    return min(max(math.ceil(n_train / 3), MIN_VALIDATION, lead * classes), n_validation)


def _hashes(names: Sequence[str], seed: str) -> NDArray[np.uint64]:
    """Return 64 bits of sha256(seed/name) for each name."""
    digests = b"".join(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8] for name in names)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)
