from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from bench.stats.bootstrap import (
    LearningCurve,
    Resamples,
    crossed_means,
    draw_resamples,
    learning_curve,
    percentile_bounds,
    resample_curve,
)
from bench.stats.measured import RunPredictions
from bench.stats.metrics import compute, weighted_values

REGRESSION = ("mae", "rmse", "r2", "r")
BINARY = (
    *("auc", "average_precision", "balanced_accuracy", "accuracy", "sensitivity"),
    *("specificity", "brier", "log_loss"),
)
MULTICLASS = ("balanced_accuracy", "accuracy", "log_loss", "auc_2")
CASES = (
    *[("regression", name) for name in REGRESSION],
    *[("binary", name) for name in BINARY],
    *[("multiclass", name) for name in MULTICLASS],
)


def experiment(task, seed, n_seeds=3, n=40, decimals=None):
    """Return truth and predictions of S runs, with few decimals so that there are ties."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        truth = rng.normal(60, 10, n)
        return truth, truth + rng.normal(0, 8, (n_seeds, n))
    truth = rng.permutation(np.arange(n) % (2 if task == "binary" else 3)).astype(float)
    if task == "binary":
        stack = 1 / (1 + np.exp(-(truth + rng.normal(-0.5, 1, (n_seeds, n)))))
        return truth, stack if decimals is None else stack.round(decimals)
    logits = np.eye(3)[truth.astype(int)] + rng.normal(size=(n_seeds, n, 3))
    return truth, np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def on_resampled_subjects(name, truth, prediction, counts):
    """Return the metric of subjects that are repeated as often as they were sampled."""
    rows = np.repeat(np.arange(len(truth)), counts.astype(int))
    return compute(name, truth[rows], prediction[rows]).value


@pytest.mark.parametrize(("task", "name"), CASES)
def test_weighting_subjects_equals_repeating_them(task, name):
    truth, stack = experiment(task, 1)
    weights = draw_resamples(1, len(truth), 30, 5).subjects
    by_hand = [[on_resampled_subjects(name, truth, row, w) for row in stack] for w in weights]
    got = weighted_values(name, truth, stack, weights)
    assert got == pytest.approx(np.array(by_hand), rel=1e-10)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 25), decimals=st.integers(0, 2))
def test_auc_and_precision_of_resamples_equal_scikit_learns_with_many_ties(seed, n, decimals):
    truth, stack = experiment("binary", seed, 2, n, decimals)
    weights = draw_resamples(1, n, 12, seed).subjects
    theirs = {"auc": sk.roc_auc_score, "average_precision": sk.average_precision_score}
    for name, function in theirs.items():
        got = weighted_values(name, truth, stack, weights)
        for b, w in enumerate(weights):
            rows = np.repeat(np.arange(n), w.astype(int))
            for s, score in enumerate(stack):
                if len(set(truth[rows])) < 2:
                    assert np.isnan(got[b, s])
                    continue
                assert got[b, s] == pytest.approx(function(truth[rows], score[rows]), abs=1e-12)


def test_many_resamples_are_computed_in_parts_with_the_same_result():
    truth, stack = experiment("binary", 2, 2, 300)
    weights = draw_resamples(1, 300, 2000, 0).subjects  # more than one part
    for name in ("auc", "average_precision"):
        got = weighted_values(name, truth, stack, weights)
        assert got.shape == (2000, 2)
        for b in (0, 873, 874, 1999):
            alone = weighted_values(name, truth, stack, weights[[b]])[0]
            assert got[b] == pytest.approx(alone, rel=1e-13)


def test_a_metric_without_a_weighted_form_is_computed_on_repeated_subjects():
    truth, stack = experiment("binary", 3)
    weights = draw_resamples(1, len(truth), 20, 6).subjects
    weights[0] = truth  # only positive subjects: MCC and F1 need both classes
    for name in ("mcc", "f1", "ece"):
        by_hand = [[on_resampled_subjects(name, truth, row, w) for row in stack] for w in weights]
        got = weighted_values(name, truth, stack, weights)
        assert got == pytest.approx(np.array(by_hand), nan_ok=True)
        assert np.isnan(got[0]).all() == (name != "ece")
        with pytest.raises(ValueError, match="must be integers"):
            weighted_values(name, truth, stack, weights / 2)


@pytest.mark.parametrize(("task", "name"), CASES)
def test_crossed_means_are_a_double_loop_over_seeds_and_subjects(task, name):
    truth, first = experiment(task, 4)
    second = experiment(task, 4, n=40)[1][::-1]
    curve = LearningCurve(name, (10, 40), truth, (first, second), (0, 1, 2))
    drawn = draw_resamples(3, len(truth), 25, 9)
    got = crossed_means(curve, drawn)
    for b in range(25):
        for size, stack in enumerate(curve.stacks):
            values = [on_resampled_subjects(name, truth, row, drawn.subjects[b]) for row in stack]
            expected = np.repeat(values, drawn.seeds[b].astype(int)).mean()
            assert got[b, size] == pytest.approx(expected, rel=1e-10)
    once = Resamples(np.ones((1, 3)), np.ones((1, len(truth))), 0)
    assert crossed_means(curve, once)[0] == pytest.approx(curve.means, rel=1e-12)


def test_all_sizes_and_arms_share_their_resamples():
    truth, stack = experiment("regression", 5)
    drawn = draw_resamples(3, len(truth), 50, 1)
    got = crossed_means(
        LearningCurve("mae", (10, 20), truth, (stack, stack + 0.0), (0, 1, 2)), drawn
    )
    assert np.array_equal(got[:, 0], got[:, 1])
    assert np.array_equal(draw_resamples(3, len(truth), 50, 1).subjects, drawn.subjects)
    assert not np.array_equal(draw_resamples(3, len(truth), 50, 2).subjects, drawn.subjects)
    assert (drawn.seeds.sum(axis=1) == 3).all()
    assert (drawn.subjects.sum(axis=1) == len(truth)).all()


def test_the_variance_of_crossed_means_is_that_of_the_pigeonhole_bootstrap():
    """Its expectation is the sum of seeds, subjects and three times their interaction."""
    rng = np.random.default_rng(6)
    n_seeds, n = 6, 80
    losses = 5 + rng.normal(0, 1, (n_seeds, 1)) + rng.normal(0, 2, n) + rng.normal(size=(6, 80))
    drawn = draw_resamples(n_seeds, n, 20_000, 3)
    curve = LearningCurve("mae", (10,), np.zeros(n), (np.abs(losses),), tuple(range(n_seeds)))
    rows, columns = np.abs(losses).mean(axis=1), np.abs(losses).mean(axis=0)
    rest = np.abs(losses) - rows[:, None] - columns + np.abs(losses).mean()
    expected = np.var(rows) / n_seeds + np.var(columns) / n + np.mean(rest**2) / (n_seeds * n)
    assert crossed_means(curve, drawn).var() == pytest.approx(expected, rel=0.04)


def test_resamples_without_a_class_are_dropped_and_counted():
    truth = np.array([1.0, 0, 0, 0, 0])
    stack = np.array([[0.9, 0.1, 0.2, 0.3, 0.95], [0.5, 0.1, 0.6, 0.2, 0.3]])
    drawn = draw_resamples(2, 5, 400, 0)
    absent = (drawn.subjects[:, 0] == 0) | (drawn.subjects[:, 0] == 5)
    got = crossed_means(LearningCurve("auc", (10,), truth, (stack,), (0, 1)), drawn)
    assert np.array_equal(np.isnan(got[:, 0]), absent)
    bounds = percentile_bounds(got[:, 0])
    assert (bounds.n_boot, bounds.n_dropped) == ((~absent).sum(), absent.sum())


def test_a_diverged_run_leaves_its_size_undefined_and_the_others_as_they_are():
    truth, stack = experiment("regression", 7)
    broken = stack.copy()
    broken[1, 3] = np.nan
    drawn = draw_resamples(3, len(truth), 20, 0)
    curve = LearningCurve("mae", (10, 20), truth, (broken, stack), (0, 1, 2))
    got = crossed_means(curve, drawn)
    assert np.isnan(got[:, 0]).all()
    assert np.isfinite(got[:, 1]).all()
    assert resample_curve(curve, drawn).reason == "the metric is undefined at a size"


def test_runs_that_are_not_in_a_resample_may_be_undefined():
    truth = np.array([1.0, 2, 3, 4, 5])
    flat = np.array([2.0, 2, 2, 2, 9])  # constant, so without r, where the last is not drawn
    curve = LearningCurve("r", (10,), truth, (np.stack([truth * 2, flat]),), (0, 1))
    drawn = Resamples(np.array([[2.0, 0], [1, 1]]), np.array([[2.0, 1, 1, 1, 0]] * 2), 0)
    assert crossed_means(curve, drawn)[0, 0] == pytest.approx(1)
    assert np.isnan(crossed_means(curve, drawn)[1, 0])


def test_a_curve_keeps_the_seeds_that_all_sizes_have():
    truth, stack = experiment("regression", 8, n_seeds=4)
    by_size = {
        50: RunPredictions(stack, (3, 1, 0, 7)),
        20: RunPredictions(stack[:3] + 1, (7, 0, 3)),
    }
    curve = learning_curve("mae", truth, by_size)
    assert (curve.sizes, curve.seeds, curve.dropped) == ((20, 50), (0, 3, 7), (1,))
    assert np.array_equal(curve.stacks[0], stack[[1, 2, 0]] + 1)
    assert np.array_equal(curve.stacks[1], stack[[2, 0, 3]])
    expected = [[compute("mae", truth, row).value for row in stack] for stack in curve.stacks]
    assert np.array_equal(curve.values, np.transpose(expected))
    smaller = curve.only((7, 0))
    assert (smaller.seeds, smaller.dropped) == ((7, 0), (1, 3))
    assert np.array_equal(smaller.values, curve.values[[2, 0]])


def test_a_single_fit_is_combined_with_every_seed_and_alone_resamples_subjects_only():
    truth, stack = experiment("regression", 9)
    same = np.repeat(stack[:1], 3, axis=0)
    mixed = learning_curve(
        "mae",
        truth,
        {
            20: RunPredictions(stack, (0, 1, 2)),
            90: RunPredictions(same[:1], (0,), deterministic=True),
        },
    )
    assert mixed.seeds == (0, 1, 2)
    assert np.array_equal(mixed.stacks[1], same)
    assert not mixed.one_fit
    alone = learning_curve(
        "mae", truth, {n: RunPredictions(same + n, (0, 1, 2), deterministic=True) for n in (20, 90)}
    )
    assert alone.one_fit
    assert len(alone.seeds) == 1
    drawn = draw_resamples(3, len(truth), 15, 0)
    got = resample_curve(alone, drawn)
    assert not got.reason
    for b in range(15):
        expected = on_resampled_subjects("mae", truth, stack[0] + 20, drawn.subjects[b])
        assert got.resampled[b, 0] == pytest.approx(expected)


def test_one_seed_has_no_interval():
    truth, stack = experiment("regression", 10, n_seeds=1)
    curve = LearningCurve("mae", (10,), truth, (stack,), (4,))
    got = resample_curve(curve, draw_resamples(1, len(truth), 10))
    assert got.reason == "one seed: no interval"
    assert np.isnan(got.resampled).all()
    assert np.isfinite(got.means).all()


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), data=st.data())
def test_the_order_of_runs_and_sizes_changes_nothing(seed, data):
    truth, stack = experiment("binary", seed, 4, 12)
    order = data.draw(st.permutations(range(4)))
    sizes = data.draw(st.permutations((10, 20, 30)))
    plain = {n: RunPredictions(stack / (1 + n), (0, 1, 2, 3)) for n in (10, 20, 30)}
    mixed = {n: RunPredictions(stack[list(order)] / (1 + n), tuple(order)) for n in sizes}
    drawn = draw_resamples(4, 12, 20, seed)
    curves = [learning_curve("brier", truth, by_size) for by_size in (plain, mixed)]
    first, second = (crossed_means(curve, drawn) for curve in curves)
    assert np.array_equal(first, second)


def test_percentile_bounds_are_order_statistics_and_know_infinity():
    values = np.arange(1.0, 1000)  # 999 of them: the 25th from either end
    shuffled = np.random.default_rng(0).permutation(values)
    assert percentile_bounds(shuffled)[:2] == (25, 975)
    negative = percentile_bounds(-shuffled)
    assert negative[:2] == (-975, -25)
    open_end = np.where(values > 900, np.inf, values)
    assert percentile_bounds(open_end)[:2] == (25, np.inf)
    assert percentile_bounds(np.where(values < 100, -np.inf, values))[:2] == (-np.inf, 975)
    columns = percentile_bounds(np.stack([shuffled, 2 * shuffled], axis=1))
    assert columns.low.tolist() == [25, 50]


def test_too_few_resamples_for_a_level_give_no_bounds():
    bounds = percentile_bounds(np.arange(38.0))
    assert np.isnan([bounds.low, bounds.high]).all()
    assert percentile_bounds(np.arange(39.0))[:2] == (0, 38)
    nothing = percentile_bounds(np.full(10, np.nan))
    assert np.isnan(nothing.low)
    assert (nothing.n_boot, nothing.n_dropped) == (0, 10)


@pytest.mark.parametrize("level", [0, 1, -0.5, 95])
def test_a_level_outside_0_to_1_is_refused(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile_bounds(np.arange(9.0), level)


def test_arguments_that_do_not_match_are_refused():
    truth, stack = experiment("regression", 11)
    with pytest.raises(ValueError, match="ascend"):
        LearningCurve("mae", (20, 10), truth, (stack, stack), (0, 1, 2))
    with pytest.raises(ValueError, match="1 stacks of predictions for 2 sizes"):
        LearningCurve("mae", (10, 20), truth, (stack,), (0, 1, 2))
    with pytest.raises(ValueError, match="3 runs of 39"):
        LearningCurve("mae", (10,), truth[1:], (stack,), (0, 1, 2))
    with pytest.raises(ValueError, match="ascend"):
        learning_curve("mae", truth, {})
    with pytest.raises(ValueError, match="do not share a seed"):
        learning_curve(
            "mae",
            truth,
            {10: RunPredictions(stack, (0, 1, 2)), 20: RunPredictions(stack, (3, 4, 5))},
        )
    curve = LearningCurve("mae", (10,), truth, (stack,), (0, 1, 2))
    for drawn in (draw_resamples(2, 40, 5), draw_resamples(3, 41, 5)):
        with pytest.raises(ValueError, match="keep only the seeds that all arms share"):
            crossed_means(curve, drawn)
    with pytest.raises(ValueError, match="at least one"):
        draw_resamples(0, 40)
