"""Figures show the numbers of the report."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from bench.report.build import build_report
from bench.report.plots import KINDS, FigureRequest
from bench.report.plots.pareto import front
from bench.report.plots.source import load_source, spread_evenly
from bench.report.plots.style import styled
from bench.stats.inference import holm
from registry.errors import UserError
from tests.report.conftest import AGE, DISEASE, STAGES, cell, table
from tests.report.figures import costs, gathered, three


def test_learning_curves_have_the_means_and_intervals_of_the_report(bench, reading):
    three(bench)
    store = reading()
    data = gathered(store, "learning-curves")
    board = table(build_report(store), "leaderboard-mae")
    assert [curve.label for curve in data.curves] == ["good", "fair", "bad"]
    for curve in data.curves:
        assert curve.sizes.tolist() == [24, 48, 96]
        for size, score in zip((24, 48, 96), curve.scores, strict=True):
            found = cell(board, curve.label, f"n{size}")
            told = (score.mean, score.low, score.high)
            assert told == tuple(found.values[key] for key in ("mean", "low", "high"))
            assert found.text.startswith(score.text)
            runs = curve.run_values[curve.run_sizes == size]
            assert runs.mean() == pytest.approx(score.mean, rel=1e-12)
            assert len(runs) == 3
    # Above half of the pool of 96 subjects, seeds have nearly the same training set.
    assert data.conditional == 96
    assert data.size_labels == ("24", "48", "96 (all)")


def test_learning_curves_mention_failed_runs_and_show_the_others(bench, reading):
    bench.cohort()
    arm = bench.arm("good")
    command = bench.ask(arm, sizes=(24, 48))
    for size, seed in itertools.product((24, 48), range(3)):
        bench.run(command, arm, size, seed, failed="NaN" if seed == 1 and size == 24 else "")
    (curve,) = gathered(reading(), "learning-curves").curves
    assert curve.label == "good (1 of 6 runs failed)"
    assert len(curve.run_values) == 5


def test_the_forest_is_the_primary_family_of_the_report(bench, reading):
    three(bench)
    store = reading()
    data = gathered(store, "forest")
    pairs = table(build_report(store), "pairs-primary")
    assert list(data.labels) == [row[0].text for row in pairs.rows]
    keys = [column.key for column in pairs.columns]
    for i, row in enumerate(pairs.rows):
        by_key = dict(zip(keys, row, strict=True))
        assert data.improvement[i] == by_key["difference"].values["value"]
        assert data.low[i] == by_key["ci"].values["low"]
        assert data.high[i] == by_key["ci"].values["high"]
        assert data.p[i] == by_key["p_holm"].values["value"]
        assert data.texts[i] == f"{by_key['difference'].text} {by_key['ci'].text}"
    assert data.how == "Holm p"
    assert data.margin is None


def test_the_declared_metric_and_margin_are_those_of_the_forest(bench, reading):
    bench.cohort()
    arms = [bench.arm(name) for name in ("good", "bad")]
    command = bench.ask(*arms, declared={"metric": "rmse", "margin": 0.5})
    for arm, seed in itertools.product(arms, range(3)):
        bench.run(command, arm, 48, seed, error=4.0 + (arm is arms[1]))
    store = reading()
    data = gathered(store, "forest")
    assert "RMSE (years)" in data.axis
    assert (data.margin, data.how) == (0.5, "Holm p")
    # The margin is in units of the primary metric.
    assert gathered(store, "forest", metric="mae").margin is None
    with styled():
        (axes, _) = KINDS["forest"].steps.draw(data).axes
    (band,) = axes.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (-0.5, 0.5)


def test_a_family_declared_after_the_runs_is_exploratory(bench, reading):
    arms = three(bench)
    bench.ask(*arms, sizes=(24, 48, 96), declared={"metric": "rmse"})
    data = gathered(reading(), "forest")
    assert "RMSE" in data.axis
    assert data.how == "exploratory BH p"


def test_fewer_models_leave_the_p_values_of_the_whole_family(bench, reading):
    three(bench)
    store = reading()
    whole = gathered(store, "forest")
    part = gathered(store, "forest", models=("bad", "good"))
    assert part.labels == ("good vs bad",)
    assert part.p[0] == whole.p[whole.labels.index("good vs bad")]


def test_models_without_a_pair_in_the_family_are_compared_as_exploratory(bench, reading):
    bench.cohort()
    arms = [bench.arm(f"m{i}") for i in range(7)] + [bench.estimator("linear-voxels")]
    bench.grid(arms, sizes=(48,))
    store = reading()
    assert len(gathered(store, "forest").labels) == 7  # each against linear-voxels
    part = gathered(store, "forest", models=("m1", "m3"))
    assert part.labels == ("m1 vs m3",)
    assert part.how == "exploratory BH p"


def test_other_metrics_and_sizes_are_exploratory(bench, reading):
    three(bench)
    store = reading()
    assert gathered(store, "forest", metric="rmse").how == "exploratory BH p"
    assert gathered(store, "forest", size=24).how == "exploratory BH p"
    assert gathered(store, "heatmap").how == "Holm p"


def test_the_heat_map_has_every_pair_once_in_either_triangle(bench, reading):
    three(bench)
    store = reading()
    data, pairs = gathered(store, "heatmap"), gathered(store, "forest")
    below, above = np.tril_indices(3, -1), np.triu_indices(3, 1)
    assert np.isnan(data.effect[above]).all()
    assert np.isnan(data.p[below]).all()
    assert np.isnan(np.diag(data.p)).all()
    for label, improvement, p in zip(pairs.labels, pairs.improvement, pairs.p, strict=True):
        a, b = (data.labels.index(name) for name in label.split(" vs "))
        assert data.effect[b, a] == improvement
        assert data.p[a, b] == p
    assert data.p[above].tolist() == pytest.approx(holm([x.p for x in raw_pairs(store)]).tolist())


def raw_pairs(store):
    source = load_source(store, "heatmap", ("regression",), FigureRequest())
    return [pair.found for pair in source.all_pairs().pairs]


def test_the_heat_map_changes_signs_if_models_are_given_in_another_order(bench, reading):
    three(bench)
    store = reading()
    one = gathered(store, "heatmap", models=("good", "bad"))
    two = gathered(store, "heatmap", models=("bad", "good"))
    assert one.effect[1, 0] == -two.effect[1, 0]
    assert one.p[0, 1] == two.p[0, 1]


def test_predicted_against_true_is_the_mean_and_range_over_seeds(bench, reading):
    arms = three(bench, sizes=(48,))
    data = gathered(reading(), "predicted-true")
    truth = bench.truth["0" * 16]
    stack = np.stack([bench.predict(AGE, truth, 4.0 * 1.25, seed) for seed in range(3)])
    panel = data.panels[0]
    assert panel.label == arms[0].model.name
    np.testing.assert_allclose(data.truth, truth)
    np.testing.assert_allclose(panel.mean, stack.mean(axis=0))
    np.testing.assert_allclose(panel.low, stack.min(axis=0))
    np.testing.assert_allclose(panel.high, stack.max(axis=0))
    assert panel.score.startswith(f"MAE {np.abs(stack - truth).mean():.2f} [")


def test_roc_and_calibration_have_the_scores_of_the_report(bench, reading):
    three(bench, DISEASE, sizes=(48,))
    store = reading()
    report = table(build_report(store, metric="all"), "leaderboard-auc")
    for curve in gathered(store, "roc").curves:
        text = cell(report, curve.label, "n48").text
        assert text.startswith(curve.auc.removeprefix("AUC "))
        # The area of the mean curve is the mean area, up to the steps of the grid.
        area = float(np.trapezoid(curve.curve.tpr, curve.curve.fpr))
        assert area == pytest.approx(cell(report, curve.label, "n48").values["mean"], abs=0.02)
    report = table(build_report(store, metric="all"), "leaderboard-brier")
    for panel in gathered(store, "calibration").panels:
        text = cell(report, panel.label, "n48").text
        assert text.startswith(panel.brier.removeprefix("Brier "))
        assert panel.mean.counts.sum() == 40
        assert len(panel.runs) == 3
        assert len(panel.mean.counts) == 15


def test_one_fit_is_one_curve_without_an_interval(bench, reading):
    bench.cohort(task=DISEASE, n_pool=48)
    arm = bench.estimator("prior", task=DISEASE)
    command = bench.ask(arm, fixed=("prior",), sizes=(48,))
    for seed in range(3):
        bench.run(command, arm, 48, seed, values=np.full(40, 0.5))
    store = reading()
    (curve,) = gathered(store, "roc").curves
    assert curve.auc == "AUC 0.500 [n/a]"
    assert np.isnan(curve.curve.low).all()
    assert len(gathered(store, "calibration").panels[0].runs) == 1


def test_subjects_are_losses_averaged_over_seeds(bench, reading):
    three(bench, sizes=(48,))
    store = reading()
    data = gathered(store, "subjects")
    truth = bench.truth["0" * 16]
    for loss, error in ((data.loss_a, 4.0), (data.loss_b, 5.0)):
        runs = [np.abs(bench.predict(AGE, truth, error * 1.25, s) - truth) for s in range(3)]
        np.testing.assert_allclose(loss, np.mean(runs, axis=0))
    assert (data.a, data.b) == ("good", "fair")
    assert data.better == np.mean(data.loss_a < data.loss_b)
    other = gathered(store, "subjects", models=("fair", "good"))
    assert (other.a, other.b) == ("fair", "good")
    assert other.better == pytest.approx(1 - data.better)


def test_subjects_are_grouped_by_class(bench, reading):
    three(bench, STAGES, sizes=(48,))
    data = gathered(reading(), "subjects")
    assert data.groups == ("CN", "MCI", "AD")
    assert np.bincount(data.group).tolist() == [14, 13, 13]


def test_a_page_shows_fewer_subjects_and_mentions_it(bench, reading):
    bench.cohort(n_test=2000)
    arms = [bench.arm(name) for name in ("good", "fair")]
    bench.grid(arms, sizes=(48,))
    store = reading()
    source = load_source(store, "predicted-true", ("regression",), FigureRequest())
    few = KINDS["predicted-true"].steps.gather(replace(source, max_points=300))
    all_ = KINDS["predicted-true"].steps.gather(source)
    assert len(few.truth) == 150
    assert len(all_.truth) == 2000
    assert [p.score for p in few.panels] == [p.score for p in all_.panels]
    assert "150 of 2000 subjects drawn" in KINDS["predicted-true"].steps.describe(few)
    assert "drawn" not in KINDS["predicted-true"].steps.describe(all_)


def test_spread_evenly_keeps_both_ends_and_no_subject_twice():
    values = np.random.default_rng(0).normal(size=501)
    for most in (2, 7, 100, 500):
        chosen = spread_evenly(values, most)
        assert len(chosen) == len(set(chosen.tolist())) <= most
        assert values[chosen].min() == values.min()
        assert values[chosen].max() == values.max()
    assert spread_evenly(values, None).tolist() == list(range(501))


def test_the_front_has_the_models_that_are_not_dominated():
    rng = np.random.default_rng(3)
    for _ in range(50):
        cost, gain = rng.integers(1, 6, 12).astype(float), rng.integers(0, 6, 12).astype(float)
        cost[rng.integers(12)] = np.nan
        expected = [
            not np.isnan(cost[i])
            and not any(
                cost[j] <= cost[i]
                and gain[j] >= gain[i]
                and (cost[j], gain[j]) != (cost[i], gain[i])
                for j in range(12)
            )
            for i in range(12)
        ]
        assert front(cost, gain).tolist() == expected


def test_pareto_takes_the_costs_of_the_report(bench, reading):
    bench.cohort()
    cheap, dear, poor = (bench.arm(name) for name in ("cheap", "dear", "poor"))
    command = bench.ask(cheap, dear, poor, seeds=(0,))
    costs(bench, command, cheap, 10.0, 0, error=5)
    costs(bench, command, dear, 100.0, 2_000_000, error=3)
    costs(bench, command, poor, 200.0, 4_000_000, error=8)
    data = gathered(reading(), "pareto")
    assert data.labels == ("dear", "cheap", "poor")
    time, parameters = data.costs
    assert time.label == "training time (s)"
    assert time.values.tolist() == [100, 10, 200]
    assert time.front.tolist() == [True, True, False]
    # Zero parameters cannot be shown on a logarithmic axis.
    assert parameters.values.tolist()[::2] == [2, 4]
    assert np.isnan(parameters.values[1])
    assert parameters.front.tolist() == [True, False, False]


def seven_cohorts(bench, names=("a", "b", "c")):
    for k in range(7):
        fingerprint = bench.cohort(name=f"cohort-{k}")
        arms = [bench.arm(name, fingerprint) for name in names]
        bench.grid(arms, sizes=(48,), seeds=range(2), errors=[3, 4 + (k == 0), 6])


def test_ranks_are_of_the_means_at_each_cohorts_primary_size(bench, reading):
    seven_cohorts(bench)
    extra = bench.arm("only-here", "0" * 16)
    bench.run(bench.ask(extra, sizes=(48,)), extra, 48, 0)
    data = gathered(reading(), "critical-difference")
    assert data.table.arms == ("a", "b", "c")
    assert data.table.mean_ranks.tolist() == [1, 2, 3]
    assert len(data.table.cohorts) == 7
    assert data.left_out == ("only-here",)
    # By hand: 12 n / (k (k + 1)) (1 + 4 + 9 - k (k + 1)^2 / 4) with n = 7 and k = 3.
    assert data.table.statistic == pytest.approx(14)


def test_a_newer_version_of_a_cohort_is_not_another_cohort(bench, reading):
    for _ in range(6):
        fingerprint = bench.cohort(name="same")
        bench.grid([bench.arm(n, fingerprint) for n in ("a", "b")], sizes=(48,), seeds=(0,))
    with pytest.raises(UserError, match=r"at least 5 cohorts .* has 1 \(same\)"):
        gathered(reading(), "critical-difference")
