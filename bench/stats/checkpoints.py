"""Tests of two trained networks, which generalise to new subjects but not to new training runs.

There is one p-value per seed. It concerns two sets of weights and not their architectures: with
predictions averaged over seeds, DeLong's test rejects the null hypothesis of equal architectures in
20 to 40 % of cases. Therefore, the p-values of all seeds are listed and not combined.
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
    """A two-sided test of two trained networks (checkpoints) on the same subjects.

    Parameters
    ----------
    name, conditions_on : str
        The name of the test, and what it takes as fixed.
    n : int
        The number of subjects.
    p : float
        NaN if there is no test, for the reason in `note`.
    note : str
    """

    name: str
    conditions_on: str
    n: int
    p: float
    note: str = ""


def delong(truth: ArrayLike, a: ArrayLike, b: ArrayLike) -> CheckpointTest:
    """DeLong's test of two AUCs of the same subjects (Biometrics 44, 1988).

    z is the difference divided by its standard error, computed from the placements of all subjects
    in O(N log N); p is two-sided from the normal distribution.

    Parameters
    ----------
    truth : array (N,)
        1 for positive subjects, 0 for others.
    a, b : array (N,)
        P(positive) predicted by each checkpoint.

    Returns
    -------
    CheckpointTest
        Without p if a class has fewer than two subjects or no placement differs.

    Raises
    ------
    ValueError
        If the arrays do not match or the truth is not a class index.
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

    Under the null hypothesis, each checkpoint is expected to be right for half of the subjects that
    only one of them classifies correctly.

    Parameters
    ----------
    truth : array (N,)
        Class indices.
    a, b : array (N,) or (N, K)
        P(positive), or the probabilities of K classes, predicted by each checkpoint.
    threshold : float
        As for `metrics.compute`.

    Returns
    -------
    CheckpointTest
        Without p if no pair is discordant.

    Raises
    ------
    ValueError
        As for `delong`.
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
        Ages predicted by each checkpoint.

    Returns
    -------
    CheckpointTest
        Without p for fewer than two subjects or constant differences.

    Raises
    ------
    ValueError
        If the arrays do not match or the truth is not finite.
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
        Predictions of each arm for the seeds that both share, in the same order.
    seeds : sequence of int
        The S seeds.

    Returns
    -------
    dict
        Seed to its test. The tests should all be listed and not be combined.

    Raises
    ------
    ValueError
        If there is no test for the metric, a seed occurs twice, or the arrays do not match.
    """
    if metric not in _TESTS:
        raise ValueError(f"metric must be one of {', '.join(_TESTS)}, got {metric}")
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(set(seeds)) != len(seeds):
        raise ValueError("a seed occurs twice; pass one run per seed")
    if not len(first) == len(second) == len(seeds):
        raise ValueError(f"got {len(first)} and {len(second)} runs for {len(seeds)} seeds")
    test = _TESTS[metric]
    return {seed: test(truth, x, y) for seed, x, y in zip(seeds, first, second, strict=True)}


def _both(
    metric: str, truth: ArrayLike, a: ArrayLike, b: ArrayLike
) -> tuple[Floats, Floats, Floats, str]:
    """Return the checked arrays and, if a metric is undefined, the reason."""
    target, first = checked(metric, truth, a)
    _, second = checked(metric, truth, b)
    # The threshold does not matter for whether these metrics are defined.
    notes = [undefined(metric, target, each, 0.5) for each in (first, second)]
    return target, first, second, notes[0] or notes[1]


def _found(name: str, truth: Floats, p: float) -> CheckpointTest:
    return CheckpointTest(name, _GIVEN, len(truth), max(float(p), SMALLEST_P))


def _none(name: str, truth: Floats, note: str) -> CheckpointTest:
    return CheckpointTest(name, _GIVEN, len(truth), _NAN, note)
