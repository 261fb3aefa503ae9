from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.stats.inference import interval_over_seeds
from bench.stats.measured import RunPredictions
from bench.stats.metrics import compute
from bench.stats.subgroups import (
    NOT_KNOWN,
    age_bands,
    interactions,
    levels_of,
    masks_of,
    measure_levels,
    quantile_bands,
    subgroup_table,
)


def experiment(seed, n_seeds=4, n=80, extra=0.0):
    """Return ages, sexes and two arms, of which A is worse by `extra` in men."""
    rng = np.random.default_rng(seed)
    truth, sex = rng.normal(60, 10, n), np.where(np.arange(n) % 2, "F", "M")
    subject, noise = rng.normal(0, 3, n), rng.normal(0, 4, (2, n_seeds, n))
    a = truth + subject + noise[0] * (1 + extra * (sex == "M"))
    b = truth + subject + noise[1]
    return (
        truth,
        sex,
        RunPredictions(a, tuple(range(n_seeds))),
        RunPredictions(b, tuple(range(n_seeds))),
    )


def test_levels_are_text_and_missing_values_are_not_known():
    values = ["F", " M ", "", None, float("nan"), pd.NA, pd.NaT, "n/a", 2, 3.0, np.float64(1.5)]
    assert levels_of(values) == (
        *("F", "M", *[NOT_KNOWN] * 6),
        *("2", "3", "1.5"),
    )
    masks = masks_of(["site10", NOT_KNOWN, "site2", "site10"])
    assert list(masks) == ["site2", "site10", NOT_KNOWN]
    assert masks["site10"].tolist() == [True, False, False, True]


def test_age_bands_are_fixed_decades_of_completed_years():
    ages = [60, 69.99, 70, 7.5, 100, None, float("nan")]
    assert age_bands(ages) == ("60-69", "60-69", "70-79", "0-9", "100-109", NOT_KNOWN, NOT_KNOWN)
    assert age_bands([64, 65], width=5) == ("60-64", "65-69")
    assert list(masks_of(age_bands(ages))) == ["0-9", "60-69", "70-79", "100-109", NOT_KNOWN]
    for ages, width in (([-1], 10), ([math.inf], 10), ([60], 0), (["old"], 10)):
        with pytest.raises(ValueError):
            age_bands(ages, width)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40), st.integers(2, 6))
def test_quantile_bands_keep_equal_ages_together_and_are_ordered(tenths, n):
    ages = [x / 10 for x in tenths]
    bands = quantile_bands([*ages, None], n)
    assert bands[-1] == NOT_KNOWN
    assert len(set(bands[:-1])) <= n
    placed = sorted(zip(ages, bands, strict=False))
    seen = [band for k, (_, band) in enumerate(placed) if k == 0 or placed[k - 1][1] != band]
    assert len(seen) == len(set(seen))  # going up in age no band comes back
    for age, band in placed:
        low, _, high = band.replace("< ", "").partition(" to ")
        assert float(low) <= age <= float(high or low) + 1e-9
        assert not ("<" in band and age >= float(high))


def test_quantile_bands_of_many_different_ages_are_equally_large():
    bands = quantile_bands(list(range(50, 90)), 4)
    assert [int(mask.sum()) for mask in masks_of(bands).values()] == [10, 10, 10, 10]
    assert list(masks_of(bands))[-1] == "79.2 to 89"
    assert quantile_bands([None, ""]) == (NOT_KNOWN, NOT_KNOWN)
    with pytest.raises(ValueError, match="n must be at least 2"):
        quantile_bands([60, 70], 1)


@pytest.mark.parametrize("name", ["mae", "rmse", "r2", "r"])
def test_a_subgroup_is_measured_on_its_own_subjects_only(name):
    truth, sex, runs, _ = experiment(1)
    for row in subgroup_table(measure_levels(name, truth, runs, sex), 0.9):
        inside = sex == row.level
        values = [compute(name, truth[inside], p[inside]).value for p in runs.predictions]
        assert row.over_seeds == pytest.approx(interval_over_seeds(values, 0.9))
        assert (row.n_subjects, row.reason) == (inside.sum(), "")


def test_a_level_with_one_class_is_undefined_with_its_reason():
    truth = np.array([0.0, 1, 0, 1, 1, 1])
    predictions = np.tile([0.1, 0.7, 0.4, 0.3, 0.5, 0.6], (3, 1)) + np.arange(3)[:, None] / 100
    levels = ["x", "x", "x", "x", NOT_KNOWN, NOT_KNOWN]
    rows = subgroup_table(
        measure_levels("auc", truth, RunPredictions(predictions, (0, 1, 2)), levels)
    )
    assert [row.level for row in rows] == ["x", NOT_KNOWN]
    assert rows[0].over_seeds.mean == pytest.approx(0.75)
    assert np.isnan(rows[1].over_seeds[:3]).all()
    assert rows[1].reason == "no subject is negative"
    assert (rows[1].n_subjects, rows[1].n_smallest) == (2, 0)


