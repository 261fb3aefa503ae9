"""Ranks of arms across cohorts, with Friedman's test and pairwise tests.

Blocks are whole cohorts with separate subjects. Seeds, training sizes and folds of one cohort share
subjects, so they are not blocks; use the headline test for them.
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
"""The minimum number of cohorts; with fewer, the tests have no power."""

_NAN = float("nan")


class RankPair(NamedTuple):
    """Wilcoxon's signed-rank test of two arms over cohorts; `note` says why there is no p."""

    a: str
    b: str
    p: float
    p_holm: float
    note: str


@dataclass(frozen=True, eq=False)
class RankTable:
    """Arms ranked within every cohort, with 1 as the best rank.

    Parameters
    ----------
    cohorts, arms : tuple of str
        The arms are sorted by their mean rank, the best first.
    ranks : array (n_cohorts, n_arms)
        Ties have the mean of their ranks.
    mean_ranks : array (n_arms,)
    statistic, p : float
        Friedman's chi-squared test with n_arms - 1 degrees of freedom; NaN for the reason in
        `reason`.
    pairs : tuple of RankPair
        All pairs, adjusted together.
    groups : tuple of tuple of str
        For the critical-difference diagram, the longest runs of at least two arms, neighbours by
        rank, without a significant difference at `alpha`.
    alpha : float
        Significance level.
    floor : float
        The smallest possible adjusted p-value with this number of cohorts. If it is above `alpha`,
        the tests cannot reject at all, which is not the same as "no difference".
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

    All arms are compared by Friedman's test, and pairs of arms by Wilcoxon's signed-rank test with
    Holm's adjustment. The results of a pair depend only on the number of other arms, not on their
    performance (Benavoli, Corani and Mangili, JMLR 17, 2016).

    Parameters
    ----------
    values : array (n_cohorts, n_arms)
        One number per cohort and arm, such as the mean over seeds. Values equal to a relative
        1e-12 are ties.
    cohorts : sequence of str
        At least five different cohorts (not seeds, training sizes or folds of one cohort).
    arms : sequence of str
    higher_is_better : bool
    alpha : float
        Significance level of pairwise tests, between 0 and 1.

    Returns
    -------
    RankTable

    Raises
    ------
    ValueError
        If there are fewer than five cohorts or two arms, names are not unique, the shape does not
        match, or a value is missing.
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
        reason = "Friedman's test needs at least three models"
    elif (ranks == ranks[:, :1]).all():
        reason = "all models have equal ranks in every cohort"
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
            f"values must have shape ({len(cohorts)}, {len(arms)}), for cohorts and arms, got"
            f" {values.shape}"
        )
    if len(set(cohorts)) < len(cohorts) or len(set(arms)) < len(arms):
        raise ValueError("the names of cohorts and arms must be unique")
    if len(cohorts) < FEWEST_COHORTS:
        raise ValueError(
            f"ranks need at least {FEWEST_COHORTS} different cohorts, got {len(cohorts)}; use the"
            " headline test for seeds and training sizes of one cohort"
        )
    if len(arms) < 2:
        raise ValueError(f"ranks need at least two arms, got {len(arms)}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
    for cohort, arm in np.argwhere(~np.isfinite(values)):
        raise ValueError(
            f"{arms[arm]} has no value in {cohorts[cohort]}; exclude the arm or the cohort"
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
    """Return the longest runs of the ordered names that contain no pair of `apart`."""
    groups: list[tuple[str, ...]] = []
    reached = 0  # The end of the last run; later ones are new only if they end after it.
    for start in range(len(names)):
        end = start + 1
        while end < len(names) and not any((x, names[end]) in apart for x in names[start:end]):
            end += 1
        if end - start > 1 and end > reached:
            groups.append(names[start:end])
        reached = max(reached, end)
    return tuple(groups)
