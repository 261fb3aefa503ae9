import contextlib
import dataclasses
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.execute.lock import driver_lock
from bench.store import schema
from bench.store.merge import merge
from bench.store.store import Attempt, Predictions, Store
from registry.errors import UserError
from tests.store.conftest import make_arm, make_study, make_trial

ROOT = Path(__file__).parents[2]


def content(file):
    """Return the rows of our tables."""
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return {
            name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
            for name in schema.metadata.tables
        }


def bench(*words):
    """Run the command in this process, and return its exit code and output."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, UserError):
        return 2, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def command(store, *arms, words=("bench", "run")):
    return store.add_command(words, [(a, False) for a in arms], sizes={}, seeds=[0], dropped=[])


@pytest.fixture
def other(store, tmp_path):
    """A second database with the same cohort, without trials."""
    store.close(leave_wal=True)
    file = tmp_path / "other.db"
    shutil.copy(store.database, file)
    found = Store.for_writing(file)
    yield found
    found.close()


def test_the_shipped_example_merged_with_a_copy_does_not_change(tmp_path):
    file, copy = tmp_path / "results.db", tmp_path / "copy.db"
    for each in (file, copy):
        shutil.copy(ROOT / "results.db", each)
    before = content(file)
    assert bench("merge", copy, "--db", file) == (
        0,
        f"{copy}: 0 trials and 0 studies added.\n",
    )
    assert content(file) == before
    assert copy.read_bytes() == (ROOT / "results.db").read_bytes()


def test_a_new_database_from_two_parts_reports_what_the_whole_reports(tmp_path):
    from bench.report.build import build_report
    from bench.report.render import render

    reports = []
    for number in (0, 1):
        part = tmp_path / f"part{number}.db"
        shutil.copy(ROOT / "results.db", part)
        with contextlib.closing(sqlite3.connect(part)) as connection:
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("DELETE FROM bench_trials WHERE seed % 2 = ?", (number,))
            connection.commit()
    (tmp_path / "all").mkdir()
    whole = tmp_path / "all" / "results.db"
    words = ["merge", tmp_path / "part0.db", tmp_path / "part1.db", "--db", whole]
    code, output = bench(*words)
    assert (code, output.count("trials and 0 studies added")) == (0, 2)
    assert content(whole) == content(ROOT / "results.db")
    for file in (whole, ROOT / "results.db"):
        store = Store.for_reading(file)
        reports.append(render(build_report(store), "markdown"))
        store.close()
    assert reports[0] == reports[1]
    assert bench(*words)[1].count(": 0 trials and 0 studies added") == 2
    assert bench("db", "check", "--db", whole)[0] == 0


def test_everything_of_a_trial_is_added_once(store, other):
    arm, tuned = make_arm(), make_arm("n", trials=2)
    command(store, arm, words=["bench", "first"])
    number = command(other, arm, tuned, words=["bench", "second"])
    study = make_study(tuned)
    other.add_study(study)
    trials = [make_trial(arm), make_trial(tuned, study=study.spec.key)]
    for trial in trials:
        other.add_trial(trial, number)
    now = trial_time = make_attempt(trials[0].spec.key)
    other.add_attempt(now)
    result = merge(store, other)
    assert (result.trials, result.studies, result.conflicts) == (2, [study.spec.key], [])
    for table, rows in {
        schema.arms: 2,
        schema.commands: 2,
        schema.studies: 1,
        schema.tuning_trials: 2,
        schema.trials: 2,
        schema.metrics: 4,
        schema.predictions: 2,
        schema.history: 2,
        schema.environments: 1,
        schema.attempts: 1,
    }.items():
        assert len(store.frame(table)) == rows, table.name
    argv = dict(store.frame(schema.commands)[["id", "argv"]].values.tolist())
    assert [argv[each] for each in store.frame(schema.trials)["command"]] == [
        ["bench", "second"]
    ] * 2
    assert trial_time.id in store.frame(schema.attempts)["id"].tolist()
    before = content(store.database)
    assert merge(store, other).trials == 0
    assert content(store.database) == before


def make_attempt(unit, state="killed"):
    from datetime import UTC, datetime

    now = datetime(2026, 1, 2, tzinfo=UTC)
    return Attempt(f"attempt-{unit}", unit, "trial", state, now, now)


def changed(trial, **changes):
    return dataclasses.replace(trial, **changes)


OTHER_RESULTS = {
    "settings": lambda trial: changed(trial, params={"lr": 0.2}),
    "predictions": lambda trial: changed(
        trial,
        predictions={
            "test": Predictions(
                trial.predictions["test"].subjects,
                np.nextafter(trial.predictions["test"].values, 99),
            )
        },
    ),
    "metrics": lambda trial: changed(trial, metrics={("test", "mae"): (0.5, "")}),
    "history": lambda trial: changed(trial, history=[{**trial.history[0], "train_loss": 0.5}]),
}


@pytest.mark.parametrize("what", OTHER_RESULTS)
def test_one_key_with_different_results_is_a_conflict(store, other, what):
    arm = make_arm()
    trial = make_trial(arm)
    store.add_trial(trial, command(store, arm))
    number = command(other, arm)
    other.add_trial(OTHER_RESULTS[what](trial), number)
    other.add_trial(make_trial(arm, seed=1), number)
    other.add_attempt(make_attempt(trial.spec.key))
    before = content(store.database)
    for each in (store, other):
        each.close(leave_wal=True)
    code, output = bench("merge", other.database, "--db", store.database)
    assert code == 1
    assert f"conflict: The trial {trial.spec.key} (m, n=4, seed 0) has other {what}" in output
    assert "1 trial and 0 studies added" in output
    after = content(store.database)
    for table in ("bench_trials", "bench_metrics", "bench_predictions", "bench_history"):
        assert set(before[table]) <= set(after[table])
    assert after["bench_attempts"] == []
    assert len(after["bench_trials"]) == 2


def test_durations_machines_and_additional_metrics_are_no_conflict(store, other):
    arm = make_arm()
    trial = make_trial(arm)
    store.add_trial(trial, command(store, arm))
    more = {**trial.metrics, ("test", "rmse"): (0.4, "")}
    history = [{**trial.history[0], "seconds": 9.0}]
    elsewhere = {"host": "elsewhere", "threads": 2}
    theirs = changed(trial, seconds=9.0, environment=elsewhere, metrics=more, history=history)
    other.add_trial(theirs, command(other, arm))
    assert merge(store, other).conflicts == []
    assert len(store.frame(schema.metrics)) == 2


def test_a_study_with_other_results_is_a_conflict_of_its_trials_too(store, other):
    arm = make_arm(trials=2)
    for each, best in ((store, {"lr": 0.1}), (other, {"lr": 0.5})):
        number = command(each, arm)
        each.add_study(make_study(arm, best=best))
        seed = 0 if each is store else 1
        each.add_trial(make_trial(arm, seed, lr=best["lr"], study=make_study(arm).spec.key), number)
    before = content(store.database)
    result = merge(store, other)
    assert result.trials == 0
    (conflict,) = result.conflicts
    assert f"The study {make_study(arm).spec.key} (m, n=4, all seeds) has other results" in conflict
    after = content(store.database)
    for table in ("bench_studies", "bench_tuning_trials", "bench_trials", "bench_predictions"):
        assert after[table] == before[table]


def test_finished_results_replace_failed_ones_and_never_the_other_way(store, other):
    arm = make_arm(trials=2)
    key = make_study(arm).spec.key
    numbers = [command(each, arm) for each in (store, other)]
    done, failed = (
        [
            make_trial(arm, seed, state, study=key, error="" if state == "done" else "diverged")
            for seed in (0, 1)
        ]
        for state in ("done", "failed")
    )
    store.add_study(dataclasses.replace(make_study(arm, state="failed"), best=None))
    other.add_study(make_study(arm))
    store.add_trial(failed[0], numbers[0])
    other.add_trial(done[0], numbers[1])
    other.add_trial(failed[1], numbers[1])
    result = merge(store, other)
    assert (result.trials, result.studies, result.conflicts) == (2, [key], [])
    assert sorted(store.frame(schema.trials)["state"]) == ["done", "failed"]
    assert store.best_params(key) == {"lr": 0.1}
    assert len(store.frame(schema.tuning_trials)) == 2
    store.add_trial(done[1], numbers[0])
    before = content(store.database)
    assert merge(store, other).trials == 0
    assert content(store.database) == before


def test_a_cohort_that_differs_is_a_conflict(store, other):
    arm = make_arm()
    command(store, arm)
    other.add_trial(make_trial(arm), command(other, arm))
    with other.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE bench_subjects SET truth = 50 WHERE subject = 0")
    (conflict,) = merge(store, other).conflicts
    assert "The cohort cohort (ffffffffffffffff) differs" in conflict
    assert store.frame(schema.trials).empty


def test_an_older_command_does_not_become_the_latest(store, other):
    from bench.report.select import select_protocols

    arm = make_arm()
    other.add_trial(make_trial(arm), command(other, arm, words=["bench", "older"]))
    store.add_trial(make_trial(arm, 1), command(store, arm, words=["bench", "newer"]))
    merge(store, other)
    assert store.frame(schema.commands)["argv"].tolist()[-1] == ["bench", "older"]
    (protocol,) = select_protocols(store, {}).protocols
    assert protocol.command["argv"] == ["bench", "newer"]


def test_a_merge_that_fails_changes_nothing(store, other):
    arm = make_arm()
    command(store, arm)
    other.add_trial(make_trial(arm), command(other, arm))
    with contextlib.closing(sqlite3.connect(other.database)) as connection:
        connection.execute("UPDATE bench_trials SET arm = 'nowhere', study = 'lost'")
        connection.execute("UPDATE bench_arms SET key = 'nowhere'")
        connection.commit()
    for each in (store, other):
        each.close(leave_wal=True)
    before = content(store.database)
    code, output = bench("merge", other.database, "--db", store.database)
    assert (code, "FOREIGN KEY" in output) == (2, True)
    assert content(store.database) == before


def test_what_cannot_be_merged_is_one_sentence_and_nothing_is_written(tmp_path):
    good, older = tmp_path / "good.db", tmp_path / "older.db"
    shutil.copy(ROOT / "results.db", good)
    shutil.copy(Path(__file__).parent / "released" / "0001.db", older)
    (tmp_path / "text.db").write_text("dear diary, " * 100)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for name, words in {
        "older.db": "schema 0001 of an older version. Upgrade it, or a copy of it",
        "text.db": "is not a database",
        "none.db": "does not exist",
    }.items():
        code, output = bench("merge", good, tmp_path / name, "--db", tmp_path / "new.db")
        assert (code, words in output) == (2, True), output
    code, output = bench("merge", good, "--db", good)
    assert (code, "is both source and target" in output) == (2, True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_merge_waits_for_no_run_and_names_it(tmp_path):
    good = tmp_path / "good.db"
    shutil.copy(ROOT / "results.db", good)
    file = tmp_path / "busy.db"
    with driver_lock(file):
        code, output = bench("merge", good, "--db", file)
    assert (code, f"process {os.getpid()}" in output) == (2, True)
    assert not file.exists()


@pytest.mark.git
def test_results_of_participants_are_not_merged_into_a_tracked_file(store, tmp_path):
    arm = make_arm()
    store.add_trial(make_trial(arm), command(store, arm))
    with store.engine.begin() as connection:
        connection.exec_driver_sql('UPDATE bench_datasets SET settings = \'{"adapter": "adni"}\'')
    store.close(leave_wal=True)
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(ROOT / "results.db", folder / "results.db")
    for words in (["init", "-q"], ["add", "results.db"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    code, output = bench("merge", store.database, "--db", folder / "results.db")
    assert (code, "tracked by git" in output) == (2, True)
