"""Several models across five or more different cohorts: ranks, pairs and the groups they form.

The blocks are cohorts, with other people in each. Seeds, folds and training sizes of one cohort
share subjects and are no blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import friedmanchisquare, rankdata

from bench.stats.classical import signed_rank_p
from bench.stats.inference import holm
from bench.stats.metrics import CONSTANT, Floats

FEWEST_COHORTS = 5

CONDITIONS_ON = "cohorts as draws from a population of cohorts, one value of each model in each"

_NAN = float("nan")
_SMALLEST = float(np.finfo(np.float64).tiny)  # a p too small for a float is still not zero


@dataclass(frozen=True)
class Pair:
    """Two models over all cohorts, by Wilcoxon's signed ranks.

    Parameters
    ----------
    a, b : str
    p, p_holm : float
        Two-sided, and adjusted by Holm over all pairs. NaN where no cohort tells them apart.
    separable : bool
        Whether `p_holm` is at most alpha.
    reason : str
        Why there is no p.
    """

    a: str
    b: str
    p: float
    p_holm: float
    separable: bool
    reason: str = ""


@dataclass(frozen=True)
class AcrossCohorts:
    """What a critical-difference picture shows, and what it takes as given.

    Parameters
    ----------
    models : tuple of str
        From the best mean rank to the worst.
    mean_ranks : tuple of float
        In the same order; 1 is the best rank, ties share theirs.
    statistic, p : float
        Friedman's chi-square, corrected for ties, with ``len(models) - 1`` degrees of freedom.
        NaN for two models, which the pair alone answers.
    pairs : tuple of Pair
    groups : tuple of tuple of str
        The largest sets of two or more models of which no two are separable: the bars of the
        picture. A bar joins its members only, not every model that lies between them.
    cohorts, dropped : tuple of str
        Those used; those left out because a model has no value there.
    floor : float
        The smallest Holm p that so few cohorts can give. Above alpha no pair can be separated,
        whatever the values.
    alpha : float
    reason : str
        Why there is no test; everything else is then empty or NaN.
    conditions_on : str
    """

    models: tuple[str, ...] = ()
    mean_ranks: tuple[float, ...] = ()
    statistic: float = _NAN
    p: float = _NAN
    pairs: tuple[Pair, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    cohorts: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    floor: float = _NAN
    alpha: float = 0.05
    reason: str = ""
    conditions_on: str = CONDITIONS_ON

    @property
    def can_reject(self) -> bool:
        """Whether any values in so many cohorts could separate a pair."""
        return self.floor <= self.alpha


def across_cohorts(
    values: ArrayLike,
    models: Sequence[str],
    cohorts: Sequence[str],
    higher_is_better: bool,
    alpha: float = 0.05,
) -> AcrossCohorts:
    """Rank models within cohorts and test whether they differ (Demšar, JMLR 7, 2006).

    Friedman's test over all models, Wilcoxon's signed ranks with Holm's adjustment over all pairs
    (Benavoli, Corani and Mangili, JMLR 17, 2016: unlike a test of mean ranks, what is said of a
    pair does not depend on the other models).

    Parameters
    ----------
    values : array (B, M)
        One value of each of M models in each of B cohorts: the mean over its seeds. NaN where
        there is none.
    models : sequence of str (M,)
    cohorts : sequence of str (B,)
        Different cohorts, no subject in two of them.
    higher_is_better : bool
        The metric's direction.
    alpha : float
        At which pairs count as separable.

    Returns
    -------
    AcrossCohorts
        With a reason instead of a test for fewer than five cohorts in which every model has a
        value.

    Raises
    ------
    ValueError
        When the shapes do not fit, names repeat, there are fewer than two models, or `alpha` is
        not between 0 and 1.
    """
    table = np.asarray(values, dtype=np.float64)
    _check(table, models, cohorts, alpha)
    whole = np.asarray(np.isfinite(table).all(axis=1))
    used = tuple(name for name, kept in zip(cohorts, whole, strict=True) if kept)
    dropped = tuple(name for name in cohorts if name not in used)
    if len(used) < FEWEST_COHORTS:
        reason = (
            f"refused: {len(used)} cohorts with a value of every model;"
            f" a claim across cohorts needs {FEWEST_COHORTS} different ones"
        )
        return AcrossCohorts(cohorts=used, dropped=dropped, alpha=alpha, reason=reason)

    ranks = _ranks(table[whole], higher_is_better)
    order = np.argsort(ranks.mean(axis=0), kind="stable")
    names = tuple(models[i] for i in order)
    pairs = _pairs(table[whole][:, order], names, alpha)
    statistic, p = _friedman(ranks)
    return AcrossCohorts(
        models=names,
        mean_ranks=tuple(float(rank) for rank in ranks.mean(axis=0)[order]),
        statistic=statistic,
        p=p,
        pairs=pairs,
        groups=_groups(names, pairs),
        cohorts=used,
        dropped=dropped,
        floor=min(1.0, len(pairs) * 2 / 2 ** len(used)),
        alpha=alpha,
    )


def _check(table: Floats, models: Sequence[str], cohorts: Sequence[str], alpha: float) -> None:
    if table.shape != (len(cohorts), len(models)):
        raise ValueError(
            f"{len(cohorts)} cohorts and {len(models)} models need as many rows and columns,"
            f" not {table.shape}"
        )
    if len(models) < 2:
        raise ValueError("a comparison needs two models")
    if len(set(models)) < len(models) or len(set(cohorts)) < len(cohorts):
        raise ValueError("a model or a cohort is there twice; seeds and sizes are no cohorts")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, not at {alpha}")


def _ranks(table: Floats, higher_is_better: bool) -> Floats:
    """Return the ranks within rows, 1 the best; what agrees to a relative 1e-12 is tied."""
    noise = CONSTANT * np.abs(table).max(axis=1, keepdims=True)
    steps = np.round(table / np.where(noise > 0, noise, 1))
    return rankdata(-steps if higher_is_better else steps, axis=1)


def _friedman(ranks: Floats) -> tuple[float, float]:
    if ranks.shape[1] < 3 or not np.ptp(ranks, axis=1).any():
        return _NAN, _NAN
    found = friedmanchisquare(*ranks.T)
    return float(found.statistic), max(float(found.pvalue), _SMALLEST)


def _pairs(table: Floats, models: Sequence[str], alpha: float) -> tuple[Pair, ...]:
    indices = list(combinations(range(len(models)), 2))
    found = [signed_rank_p(table[:, i], table[:, j]) for i, j in indices]
    adjusted = holm([p for p, _ in found])
    return tuple(
        Pair(models[i], models[j], p, float(p_holm), bool(p_holm <= alpha), reason)
        for (i, j), (p, reason), p_holm in zip(indices, found, adjusted, strict=True)
    )


def _groups(models: Sequence[str], pairs: Sequence[Pair]) -> tuple[tuple[str, ...], ...]:
    """Return the maximal sets of models without a separable pair (Bron and Kerbosch 1973)."""
    alike: dict[str, set[str]] = {name: set() for name in models}
    for pair in pairs:
        if not pair.separable:
            alike[pair.a].add(pair.b)
            alike[pair.b].add(pair.a)

    found: list[set[str]] = []

    def extend(members: set[str], candidates: set[str], seen: set[str]) -> None:
        if not candidates and not seen and len(members) > 1:
            found.append(members)
        # Whoever is joined to the pivot is found through it, so only the others start anew.
        pivot = max(candidates | seen, key=lambda name: len(alike[name] & candidates), default="")
        for name in sorted(candidates - alike.get(pivot, set())):
            extend(members | {name}, candidates & alike[name], seen & alike[name])
            candidates = candidates - {name}
            seen = seen | {name}

    extend(set(), set(models), set())
    places = [tuple(sorted(models.index(name) for name in group)) for group in found]
    return tuple(tuple(models[i] for i in group) for group in sorted(places))
