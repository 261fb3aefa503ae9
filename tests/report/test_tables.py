import numpy as np
import pytest

from bench.report.build import build_report
from bench.spec import Component
from bench.stats.inference import benjamini_hochberg, compare, holm
from bench.stats.measured import RunPredictions, measure_runs
from bench.store.store import Store
from registry.errors import UserError
from tests.report.conftest import AGE, DISEASE, STAGES, cell, cells, every_word, table


def report(bench, **options):
    """Build the report as `bench report` does, from a database that is open for reading."""
    store = Store.for_reading(bench.store.database)
    try:
        return build_report(store, **options)
    finally:
        store.close()


def three(bench):
    bench.cohort()
    arms = [bench.arm(name) for name in ("good", "fair", "bad")]
    bench.grid(arms)
    return arms


def direct(bench, arm, size, error, seeds=range(3), metric="mae"):
    """Measure an arm from its predictions, without the database."""
    truth = bench.truth[arm.fingerprint]
    stack = np.stack([bench.predict(arm.task, truth, error * (1 + 12 / size), s) for s in seeds])
    return measure_runs(metric, truth, RunPredictions(stack, tuple(seeds)))


# ------------------------------------------------------------------ leaderboard


def test_a_cell_is_the_mean_over_seeds_with_its_t_interval_and_n(bench):
    arm = three(bench)[0]
    found = cell(table(report(bench), "leaderboard-mae"), "good", "n48")
    values = direct(bench, arm, 48, 4.0).values
    half = 4.302652729911275 * values.std(ddof=1) / np.sqrt(3)  # t quantile of 2 df
    assert found.values["mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert found.values["low"] == pytest.approx(values.mean() - half, rel=1e-9)
    assert found.values["n_seeds"] == 3
    mean, low, high = (found.values[key] for key in ("mean", "low", "high"))
    assert found.text == f"{mean:.2f} [{low:.2f}, {high:.2f}] n=3"


def test_the_best_of_every_size_is_bold_and_nothing_else(bench):
    three(bench)
    board = table(report(bench), "leaderboard-mae")
    assert [row[0].text for row in board.rows] == ["good", "fair", "bad"]
    for size in (24, 48, 96):
        assert [c.bold for c in cells(board, f"n{size}")] == [True, False, False]


def test_the_direction_of_a_metric_decides_what_is_best(bench):
    three(bench)
    found = report(bench, metric="all")
    for metric in ("mae", "rmse", "r2", "r"):
        assert cell(table(found, f"leaderboard-{metric}"), "good", "n48").bold
        assert cell(table(found, "metrics"), "good", metric).bold


def test_a_failed_run_is_shown_and_its_cell_is_never_the_best(bench):
    bench.cohort()
    good, bad = bench.arm("good"), bench.arm("bad")
    command = bench.ask(good, bad)
    for seed in range(3):
        bench.run(command, bad, 48, seed, error=9)
        if seed == 1:
            bench.run(command, good, 48, seed, failed="the loss is NaN\nat epoch 3")
        else:
            bench.run(command, good, 48, seed, error=4)
    found = report(bench)
    board = table(found, "leaderboard-mae")
    assert cell(board, "good", "n48").text.endswith("n=2 (1 of 3 failed)")
    assert not cell(board, "good", "n48").bold
    assert cell(board, "bad", "n48").bold
    failures = table(found, "failures")
    assert [c.text for c in failures.rows[0]][:5] == [
        "good",
        "48",
        "1",
        "failed",
        "the loss is NaN at epoch 3",
    ]
    words = cells(table(found, "pairs-primary"), "flags")[0].values["words"]
    assert "1 of 3 runs failed" in words
    assert "seeds dropped: 1" in words


def test_a_cell_with_failed_runs_only_has_no_number(bench):
    bench.cohort()
    good, bad = bench.arm("good"), bench.arm("bad")
    command = bench.ask(good, bad)
    for seed in range(3):
        bench.run(command, good, 48, seed)
        bench.run(command, bad, 48, seed, failed="diverged")
    found = report(bench)
    assert cell(table(found, "leaderboard-mae"), "bad", "n48").text == "3 of 3 failed"
    pair = table(found, "pairs-primary")
    assert [c.text for c in cells(pair, "p")] == ["n/a"]
    assert "B: no finished run" in cells(pair, "flags")[0].values["words"]


def test_if_all_runs_failed_the_report_lists_the_failures(bench):
    bench.cohort()
    arms = [bench.arm("a"), bench.arm("b")]
    command = bench.ask(*arms, seeds=[0])
    for arm in arms:
        bench.run(command, arm, 48, 0, failed="out of memory")
    found = report(bench)
    assert [c.text for c in cells(table(found, "leaderboard-mae"), "n48")] == ["1 of 1 failed"] * 2
    assert [c.text for c in cells(table(found, "failures"), "error")] == ["out of memory"] * 2
    assert "40 test subjects" in every_word(found)


def test_a_missing_cell_is_shown_missing(bench):
    bench.cohort()
    one, two = bench.arm("one"), bench.arm("two")
    command = bench.ask(one, two, sizes=(24, 48))
    for seed in range(3):
        bench.run(command, one, 24, seed)
        bench.run(command, one, 48, seed)
    for seed in range(2):
        bench.run(command, two, 24, seed)
    board = table(report(bench), "leaderboard-mae")
    assert cell(board, "two", "n48").text == "missing"
    assert cell(board, "two", "n24").text.endswith("n=2 (1 of 3 missing)")


def test_a_killed_run_is_listed_with_the_last_line_of_its_log(bench):
    bench.cohort()
    one = bench.arm("one")
    command = bench.ask(one)
    spec = bench.run(command, one, 48, 0)
    missing = type(spec)(one, 48, 1, None)
    bench.kill(missing.key, log="epoch 1\nOut of memory\n")
    row = table(report(bench), "failures").rows[0]
    assert [c.text for c in row] == ["one", "48", "1", "killed", "signal 9", "Out of memory"]


def test_a_deterministic_arm_on_the_whole_pool_is_one_fit_without_interval(bench):
    bench.cohort()
    net, linear = bench.arm("net"), bench.estimator("linear-voxels")
    command = bench.ask(net, linear, sizes=(48, 96), fixed=("linear-voxels",))
    same = bench.predict(AGE, bench.truth["0" * 16], 6, 0)
    for seed in range(3):
        bench.run(command, net, 48, seed)
        bench.run(command, net, 96, seed)
        bench.run(command, linear, 48, seed, error=6)
        bench.run(command, linear, 96, seed, values=same)
    found = report(bench)
    board = table(found, "leaderboard-mae")
    whole = cell(board, "linear-voxels", "n96")
    assert whole.text == f"{whole.values['mean']:.2f} 1 fit"
    assert np.isnan(whole.values["low"])
    assert whole.values["n_fits"] == 1
    assert "n=3" in cell(board, "linear-voxels", "n48").text
    exploratory = table(found, "pairs-exploratory")
    assert "B is 1 fit" in cells(exploratory, "flags")[0].values["words"]
    assert "checkpoint" not in every_word(found)


def test_an_undefined_metric_is_reported_and_not_averaged(bench):
    bench.cohort()
    prior = bench.estimator("prior")
    net = bench.arm("net")
    command = bench.ask(prior, net, fixed=("prior",))
    for seed in range(3):
        bench.run(command, prior, 48, seed, values=np.full(40, 65.0 + seed))
        bench.run(command, net, 48, seed)
    found = report(bench, metric="r")
    assert cell(table(found, "leaderboard-r"), "prior", "n48").text == "undefined"
    assert "Pearson r is undefined for some runs: the prediction is constant." in every_word(found)


def test_one_model_still_has_a_report(bench):
    bench.cohort()
    bench.grid([bench.arm("alone")])
    found = report(bench)
    (section,) = found.sections
    assert [each.name for each in section.tables] == ["leaderboard-mae", "metrics", "gap", "flow"]
    assert not any(c.bold for c in cells(found.tables[0], "n48"))


# ------------------------------------------------------------------ pairs


def test_a_pair_has_the_numbers_of_the_headline_test(bench):
    good, _, bad = three(bench)
    pairs = table(report(bench), "pairs-primary")
    names = [c.text for c in cells(pairs, "pair")]
    assert names == ["good vs fair", "good vs bad", "fair vs bad"]
    truth = compare(direct(bench, good, 48, 4.0), direct(bench, bad, 48, 6.0))
    row = dict(zip([c.key for c in pairs.columns], pairs.rows[1], strict=True))
    assert row["difference"].values["value"] == pytest.approx(truth.improvement, rel=1e-12)
    assert row["difference"].values["value"] > 0
    assert row["ci"].values["low"] == pytest.approx(-truth.high, rel=1e-12)
    assert row["ci"].values["high"] == pytest.approx(-truth.low, rel=1e-12)
    assert row["t"].values["value"] == pytest.approx(-truth.t, rel=1e-12)
    assert row["t"].values["df"] == pytest.approx(truth.df, rel=1e-12)
    assert row["p"].values["value"] == pytest.approx(truth.p, rel=1e-12)
    assert row["d_z"].values["value"] == pytest.approx(-truth.d_z, rel=1e-12)
    assert row["p_superior"].values["value"] == 1.0
    assert row["n"].text == "3 x 40"


def test_holm_covers_the_primary_family_only_and_the_rest_is_exploratory(bench):
    three(bench)
    found = report(bench)
    primary, rest = table(found, "pairs-primary"), table(found, "pairs-exploratory")
    p = [c.values["value"] for c in cells(primary, "p")]
    assert len(p) == 3
    adjusted = [c.values["value"] for c in cells(primary, "p_holm")]
    assert adjusted == pytest.approx(holm(p), rel=1e-12)
    assert rest.title.startswith("Exploratory")
    assert {c.values["value"] for c in cells(rest, "n_train")} == {24, 96}
    p = [c.values["value"] for c in cells(rest, "p")]
    assert len(p) == 6
    adjusted = [c.values["value"] for c in cells(rest, "p_bh")]
    assert adjusted == pytest.approx(benjamini_hochberg(p), rel=1e-12)


def test_with_all_metrics_the_family_stays_the_primary_metric(bench):
    three(bench)
    found = report(bench, metric="all")
    assert "MAE (years) at n=48" in table(found, "pairs-primary").title
    rest = table(found, "pairs-exploratory")
    keys = list(
        zip(
            [c.values["name"] for c in cells(rest, "metric")],
            [c.values["value"] for c in cells(rest, "n_train")],
            strict=True,
        )
    )
    assert ("mae", 48) not in keys
    assert len(keys) == 3 * (4 * 3 - 1)


def test_another_metric_alone_is_exploratory_at_every_size(bench):
    three(bench)
    found = report(bench, metric="rmse")
    names = [each.name for each in found.tables]
    assert "pairs-primary" not in names
    assert {c.values["value"] for c in cells(table(found, "pairs-exploratory"), "n_train")} == {
        24,
        48,
        96,
    }


@pytest.mark.parametrize(
    ("sizes", "primary", "conditional"),
    [((24, 48, 96), 48, False), ((24, 96), 24, False), ((96,), 96, True), ((60, 96), 96, True)],
)
def test_the_primary_size_is_the_largest_declared_one_up_to_half_the_pool(
    bench, sizes, primary, conditional
):
    bench.cohort(n_pool=96)
    bench.grid([bench.arm("a"), bench.arm("b")], sizes=sizes)
    found = report(bench)
    title = table(found, "pairs-primary").title
    assert f"n={primary}" in title
    assert ("conditional on this training set" in title) is conditional
    titles = [c.title for c in table(found, "leaderboard-mae").columns]
    assert [t.endswith("†") for t in titles[1:]] == [size > 48 for size in sizes]


def test_the_primary_size_is_that_of_the_latest_command(bench):
    bench.cohort()
    arms = [bench.arm("a"), bench.arm("b")]
    bench.grid(arms, sizes=(24, 48))
    bench.grid(arms, sizes=(24,))
    assert "n=24" in table(report(bench), "pairs-primary").title


def test_p_is_never_printed_as_zero(bench):
    bench.cohort(n_test=400)
    arms = [bench.arm("a"), bench.arm("b")]
    bench.grid(arms, errors=(0.5, 30.0), seeds=range(8))
    found = cells(table(report(bench), "pairs-primary"), "p")[0]
    assert 0 < found.values["value"] < 0.001
    assert found.text == "< 0.001"


def test_one_seed_gives_no_claim_and_no_zero(bench):
    bench.cohort()
    bench.grid([bench.arm("a"), bench.arm("b")], seeds=[0])
    found = report(bench)
    pairs = table(found, "pairs-primary")
    for key in ("ci", "t", "p", "p_holm", "d_z", "p_superior"):
        assert "n/a" in cells(pairs, key)[0].text, key
    assert "one seed" in cells(pairs, "flags")[0].values["words"]
    assert "[n/a] n=1" in cells(table(found, "leaderboard-mae"), "n48")[0].text


def test_unequal_seeds_are_joined_on_the_seed_and_the_dropped_ones_named(bench):
    bench.cohort()
    a, b = bench.arm("a"), bench.arm("b")
    command = bench.ask(a, b, seeds=range(4))
    for seed in range(4):
        bench.run(command, a, 48, seed, error=4)
    for seed in (1, 2, 3):
        bench.run(command, b, 48, seed, error=5)
    pairs = table(report(bench), "pairs-primary")
    assert cells(pairs, "n")[0].text == "3 x 40"
    assert "seeds dropped: 0" in cells(pairs, "flags")[0].values["words"]
    truth = bench.truth["0" * 16]
    stacks = [
        np.stack([bench.predict(AGE, truth, error, seed) for seed in (1, 2, 3)]) for error in (4, 5)
    ]
    one, two = (measure_runs("mae", truth, RunPredictions(stack, (1, 2, 3))) for stack in stacks)
    assert cells(pairs, "p")[0].values["value"] == pytest.approx(compare(one, two).p, rel=1e-12)


def test_few_subjects_bring_a_second_p(bench):
    bench.cohort(n_test=20)
    bench.grid([bench.arm("a"), bench.arm("b")])
    pairs = table(report(bench), "pairs-primary")
    interval = cells(pairs, "ci")[0].values
    assert interval["few_p"] >= cells(pairs, "p")[0].values["value"]
    assert f"({interval['few_p']:.3f})" in cells(pairs, "p")[0].text
    assert any(
        "few subjects: the second df and the p in parentheses" in note for note in pairs.notes
    )


def test_rank_tests_that_cannot_reject_are_marked(bench):
    three(bench)
    seeds = table(report(bench), "pairs-seeds")
    for found in cells(seeds, "p_sign_flip"):
        assert found.values["floor"] == 0.25
        assert found.text.endswith("cannot be significant with this n")
    assert "take the test set as fixed" in seeds.notes[0]


def test_from_eight_models_on_a_baseline_is_the_reference(bench):
    bench.cohort()
    arms = [bench.arm(f"net{i}") for i in range(6)]
    arms += [bench.estimator("prior"), bench.estimator("linear-voxels")]
    bench.grid(arms, sizes=(48,), seeds=range(2))
    pairs = table(report(bench), "pairs-primary")
    assert {c.values["b"] for c in cells(pairs, "pair")} == {"linear-voxels"}
    assert len(pairs.rows) == 7
    pairs = table(report(bench, reference="prior"), "pairs-exploratory")
    assert {c.values["b"] for c in cells(pairs, "pair")} == {"prior"}


def test_below_eight_models_all_pairs_are_compared_unless_a_reference_is_named(bench):
    three(bench)
    assert len(table(report(bench), "pairs-primary").rows) == 3
    pairs = table(report(bench, reference="fair"), "pairs-exploratory")
    assert [c.text for c in cells(pairs, "pair")] == ["good vs fair", "bad vs fair"] * 3
    assert [c.text for c in cells(pairs, "n_train")] == ["48", "48", "24", "24", "96", "96"]
    assert cells(pairs, "difference")[1].values["value"] < 0


# ------------------------------------------------------------------ classes


def test_two_classes_are_compared_by_auc(bench):
    bench.cohort("ad", DISEASE, n_test=60)
    arms = [bench.arm(name, task=DISEASE) for name in ("good", "bad")]
    bench.grid(arms, errors=(2.0, 6.0))
    found = report(bench, metric="all")
    truth = compare(
        direct(bench, arms[0], 48, 2.0, metric="auc"), direct(bench, arms[1], 48, 6.0, metric="auc")
    )
    pairs = table(found, "pairs-primary")
    assert "AUC at n=48" in pairs.title
    assert cells(pairs, "difference")[0].values["value"] == pytest.approx(truth.difference)
    assert cells(pairs, "p")[0].values["value"] == pytest.approx(truth.p, rel=1e-12)
    for metric in ("sensitivity", "specificity"):
        assert not any(c.bold for c in cells(table(found, f"leaderboard-{metric}"), "n48"))
    assert "AD (positive class) vs. CN" in every_word(found)


def test_more_classes_are_compared_by_balanced_accuracy_and_one_vs_rest_is_never_tested(bench):
    bench.cohort("stages", STAGES, n_test=60)
    arms = [bench.arm(name, task=STAGES) for name in ("good", "bad")]
    bench.grid(arms, errors=(1.0, 4.0))
    found = report(bench, metric="all")
    assert "Balanced accuracy at n=48" in table(found, "pairs-primary").title
    tested = {c.values["name"] for c in cells(table(found, "pairs-exploratory"), "metric")}
    assert tested == {"balanced_accuracy", "accuracy", "log_loss"}
    titles = [c.title for c in table(found, "metrics").columns]
    assert "AUC, MCI vs. rest" in titles


# ------------------------------------------------------------------ words


def tuned(bench, name, mode):
    return bench.arm(name, space={"lr": {"kind": "float"}}, trials=20, tune=mode)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("shared", "with these tuned settings; the variance due to tuning is not included"),
        ("per-seed", "with tuning as part of each architecture"),
        (None, "with the published settings"),
    ],
)
def test_the_claim_depends_on_how_models_were_tuned(bench, mode, words):
    bench.cohort()
    make = tuned if mode else (lambda bench, name, _: bench.arm(name))
    bench.grid([make(bench, name, mode) for name in ("a", "b")])
    (section,) = report(bench).sections
    assert any(words in line for line in section.caption)
    assert any(words in line for line in section.methods)
    pairs = next(each for each in section.tables if each.name == "pairs-primary")
    assert all(words in c.values["words"] for c in cells(pairs, "flags"))


