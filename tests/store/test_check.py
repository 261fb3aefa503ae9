import contextlib
import dataclasses
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cli.db import app
from bench.stats.metrics import compute
from bench.store.check import check
from bench.store.store import Store
from tests.store.conftest import make_arm, make_study, make_trial

ROOT = Path(__file__).parents[2]


def checked(file):
    """Check a database, which must not be changed, and return its faults."""
    before = file.read_bytes()
    store = Store.for_reading(file)
    try:
        result = check(store)
    finally:
        store.close()
    assert file.read_bytes() == before
    return result


def with_metrics(trial):
    truth = np.array([60.0, 61.0])
    values = trial.predictions["test"].values[:, 0]
    scores = {name: compute(name, truth, values) for name in ("mae", "r2")}
    metrics = {("test", name): (score.value, score.reason) for name, score in scores.items()}
    return dataclasses.replace(trial, metrics=metrics)


@pytest.fixture
def trial(store):
    """A finished trial of a tuned arm; its database is closed."""
    arm = make_arm(trials=2)
    study = make_study(arm)
    number = store.add_command(["bench"], [(arm, False)], sizes={}, seeds=[0], dropped=[])
    store.add_study(study)
    trial = with_metrics(make_trial(arm, study=study.spec.key))
    store.add_trial(trial, number)
    store.close(leave_wal=True)
    return trial


def test_the_shipped_example_has_no_faults():
    result = checked(ROOT / "results.db")
    assert result.faults == []
    assert (result.trials, result.keys > 80) == (80, True)
    assert result.metrics >= 2 * 9 * 80


def test_a_database_of_an_older_version_has_no_faults_after_its_upgrade(tmp_path):
    for released in sorted((Path(__file__).parent / "released").glob("*.db")):
        file = tmp_path / released.name
        shutil.copy(released, file)
        Store.for_writing(file).close(leave_wal=True)
        assert checked(file).faults == []


def test_a_database_without_faults(store, trial):
    result = checked(store.database)
    assert result.faults == []
    assert (result.trials, result.metrics, result.keys) == (1, 2, 4)


FAULTS = {
    "a metric": (
        "UPDATE bench_metrics SET value = 9 WHERE metric = 'mae'",
        ["mae of trial {key} for its test subjects is stored as 9, but their predictions give 0.3"],
    ),
    "a lost metric": (
        "UPDATE bench_metrics SET value = NULL WHERE metric = 'mae'",
        ["mae of trial {key} for its test subjects is stored as nan"],
    ),
    "a true value": (
        "UPDATE bench_subjects SET truth = 50 WHERE subject = 0",
        ["mae of trial {key}", "r2 of trial {key}"],
    ),
    "a lost subject": (
        "DELETE FROM bench_subjects WHERE subject = 0",
        ["trial {key} for its test subjects include subjects that are not test subjects of"],
    ),
    "a subject of another set": (
        "UPDATE bench_subjects SET side = 'train' WHERE subject = 0",
        ["trial {key} for its test subjects include subjects that are not test subjects of"],
    ),
    "no predictions": (
        "DELETE FROM bench_predictions",
        ["Trial {key} is done, but has no predictions of test subjects."],
    ),
    "a lost prediction": (
        'UPDATE bench_predictions SET "values" = substr("values", 1, 8)',
        ["The predictions of trial {key} for its test subjects are 1 for 2 subjects."],
    ),
    "half a number": (
        'UPDATE bench_predictions SET "values" = substr("values", 1, 13)',
        ["The predictions of trial {key} for its test subjects are damaged."],
    ),
    "a seed": (
        "UPDATE bench_trials SET seed = 7",
        ["The key of trial {key} does not match its specification"],
    ),
    "the size of a study": (
        "UPDATE bench_studies SET n_train = 7",
        ["The key of study {study} does not match its specification"],
    ),
    "a setting": (
        "UPDATE bench_arms SET spec = replace(spec, '0.1', '0.2')",
        [
            "The key of arm {arm} does not match its specification",
            "The key of study {study} does",
            "The key of trial {key} does",
        ],
    ),
    "a model": (
        "UPDATE bench_arms SET model = 'other'",
        ["Model, encoder or cohort of arm {arm} do not match"],
    ),
    "a specification": (
        "UPDATE bench_arms SET spec = '{{}}'",
        ["The specification of arm {arm} cannot be read"],
    ),
    "no JSON": (
        "UPDATE bench_trials SET params = '{{'",
        ["bench_trials contains a value that cannot be read"],
    ),
    "an environment": (
        "UPDATE bench_environments SET content = '{{}}'",
        ["The key of environment {environment} does not match"],
    ),
    "a lost study": (
        "DELETE FROM bench_studies",
        [
            "bench_tuning_trials has 2 rows with study {study}, which is missing in",
            "bench_trials has 1 row with study {study}, which is missing in",
        ],
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_one_sentence(store, trial, kind):
    statement, expected = FAULTS[kind]
    with contextlib.closing(sqlite3.connect(store.database)) as connection:
        environment = connection.execute("SELECT key FROM bench_environments").fetchone()[0]
        connection.execute(statement.replace("{{", "{").replace("}}", "}"))
        connection.commit()
    found = checked(store.database).faults
    keys = {
        "key": trial.spec.key,
        "study": trial.spec.study,
        "arm": trial.spec.arm.key,
        "environment": environment,
    }
    assert len(found) == len(expected), found
    for words in expected:
        assert any(words.format(**keys) in fault for fault in found), (words, found)
    done = CliRunner().invoke(app, ["check", "--db", str(store.database)])
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[:-1] == found
    assert f"{len(found)} fault" in lines[-1]


def test_a_damaged_file_is_reported(tmp_path):
    file = tmp_path / "torn.db"
    shutil.copy(ROOT / "results.db", file)
    with open(file, "r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(b"\xff" * 20_000)
    done = CliRunner().invoke(app, ["check", "--db", str(file)])
    assert done.exit_code == 1, done.output
    assert "SQLite reports" in done.output or "malformed" in done.output


def test_a_missing_index_entry_is_reported(store, trial):
    """Only SQLite's own check can find it."""
    with contextlib.closing(sqlite3.connect(store.database)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(
            "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = "
            "'ix_bench_attempts_unit') WHERE name = 'ix_bench_trials_arm_state'"
        )
        connection.commit()
    assert any("SQLite reports: " in fault for fault in checked(store.database).faults)


def test_a_check_needs_an_existing_database(tmp_path):
    done = CliRunner().invoke(app, ["check", "--db", str(tmp_path / "none.db")])
    assert "does not exist" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_database_without_results_has_no_faults(store):
    store.close(leave_wal=True)
    done = CliRunner().invoke(app, ["check", "--db", str(store.database)])
    assert done.exit_code == 0
    assert "0 faults in 0 finished trials" in done.output
