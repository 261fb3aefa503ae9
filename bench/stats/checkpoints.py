"""Tests of two trained networks, for new subjects but no new training runs.

One seed at a time, one p a seed. They answer whether these two files differ, not whether their
architectures do: averaged over seeds DeLong's test calls equal architectures different .2 to .4 of
the time. So all are listed and they are never combined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, ndtr

from bench.stats.classical import paired_t
from bench.stats.metric import CONSTANT, Floats
from bench.stats.metrics import SMALLEST_P, checked, terms_of, undefined
from bench.stats.thresholds import placements

_GIVEN = "these two checkpoints, new subjects"
_NAN = float("nan")


@dataclass(frozen=True)
class CheckpointTest:
    """A two-sided test of two checkpoints on the same subjects.

    Parameters
    ----------
    name, conditions_on : str
        The test, and what it takes as given.
    n : int
        Subjects.
    p : float
        NaN where there is none; `note` says why.
    note : str
    """

    name: str
    conditions_on: str
    n: int
    p: float
    note: str = ""


def delong(truth: ArrayLike, a: ArrayLike, b: ArrayLike) -> CheckpointTest:
    """DeLong's test of two AUCs of the same subjects (Biometrics 44, 1988).

    z is the difference over its standard error, from the placements of every subject; two-sided
    normal p, in O(N log N).

    Parameters
    ----------
    truth : array (N,)
        1 for a positive subject, else 0.
    a, b : array (N,)
        P(positive) by either checkpoint.

    Returns
    -------
    CheckpointTest
        Without p where a class has fewer than two subjects, or no placement differs.

    Raises
    ------
    ValueError
        When the arrays do not fit each other or the truth is no class index.
    """
    name = "DeLong"
    target, first, second, note = _both("auc", truth, a, b)
    if note:
        return _none(name, target, note)
    positive = target == 1
    gaps = placements(positive, first) - placements(positive, second)
    classes = [gaps[positive], gaps[~positive]]
    if min(map(len, classes)) < 2:
        return _none(name, target, "a class has only one subject")
    se = np.sqrt(sum(each.var(ddof=1) / len(each) for each in classes))
    if se <= CONSTANT:
        return _none(name, target, "the differences do not vary over subjects")
    return _found(name, target, 2 * ndtr(-abs(classes[0].mean()) / se))


def mcnemar(truth: ArrayLike, a: ArrayLike, b: ArrayLike, threshold: float = 0.5) -> CheckpointTest:
    """McNemar's exact test of two accuracies on the same subjects (Psychometrika 12, 1947).

    Of the subjects that one checkpoint alone classifies rightly, half are expected to be either's.

    Parameters
    ----------
    truth : array (N,)
        Class indices.
    a, b : array (N,) or (N, K)
        P(positive), or the probabilities of K classes, by either checkpoint.
    threshold : float
        As for `metrics.compute`.

    Returns
    -------
    CheckpointTest
        Without p where no pair is discordant.

    Raises
    ------
    ValueError
        As `delong`.
    """
    name = "exact McNemar"
    target, first, second, note = _both("accuracy", truth, a, b)
    if note:
        return _none(name, target, note)
    gaps = terms_of("accuracy", target, first, threshold) - terms_of(
        "accuracy", target, second, threshold
    )
    wins, losses = int((gaps > 0).sum()), int((gaps < 0).sum())
    if wins + losses == 0:
        return _none(name, target, "no discordant pair")
    return _found(name, target, min(1.0, 2 * bdtr(min(wins, losses), wins + losses, 0.5)))


def absolute_error_t(truth: ArrayLike, a: ArrayLike, b: ArrayLike) -> CheckpointTest:
    """Paired t test over subjects of two checkpoints' absolute errors.

    Parameters
    ----------
    truth : array (N,)
        Ages in years.
    a, b : array (N,)
        Predicted by either checkpoint.

    Returns
    -------
    CheckpointTest
        Without p for fewer than two subjects or where the differences do not vary.

    Raises
    ------
    ValueError
        When the arrays do not fit each other or the truth is not finite.
    """
    name = "paired t over subjects"
    target, first, second, note = _both("mae", truth, a, b)
    if note:
        return _none(name, target, note)
    over = paired_t(abs(first - target), abs(second - target))
    return CheckpointTest(name, _GIVEN, len(target), over.p, over.note)


_TESTS: dict[str, Callable[[ArrayLike, ArrayLike, ArrayLike], CheckpointTest]] = {
    "auc": delong,
    "accuracy": mcnemar,
    "mae": absolute_error_t,
}


def checkpoint_tests(
    metric: str, truth: ArrayLike, a: ArrayLike, b: ArrayLike, seeds: Sequence[int]
) -> dict[int, CheckpointTest]:
    """Test the checkpoints of two arms seed by seed.

    Parameters
    ----------
    metric : str
        ``"auc"``, ``"accuracy"`` or ``"mae"``.
    truth : array (N,)
    a, b : array (S, N) or (S, N, K)
        Predictions of either arm on the seeds that both have, in one order.
    seeds : sequence of int
        The S seeds.

    Returns
    -------
    dict
        Seed to its test: all to be listed, never combined.

    Raises
    ------
    ValueError
        When there is no such test of the metric, a seed is there twice, or the arrays do not fit.
    """
    if metric not in _TESTS:
        raise ValueError(f"checkpoints are tested by {', '.join(_TESTS)}, not by {metric}")
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(set(seeds)) != len(seeds):
        raise ValueError("a seed is there twice; keep one run of each seed")
    if not len(first) == len(second) == len(seeds):
        raise ValueError(f"{len(seeds)} seeds need as many runs, not {len(first)}, {len(second)}")
    test = _TESTS[metric]
    return {seed: test(truth, x, y) for seed, x, y in zip(seeds, first, second, strict=True)}


def _both(
    metric: str, truth: ArrayLike, a: ArrayLike, b: ArrayLike
) -> tuple[Floats, Floats, Floats, str]:
    """Return the checked arrays and, where a metric has no value, why."""
    target, first = checked(metric, truth, a)
    _, second = checked(metric, truth, b)
    # No metric tested here is undefined by its threshold.
    notes = [undefined(metric, target, each, 0.5) for each in (first, second)]
    return target, first, second, notes[0] or notes[1]


def _found(name: str, truth: Floats, p: float) -> CheckpointTest:
    return CheckpointTest(name, _GIVEN, len(truth), max(float(p), SMALLEST_P))


def _none(name: str, truth: Floats, note: str) -> CheckpointTest:
    return CheckpointTest(name, _GIVEN, len(truth), _NAN, note)