def test_settings_of_a_known_model_that_are_not_the_published_ones_are_named(bench):
    bench.cohort()
    from registry.models import MODELS, model_options

    card = next(card for card in MODELS if card.name == "cnn3d")
    published = {n: card.defaults.get(n, o.default) for n, o in model_options(card).items()}
    bench.grid([bench.arm("cnn3d", params={**published, "epochs": 2})], sizes=(48,))
    words = every_word(report(bench))
    assert "with the published settings except epochs=2" in words
    assert "too short to rank models" in words


def test_notes_mention_excluded_runs_and_settings(bench):
    bench.cohort("mine", settings={"space": "native"})
    arm = bench.arm("a", params={"val_size": "full", "epochs": 20, "length": "steps"})
    command = bench.ask(arm, dropped=[("mine", "net with tiny", "it has no weights")])
    bench.run(command, arm, 48, 0)
    found = report(bench)
    words = every_word(found)
    flow = next(table for table in found.tables if table.name == "flow")
    assert ["no age", "3"] in [[cell.text for cell in row] for row in flow.rows]
    assert "net with tiny (it has no weights)" in words
    assert "space=native" in words
    assert "val_size=full" in words
    assert "the same number of optimiser steps" in words
    assert "96 training, 32 validation and 40 test subjects" in words
    assert "fp32" in words