def by_hand(truth, a, b, inside, outside):
    """Return the difference of differences in mean absolute error, and its variance by terms."""
    losses = np.abs(a.predictions - truth) - np.abs(b.predictions - truth)
    d = losses[:, inside].mean(axis=1) - losses[:, outside].mean(axis=1)
    k = np.cov(losses[:, inside]) / inside.sum() + np.cov(losses[:, outside]) / outside.sum()
    s = len(d)
    v, c = d.var(ddof=1) / s, (k.sum() - np.trace(k)) / (s * (s - 1))
    total = v + max(c, 0)
    df = total**2 / (v**2 / (s - 1))
    return d.mean(), math.sqrt(total), df


def test_the_interaction_of_two_levels_is_the_difference_of_differences():
    truth, sex, a, b = experiment(2, extra=1.0)
    (got,) = interactions("mae", truth, (a, b), sex)
    assert (got.level, got.against, got.n_not_known) == ("F", "M", 0)
    difference, se, df = by_hand(truth, a, b, sex == "F", sex == "M")
    assert (got.comparison.difference, got.comparison.se) == pytest.approx((difference, se))
    assert got.comparison.p == pytest.approx(2 * stats.t.sf(abs(difference / se), df))
    bounds = stats.t.interval(0.95, df, difference, se)
    assert (got.comparison.low, got.comparison.high) == pytest.approx(bounds)
    assert got.comparison.p < 0.01  # planted


def test_with_more_levels_each_is_compared_with_all_other_known_ones():
    truth, _, a, b = experiment(3)
    site = np.array(["s1", "s2", "s3", NOT_KNOWN])[np.arange(80) % 4]
    found = interactions("mae", truth, (a, b), site)
    assert [(x.level, x.against, x.n_not_known) for x in found] == [
        (name, "all others", 20) for name in ("s1", "s2", "s3")
    ]
    for each in found:
        inside = site == each.level
        difference, se, _ = by_hand(truth, a, b, inside, ~inside & (site != NOT_KNOWN))
        assert (each.comparison.difference, each.comparison.se) == pytest.approx((difference, se))


def test_one_known_level_has_no_interaction():
    truth, _, a, b = experiment(4)
    assert interactions("mae", truth, (a, b), ["F"] * 79 + [NOT_KNOWN]) == ()


def test_an_undefined_level_has_no_p():
    rng = np.random.default_rng(5)
    truth, sex = np.repeat([0.0, 1.0], 20), np.array(["F"] * 25 + ["M"] * 15)
    a, b = (RunPredictions(rng.random((3, 40)), (0, 1, 2)) for _ in range(2))
    (got,) = interactions("auc", truth, (a, b), sex)  # all men are positive
    assert np.isnan([got.comparison.difference, got.comparison.p]).all()
    assert any("no subject is negative" in flag for flag in got.comparison.flags)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), data=st.data())
def test_order_and_names_change_nothing_and_swaps_flip_the_sign(seed, data):
    truth, sex, a, b = experiment(seed, n=16)
    rows = list(data.draw(st.permutations(range(16))))
    seeds = list(data.draw(st.permutations(range(4))))
    (plain,) = interactions("mae", truth, (a, b), sex)
    shuffled = (
        RunPredictions(a.predictions[seeds][:, rows], tuple(seeds)),
        RunPredictions(b.predictions[:, rows], b.seeds),
    )
    (mixed,) = interactions("mae", truth[rows], shuffled, sex[rows])
    (swapped,) = interactions("mae", truth, (b, a), sex)
    (renamed,) = interactions("mae", truth, (a, b), np.where(sex == "F", "z", sex))
    difference, p = plain.comparison.difference, plain.comparison.p
    assert (mixed.comparison.difference, mixed.comparison.p) == pytest.approx((difference, p))
    for turned in (swapped, renamed):  # the arms change places, and the levels do
        assert (turned.comparison.difference, turned.comparison.p) == pytest.approx(
            (-difference, p)
        )


def test_levels_of_other_subjects_are_refused():
    truth, sex, a, b = experiment(6)
    with pytest.raises(ValueError, match="same number of subjects"):
        measure_levels("mae", truth, a, sex[:-1])
    with pytest.raises(ValueError, match="same number of subjects"):
        interactions("mae", truth, (a, RunPredictions(b.predictions[:, 1:], b.seeds)), sex)
