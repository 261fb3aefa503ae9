"""Crossed data of two architectures of known difference, and what the tests say of them.

Every run predicts the same test subjects. The error of a run in a subject is made of what is hard
about the subject for everyone, what is hard about it for this architecture (the same in all of
its runs), and what is of this run alone. The seed makes all errors of a run larger or smaller (age)
or its classes easier or harder to tell apart (diagnosis). The two arms are drawn by the same rule,
so that without an added effect they are exchangeable: any claim of a difference is false.
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
"""Repeats drawn from one random stream; any number of processes gives the same numbers."""

N_SEEDS = (3, 5, 10)
METRICS = {"age": ("mae", "rmse"), "diagnosis": ("auc", "balanced_accuracy")}

# The seed effect whose variance in the metric is about that of 100 test subjects: of the logarithm
# of the size of a run's errors, and of the distance between its classes.
_SEED_SD = {"age": 0.06, "diagnosis": 0.25}
_OWN_AND_RESIDUAL = 1.25  # variance of errors beside that of the subject, which is 1
_ERROR_YEARS = 5.0
_DISTANCE = 2.0  # between the classes: AUC .83, balanced accuracy .75


@dataclass(frozen=True)
class Cell:
    """How large the effects are.

    Parameters
    ----------
    name : str
    seed_variance : float
        Variance of a run's metric due to its seed, in units of the variance due to the errors
        that an architecture has of its own in 100 test subjects.
    n_subjects : int
    own : float
        Standard deviation of subject by architecture, where that of the subject is 1. With the
        residual its square adds up to 1.25, so the metrics have one expected value in all cells.
    effect : float
        The difference for which power is shown, in standard deviations of the seed effect.
    """

    name: str
    seed_variance: float
    n_subjects: int = 100
    own: float = 1.0
    effect: float = float("nan")


# Chosen before anything was run: from seeds that matter as little as the test subjects to seeds
# that matter far more. The effects are those for which the formula of the variance promises a
# power of about .65 at five seeds.
CELLS = (
    Cell("1 : 1", 1, effect=4.0),
    Cell("4 : 1", 4, effect=2.4),
    Cell("16 : 1", 16, effect=2.0),
)
# What lies outside of the claim: more and fewer subjects, and architectures that share all they
# find hard, where the test set adds nothing to the variance and the paired t over seeds is exact.
EDGES = (
    Cell("300 subjects", 4, n_subjects=300),
    Cell("32 subjects", 4, n_subjects=32),
    Cell("no own errors", 4, own=0.0),
)


@dataclass(frozen=True)
class Design:
    """What is drawn: a task in a cell, with a difference and with tuning if there are any.

    Parameters
    ----------
    task : str
        ``"age"`` or ``"diagnosis"``.
    cell : Cell
    effect : float
        Difference of the two arms, in standard deviations of the seed effect.
    tuning : float
        Standard deviation of what tuning does to an arm, in those of the seed effect.
    per_seed : bool
        Whether tuning is done anew for each seed, instead of once for all seeds of an arm.
    """

    task: str
    cell: Cell
    effect: float = 0.0
    tuning: float = 0.0
    per_seed: bool = False


class Outcome(NamedTuple):
    """The p-values of four analyses of one data set, and two facts of the headline test."""

    headline: float
    over_seeds: float
    over_subjects: float
    as_rows: float
    subjects_share: float  # of the squared standard error
    truncated: float  # 1 where the covariance between runs was estimated below 0


def draw(design: Design, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Return the truth (N,) and the predictions (2, S, N) of both arms, S the largest of N_SEEDS.

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
    """Return what the headline test and its rivals say of two arms on the same seeds.

    Over subjects: the runs of an arm are averaged and taken for fixed (for the mean absolute error
    a paired t test on each subject's average error; for the AUC DeLong's test of average AUCs). As
    rows: every run is taken to have test subjects of its own.
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

    The first 3 and 5 of ten runs are the data sets of 3 and 5 seeds.
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

    A test without a p (differences that do not vary) does not reject.
    """
    return np.mean(outcomes[..., :4] < alpha, axis=0)


def critical_p(null: NDArray) -> NDArray:
    """Return the p below which each test rejects 5 % of equal pairs, (metrics, N_SEEDS, 4)."""
    return np.quantile(np.nan_to_num(null[..., :4], nan=1.0), 0.05, axis=0)