# ------------------------------------------------------------------ refusals


def test_an_unknown_metric_is_refused_with_a_suggestion_and_the_list(bench):
    three(bench)
    with pytest.raises(UserError, match=r"did you mean 'rmse'.*mae, rmse, r2, r"):
        report(bench, metric="rsme")


def test_a_reference_that_was_not_run_is_refused_with_the_list(bench):
    three(bench)
    with pytest.raises(UserError, match=r"was not run, did you mean 'good'.*'bad', 'fair', 'good'"):
        report(bench, reference="goood")


def test_a_reference_that_matches_two_rows_must_be_given_in_full(bench):
    bench.cohort()
    arms = [
        bench.arm("net", encoder=Component(name, 1)) for name in ("resnet18", "efficientnet-lite0")
    ]
    bench.grid(arms, sizes=(48,))
    with pytest.raises(UserError, match=r"matches 2 rows; choose one of .*'net \[resnet18\]'"):
        report(bench, reference="net")
    pairs = table(report(bench, reference="net [resnet18]"), "pairs-exploratory")
    assert cells(pairs, "pair")[0].values["b"] == "net [resnet18]"


def test_an_empty_database_is_refused_in_one_sentence(bench):
    with pytest.raises(UserError, match="does not contain any runs"):
        report(bench)
    bench.cohort()
    bench.ask(bench.arm("a"))
    with pytest.raises(UserError, match=r"No run in .* has finished"):
        report(bench)


