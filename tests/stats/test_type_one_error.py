"""A seeded simulation of the headline test: false claims, power, and what tuning does.

The designs are those of `tests.simulation.design`; `make simulate` runs them longer and writes
docs/simulation.md. A bound on a rate is tested with the error of counting: it is broken where no
rate within the bounds would give such a count but once in a thousand.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import binom, chi2, norm, ttest_rel

from bench.stats.inference import compare
from bench.stats.measured import MeasuredRuns, RunPredictions, measure_runs
from tests.simulation.design import (
    CELLS,
    CHUNK,
    EDGES,
    METRICS,
    N_SEEDS,
    Design,
    analyse,
    chunk,
    critical_p,
    draw,
    rejected,
)

pytestmark = pytest.mark.slow

MIDDLE = CELLS[1]
HEADLINE, OVER_SEEDS, OVER_SUBJECTS, AS_ROWS = range(4)


@cache
def outcomes(design: Design, chunks: int):
    return np.concatenate([chunk(design, number) for number in range(chunks)])


def assert_within(rates, repeats: int, low: float, high: float):
    counts = np.round(np.asarray(rates) * repeats)
    assert counts.min() >= binom.ppf(0.001, repeats, low), rates
    assert counts.max() <= binom.ppf(0.999, repeats, high), rates


@pytest.mark.parametrize("task", METRICS)
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_equal_architectures_differ_significantly_in_about_one_of_twenty_data_sets(cell, task):
    rates = rejected(outcomes(Design(task, cell), 6))[..., HEADLINE]
    for n_seeds, by_metric in zip(N_SEEDS, rates.T, strict=True):
        assert_within(by_metric, 6 * CHUNK, 0.04, 0.08 if n_seeds == 3 else 0.07)


@pytest.mark.parametrize("task", METRICS)
def test_if_the_test_set_matters_a_test_over_seeds_alone_rejects_too_often(task):
    rates = rejected(outcomes(Design(task, CELLS[0]), 6))[..., OVER_SEEDS]
    assert (rates[:, 1:] > 0.2).all()
    assert (np.diff(rates, axis=1) > 0).all()  # more seeds make it worse


@pytest.mark.parametrize("task", METRICS)
def test_subjects_alone_or_seeds_by_subjects_as_rows_reject_too_often(task):
    rates = rejected(outcomes(Design(task, MIDDLE), 6))
    assert (rates[:, 0, OVER_SUBJECTS] > 0.1).all()
    assert (np.diff(rates[..., OVER_SUBJECTS], axis=1) < 0).all()  # more seeds average out
    assert (rates[..., AS_ROWS] > 0.2).all()


@pytest.mark.parametrize("task", METRICS)
def test_a_test_set_without_variance_does_not_make_it_reject_more_often(task):
    (cell,) = (cell for cell in EDGES if not cell.own)
    rates = rejected(outcomes(Design(task, cell), 2))[..., :2]
    assert_within(rates, 2 * CHUNK, 0.02, 0.07)
    assert (rates[..., HEADLINE] <= rates[..., OVER_SEEDS] + 0.02).all()


@pytest.mark.parametrize("task", METRICS)
def test_at_the_same_type_one_error_its_power_is_not_below_the_paired_t(task):
    null = outcomes(Design(task, MIDDLE), 6)
    shifted = outcomes(Design(task, MIDDLE, effect=MIDDLE.effect), 2)
    assert_within(rejected(shifted)[:, 1, HEADLINE], 2 * CHUNK, 0.5, 0.8)
    fair = rejected(shifted, critical_p(null))
    assert (fair[..., HEADLINE] >= fair[..., OVER_SEEDS] - 0.03).all()
    assert (fair[:, 0, HEADLINE] > fair[:, 0, OVER_SEEDS]).all()


@pytest.mark.parametrize("task", METRICS)
def test_settings_tuned_once_are_not_covered(task):
    rates = rejected(outcomes(Design(task, MIDDLE, tuning=1.0), 2))[..., HEADLINE]
    assert (rates > 0.15).all()


@pytest.mark.parametrize("task", METRICS)
def test_settings_tuned_for_each_seed_are_covered(task):
    design = Design(task, MIDDLE, tuning=1.0, per_seed=True)
    rates = rejected(outcomes(design, 2))[..., HEADLINE]
    assert_within(rates[:, 0], 2 * CHUNK, 0.04, 0.08)
    assert_within(rates[:, 1:], 2 * CHUNK, 0.04, 0.07)


def test_over_subjects_is_the_paired_t_of_their_average_errors():
    truth, arms = draw(Design("age", MIDDLE), np.random.default_rng(5))
    a, b = (measure_runs("mae", truth, RunPredictions(arm, tuple(range(len(arm))))) for arm in arms)
    first, second = np.abs(arms - truth).mean(axis=1)
    assert analyse(a, b).over_subjects == pytest.approx(ttest_rel(first, second).pvalue, rel=1e-9)


def promised(seed_variance: float, n_seeds: int) -> float:
    """Type-I error by the formula for normal differences where C = 1 is known: an integral over
    the quantiles of the variance over seeds."""
    quantiles = (np.arange(5000) + 0.5) / 5000
    true = seed_variance / n_seeds
    v = true * chi2.ppf(quantiles, n_seeds - 1) / (n_seeds - 1)
    df = (v + 1) ** 2 / (v**2 / (n_seeds - 1))
    critical = stdtrit(df, 0.975) * np.sqrt((v + 1) / (true + 1))
    return float(np.mean(2 * norm.sf(critical)))


def test_the_error_with_three_seeds_is_as_documented():
    as_said = [0.051, 0.062, 0.076, 0.077]
    assert [promised(x, 3) for x in (1, 4, 12, 16)] == pytest.approx(as_said, abs=6e-4)
    ratios = np.geomspace(0.1, 1000, 61)
    worst = {s: max((promised(ratio, s), ratio) for ratio in ratios) for s in N_SEEDS}
    assert [worst[s][0] for s in N_SEEDS] == pytest.approx([0.0785, 0.0585, 0.052], abs=3e-4)
    assert 20 < worst[3][1] < 30


@pytest.mark.parametrize(("seed_variance", "n_seeds"), [(1, 3), (24, 3), (24, 5)])
def test_with_a_known_covariance_the_error_agrees_with_the_formula(seed_variance, n_seeds):
    rng, repeats, n = np.random.default_rng(11), 4000, 50
    seeds = tuple(range(n_seeds))
    # All runs have the same deviations, so the covariance between runs is exactly 1.
    alike = np.full((n_seeds, n), 1 / np.sqrt(n))
    some = measure_runs("mae", np.zeros(n), RunPredictions(rng.normal(size=(n_seeds, n)), seeds))

    def arm(values, deviations) -> MeasuredRuns:
        predictions = rng.normal(size=(n_seeds, n))
        return replace(some, values=values, deviations=deviations, predictions=predictions)

    claims = 0
    for _ in range(repeats):
        gaps = rng.normal() + np.sqrt(seed_variance) * rng.normal(size=n_seeds)
        found = compare(arm(100 + gaps, alike), arm(np.full(n_seeds, 100.0), 0 * alike))
        claims += found.p < 0.05
    expected = promised(seed_variance, n_seeds)
    assert_within(claims / repeats, repeats, expected, expected)
