"""Ranks of arms across cohorts: Friedman's test, and which arms are told apart.

A block is a whole cohort with subjects of its own. Seeds, training sizes and folds of one cohort
share subjects: they are no blocks, and the headline test is for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import friedmanchisquare, rankdata

from bench.stats.classical import signed_rank_p
from bench.stats.inference import holm
from bench.stats.metric import CONSTANT, Floats
from bench.stats.metrics import SMALLEST_P

FEWEST_COHORTS = 5
"""With fewer blocks neither test says anything."""

_NAN = float("nan")


class RankPair(NamedTuple):
    """Two arms by Wilcoxon's signed ranks over cohorts; `note` says why there is no p."""

    a: str
    b: str
    p: float
    p_holm: float
    note: str


@dataclass(frozen=True, eq=False)
class RankTable:
    """Arms ranked within every cohort, 1 the best.

    Parameters
    ----------
    cohorts, arms : tuple of str
        The arms by their mean rank, the best first.
    ranks : array (n_cohorts, n_arms)
        Ties share the mean of their ranks.
    mean_ranks : array (n_arms,)
    statistic, p : float
        Friedman's, by chi-square with n_arms - 1 degrees of freedom; NaN where `reason` says why.
    pairs : tuple of RankPair
        All of them, adjusted together.
    groups : tuple of tuple of str
        For the critical-difference picture: the longest stretches of neighbours by rank in which
        no two arms are told apart at `alpha`. A stretch holds two arms or more.
    alpha : float
    floor : float
        The smallest adjusted p that this many cohorts can give the clearest pair. Above `alpha`
        print "cannot reject at this n", not "no difference".
    reason : str
    """

    cohorts: tuple[str, ...]
    arms: tuple[str, ...]
    ranks: Floats
    mean_ranks: Floats
    statistic: float
    p: float
    pairs: tuple[RankPair, ...]
    groups: tuple[tuple[str, ...], ...]
    alpha: float
    floor: float
    reason: str = ""


def rank_arms(
    values: ArrayLike,
    cohorts: Sequence[str],
    arms: Sequence[str],
    higher_is_better: bool,
    alpha: float = 0.05,
) -> RankTable:
    """Rank arms within cohorts and test whether they differ (Demsar, JMLR 7, 2006).

    All arms are tested together by Friedman's test and in pairs by Wilcoxon's signed ranks with
    Holm's adjustment, so that a pair does not depend on which other arms are there but for the
    number of them (Benavoli, Corani and Mangili, JMLR 17, 2016).

    Parameters
    ----------
    values : array (n_cohorts, n_arms)
        One number a cohort and arm, such as the mean over seeds. Those that agree to a relative
        1e-12 are ties.
    cohorts : sequence of str
        Five different cohorts or more; never seeds, training sizes or folds of one.
    arms : sequence of str
    higher_is_better : bool
    alpha : float
        At which arms are told apart, between 0 and 1.

    Returns
    -------
    RankTable

    Raises
    ------
    ValueError
        When there are fewer than five cohorts or two arms, one is named twice, the shape does not
        fit, or a cell has no value.
    """
    found = np.asarray(values, dtype=np.float64)
    _check(found, cohorts, arms, alpha)
    noise = CONSTANT * np.abs(found).max(axis=1, keepdims=True)
    steps = np.round(np.divide(found, noise, out=np.zeros_like(found), where=noise > 0))
    ranks = rankdata(-steps if higher_is_better else steps, axis=1)
    means = ranks.mean(axis=0)
    order = sorted(range(len(arms)), key=lambda arm: (means[arm], arms[arm]))
    ranks, means, found = ranks[:, order], means[order], found[:, order]
    names = tuple(arms[arm] for arm in order)

    statistic, p, reason = _NAN, _NAN, ""
    if len(names) < 3:
        reason = "Friedman's test needs three arms; see the pair"
    elif (ranks == ranks[:, :1]).all():
        reason = "no arm differs in any cohort"
    else:
        test = friedmanchisquare(*ranks.T)
        statistic, p = float(test.statistic), max(float(test.pvalue), SMALLEST_P)
    pairs = _pairs(found, names)
    return RankTable(
        cohorts=tuple(cohorts),
        arms=names,
        ranks=ranks,
        mean_ranks=means,
        statistic=statistic,
        p=p,
        pairs=pairs,
        groups=_groups(names, {(x.a, x.b) for x in pairs if x.p_holm <= alpha}),
        alpha=alpha,
        floor=min(1.0, len(pairs) * 2 / 2 ** len(cohorts)),
        reason=reason,
    )


def _check(values: Floats, cohorts: Sequence[str], arms: Sequence[str], alpha: float) -> None:
    if values.shape != (len(cohorts), len(arms)):
        raise ValueError(
            f"{len(cohorts)} cohorts and {len(arms)} arms need values of that shape,"
            f" not {values.shape}"
        )
    if len(set(cohorts)) < len(cohorts) or len(set(arms)) < len(arms):
        raise ValueError("a cohort or an arm is named twice")
    if len(cohorts) < FEWEST_COHORTS:
        raise ValueError(
            f"ranks need {FEWEST_COHORTS} different cohorts or more, not {len(cohorts)};"
            " seeds and training sizes do not count, for them use the headline test"
        )
    if len(arms) < 2:
        raise ValueError("ranks need two arms or more")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, not at {alpha}")
    for cohort, arm in np.argwhere(~np.isfinite(values)):
        raise ValueError(
            f"{arms[arm]} has no value in {cohorts[cohort]}; leave the arm or the cohort out"
        )


def _pairs(values: Floats, names: tuple[str, ...]) -> tuple[RankPair, ...]:
    chosen = list(combinations(range(len(names)), 2))
    tests = [signed_rank_p(values[:, i], values[:, j]) for i, j in chosen]
    adjusted = holm([p for p, _ in tests])
    return tuple(
        RankPair(names[i], names[j], p, float(p_holm), note)
        for (i, j), (p, note), p_holm in zip(chosen, tests, adjusted, strict=True)
    )


def _groups(names: tuple[str, ...], apart: set[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Return the longest stretches of the ordered names that hold no pair of `apart`."""
    groups: list[tuple[str, ...]] = []
    reached = 0  # where the last stretch ended: a later one is only new if it goes beyond
    for start in range(len(names)):
        end = start + 1
        while end < len(names) and not any((x, names[end]) in apart for x in names[start:end]):
            end += 1
        if end - start > 1 and end > reached:
            groups.append(names[start:end])
        reached = max(reached, end)
    return tuple(groups)