def test_runs_on_different_test_subjects_are_never_compared(bench):
    three(bench)
    with bench.store.engine.begin() as connection:
        subjects = np.arange(101, 141, dtype="<i4").tobytes()
        connection.exec_driver_sql(
            "UPDATE bench_predictions SET subjects = ? WHERE rowid = 1", (subjects,)
        )
    with pytest.raises(UserError, match="different subjects"):
        report(bench)


def test_a_database_without_the_truth_cannot_be_tested(bench):
    three(bench)
    with bench.store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM bench_subjects")
    with pytest.raises(UserError, match="true values of 40 test subjects"):
        report(bench)


def test_truth_is_looked_up_by_subject_and_not_by_position(bench):
    bench.cohort()
    arm, other = bench.arm("a"), bench.arm("b")
    bench.grid([arm, other], sizes=(48,))
    before = table(report(bench), "pairs-primary")
    # Store the same rows in another order.
    with bench.store.engine.begin() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM bench_subjects").fetchall()
        connection.exec_driver_sql("DELETE FROM bench_subjects")
        for row in reversed(rows):
            connection.exec_driver_sql(
                f"INSERT INTO bench_subjects VALUES ({','.join('?' * len(row))})", tuple(row)
            )
    assert table(report(bench), "pairs-primary") == before


def test_an_interval_over_seeds_ends_at_the_bounds_of_its_metric(bench):
    bench.cohort("ad", DISEASE, n_test=40)
    arm = bench.arm("net", task=DISEASE)
    command = bench.ask(arm, seeds=range(2))
    truth = bench.truth[arm.fingerprint]
    bench.run(command, arm, 48, 0, values=0.1 + 0.8 * truth)
    bench.run(command, arm, 48, 1, values=np.roll(0.1 + 0.8 * truth, 1))
    found = cell(table(report(bench), "leaderboard-auc"), "net", "n48")
    assert found.text == "0.500 [0.000, 1.000] n=2"
