"""Simulate crossed data of two architectures with a known difference, and test them.

All runs predict the same test subjects. The error of a run in a subject is the sum of a subject
effect, a subject x architecture effect (shared by all runs of the architecture) and a residual. The
seed effect makes all errors of a run larger or smaller (age), or the distance between its classes
larger or smaller (diagnosis). Both arms have the same distribution, so they are exchangeable unless
an effect is added, and every significant difference is a false positive.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, stdtr

from bench.stats.classical import paired_t
from bench.stats.inference import compare
from bench.stats.measured import MeasuredRuns, RunPredictions, measure_runs

SEED = 20240607
CHUNK = 250
"""Repeats per random stream, so that results do not depend on the number of processes."""

N_SEEDS = (3, 5, 10)
METRICS = {"age": ("mae", "rmse"), "diagnosis": ("auc", "balanced_accuracy")}

# The standard deviations of seed effects with about the same variance in the metric as 100 test
# subjects: in the logarithm of a run's errors, and in the distance between its classes.
_SEED_SD = {"age": 0.06, "diagnosis": 0.25}
_OWN_AND_RESIDUAL = 1.25  # Variance of errors in addition to that of subjects, which is 1.
_ERROR_YEARS = 5.0
_DISTANCE = 2.0  # Distance between the classes, with AUC .83 and balanced accuracy .75.


@dataclass(frozen=True)
class Cell:
    """The sizes of effects.

    Parameters
    ----------
    name : str
    seed_variance : float
        Variance of a run's metric due to its seed, in units of the variance due to the errors
        of an architecture in 100 test subjects.
    n_subjects : int
    own : float
        Standard deviation of the subject x architecture effect; that of the subject effect is 1.
        The variances of this effect and the residual add up to 1.25, so that the expected values
        of the metrics are equal in all cells.
    effect : float
        The difference for which power is reported, in standard deviations of the seed effect.
    """

    name: str
    seed_variance: float
    n_subjects: int = 100
    own: float = 1.0
    effect: float = float("nan")


# These were chosen before any simulation was run. They range from seeds that contribute no more
# variance than the test subjects to seeds that contribute far more. For these effects, the variance
# formula predicts a power of about .65 with five seeds.
CELLS = (
    Cell("1 : 1", 1, effect=4.0),
    Cell("4 : 1", 4, effect=2.4),
    Cell("16 : 1", 16, effect=2.0),
)
# Extreme cases: more and fewer subjects, and architectures for which the same subjects are
# difficult, so that the test set does not contribute to the variance and the paired t test over
# seeds is exact.
EDGES = (
    Cell("300 subjects", 4, n_subjects=300),
    Cell("32 subjects", 4, n_subjects=32),
    Cell("no own errors", 4, own=0.0),
)


@dataclass(frozen=True)
class Design:
    """What is simulated: a task in a cell, with an optional difference and effect of tuning.

    The random stream is derived from its repr, so names and fields must not change.

    Parameters
    ----------
    task : str
        ``"age"`` or ``"diagnosis"``.
    cell : Cell
    effect : float
        Difference of the two arms, in standard deviations of the seed effect.
    tuning : float
        Standard deviation of the effect of tuning, in units of that of the seed effect.
    per_seed : bool
        Whether tuning is repeated for each seed instead of being shared by all seeds of an arm.
    """

    task: str
    cell: Cell
    effect: float = 0.0
    tuning: float = 0.0
    per_seed: bool = False


class Outcome(NamedTuple):
    """The p-values of four analyses of one data set, and two results of the headline test."""

    headline: float
    over_seeds: float
    over_subjects: float
    as_rows: float
    subjects_share: float  # The proportion of the squared standard error due to subjects.
    truncated: float  # 1 if the estimated covariance between runs was negative.


def draw(design: Design, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Simulate the truth (N,) and predictions (2, S, N) of both arms, with S = max(N_SEEDS).

    Parameters
    ----------
    design : Design
    rng : numpy.random.Generator
    """
    cell, n, s = design.cell, design.cell.n_subjects, max(N_SEEDS)
    unit = _SEED_SD[design.task] * np.sqrt(cell.seed_variance)
    tuned = rng.normal(size=(2, s if design.per_seed else 1, 1))
    level = unit * (rng.normal(size=(2, s, 1)) + design.tuning * tuned)
    level[0] += unit * design.effect
    residual = np.sqrt(_OWN_AND_RESIDUAL - cell.own**2)
    error = (
        rng.normal(size=n)
        + cell.own * rng.normal(size=(2, 1, n))
        + residual * rng.normal(size=(2, s, n))
    )
    if design.task == "age":
        truth = rng.normal(60, 10, n)
        return truth, truth + _ERROR_YEARS * np.exp(level) * error
    truth = np.arange(n) % 2.0
    return truth, expit((truth - 0.5) * (_DISTANCE + level) + error)


def analyse(a: MeasuredRuns, b: MeasuredRuns) -> Outcome:
    """Return the results of the headline test and of other tests of two arms with the same seeds.

    The test over subjects averages the runs of an arm and takes them as fixed (a paired t test of
    each subject's average error for the mean absolute error, DeLong's test of average AUCs for the
    AUC). The test with rows treats the subjects of different runs as independent.
    """
    found = compare(a, b)
    gaps = a.values - b.values
    parts = a.deviations - b.deviations
    s, n = parts.shape
    return Outcome(
        headline=found.p,
        over_seeds=paired_t(a.values, b.values).p,
        over_subjects=_p(gaps.mean(), np.sum(parts.mean(axis=0) ** 2), n - 1),
        as_rows=_p(gaps.mean(), np.sum(parts**2) / s**2, s * n - 1),
        subjects_share=found.shares.subjects,
        truncated=float(found.c < 0),
    )


def _p(difference: float, variance: float, df: int) -> float:
    return float(2 * stdtr(df, -abs(difference) / np.sqrt(variance)))


def chunk(design: Design, number: int) -> NDArray:
    """Return the outcomes (CHUNK, metrics, N_SEEDS, fields of Outcome) of one random stream.

    The data sets with 3 and 5 seeds are the first runs of those with ten seeds.
    """
    rng = np.random.default_rng([SEED, zlib.crc32(repr(design).encode()), number])
    found = []
    for _ in range(CHUNK):
        truth, arms = draw(design, rng)
        seeds = tuple(range(arms.shape[1]))
        for name in METRICS[design.task]:
            a, b = (measure_runs(name, truth, RunPredictions(arm, seeds)) for arm in arms)
            found += [analyse(a.only(seeds[:s]), b.only(seeds[:s])) for s in N_SEEDS]
    shape = (CHUNK, len(METRICS[design.task]), len(N_SEEDS), len(Outcome._fields))
    return np.array(found).reshape(shape)


def rejected(outcomes: NDArray, alpha: float | NDArray = 0.05) -> NDArray:
    """Return how often each of the four tests rejects, (metrics, N_SEEDS, 4).

    A test without a p-value (constant differences) does not reject.
    """
    return np.mean(outcomes[..., :4] < alpha, axis=0)


def critical_p(null: NDArray) -> NDArray:
    """Return the p threshold at which tests reject 5 % of equal pairs, (metrics, N_SEEDS, 4)."""
    return np.quantile(np.nan_to_num(null[..., :4], nan=1.0), 0.05, axis=0)
