"""Tests that were declared before the runs are confirmatory; all others are exploratory."""

import pytest

from bench.report.build import build_report
from bench.report.render.data import to_json
from bench.stats.inference import holm
from bench.store.store import Store
from registry.errors import UserError
from tests.report.conftest import cells, every_word, table


def report(bench, **options):
    store = Store.for_reading(bench.store.database)
    try:
        return build_report(store, **options)
    finally:
        store.close()


def names(found):
    return [each.name for each in found.tables]


def arms(bench, n=3):
    bench.cohort()
    return [bench.arm(name) for name in ("good", "fair", "bad", *"abcdefg")[:n]]


def test_without_a_declaration_the_family_follows_the_default_rule(bench):
    bench.grid(arms(bench))
    found = report(bench)
    pairs = table(found, "pairs-primary")
    assert pairs.title.startswith("Primary family: differences in MAE (years) at n=48")
    assert len(pairs.rows) == 3
    assert "default rule, none was declared" in every_word(found)


def test_a_declared_metric_size_and_reference_define_the_family(bench):
    declared = {"metric": "rmse", "size": 24, "reference": "bad"}
    bench.grid(arms(bench), declared=declared)
    found = report(bench)
    pairs = table(found, "pairs-primary")
    assert pairs.title.startswith("Primary family: differences in RMSE (years) at n=24")
    assert [c.values["b"] for c in cells(pairs, "pair")] == ["bad", "bad"]
    p = [c.values["value"] for c in cells(pairs, "p")]
    assert [c.values["value"] for c in cells(pairs, "p_holm")] == pytest.approx(list(holm(p)))
    assert "declared before the runs: metric rmse, size 24, reference bad" in every_word(found)
    assert "leaderboard-rmse" in names(found)


def test_the_declared_size_all_is_the_whole_pool(bench):
    bench.grid(arms(bench), declared={"size": "all"})
    assert " at n=96 (all)" in table(report(bench), "pairs-primary").title


def test_a_family_declared_after_results_is_exploratory(bench):
    models = arms(bench)
    bench.grid(models)
    bench.ask(*models, sizes=(24, 48, 96), declared={"reference": "bad"})
    found = report(bench)
    assert "pairs-primary" not in names(found)
    pairs = table(found, "pairs-exploratory")
    assert "p_bh" in [column.key for column in pairs.columns]
    assert "declared after 27 of 27 runs had finished" in every_word(found)
    assert "so all tests are exploratory" in every_word(found)


def test_the_same_declaration_again_keeps_its_date(bench):
    models = arms(bench)
    declared = {"reference": "bad", "margin": 1.0}
    bench.grid(models, declared=declared)
    bench.ask(*models, sizes=(24, 48, 96), declared=declared)
    found = report(bench)
    assert len(table(found, "pairs-primary").rows) == 2
    assert "exploratory: its verdicts" not in every_word(found)


def test_a_reference_chosen_for_the_report_is_exploratory(bench):
    bench.grid(arms(bench))
    found = report(bench, reference="good")
    assert "pairs-primary" not in names(found)
    assert "chosen after the runs" in every_word(found)


def test_the_declared_reference_named_again_changes_nothing(bench):
    bench.grid(arms(bench), declared={"reference": "bad"})
    assert to_json(report(bench, reference="bad")) == to_json(report(bench))


def test_a_late_margin_leaves_the_family_and_flags_its_verdicts(bench):
    models = arms(bench)
    bench.grid(models)
    bench.ask(*models, sizes=(24, 48, 96), declared={"margin": 0.5})
    found = report(bench)
    pairs = table(found, "pairs-primary")
    assert len(pairs.rows) == 3
    assert "verdict" in [column.key for column in pairs.columns]
    assert "The margin was set after results were available" in every_word(found)


def test_a_margin_gives_every_pair_a_verdict_by_the_primary_metric_alone(bench):
    bench.grid(arms(bench), errors=(4.0, 4.0, 30.0), declared={"margin": 2.0})
    found = report(bench, metric="all")
    primary = table(found, "pairs-primary")
    assert all(c.text for c in cells(primary, "verdict"))
    exploratory = table(found, "pairs-exploratory")
    said = {
        (metric.values["name"], bool(verdict.text))
        for metric, verdict in zip(
            cells(exploratory, "metric"), cells(exploratory, "verdict"), strict=True
        )
    }
    assert ("mae", True) in said
    assert {(name, filled) for name, filled in said if name != "mae"} == {
        ("rmse", False),
        ("r2", False),
        ("r", False),
    }


def test_many_models_have_a_baseline_as_their_reference_by_rule(bench):
    bench.cohort()
    models = [bench.arm(f"model-{i}") for i in range(7)] + [bench.estimator("linear-voxels")]
    bench.grid(models)
    pairs = table(report(bench), "pairs-primary")
    assert {c.values["b"] for c in cells(pairs, "pair")} == {"linear-voxels"}


def test_a_reference_that_was_not_run_is_refused(bench):
    bench.grid(arms(bench))
    with pytest.raises(UserError, match="was not run, did you mean 'good'"):
        report(bench, reference="goo")


def test_a_declared_reference_without_runs_supports_no_claim(bench):
    models = arms(bench)
    command = bench.ask(*models, bench.arm("absent"), declared={"reference": "absent"})
    for arm in models:
        for seed in range(3):
            bench.run(command, arm, 48, seed)
    pairs = table(report(bench), "pairs-primary")
    assert [c.text for c in cells(pairs, "p_holm")] == ["n/a"] * 3
    assert all("B: no finished run" in c.values["words"] for c in cells(pairs, "flags"))
