"""Databases on a PostgreSQL server; tests/store/test_store.py runs on one too."""

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import MetaData, create_engine, event, insert, inspect, select
from typer.testing import CliRunner

from bench.cli import app
from bench.execute.lock import driver_lock
from bench.execute.settings import weights_folder, work_folder
from bench.lock import LockHeld
from bench.store import postgres, schema
from bench.store.database import find_database, name_of
from bench.store.engine import HEAD, VERSION_TABLE
from bench.store.merge import merge
from bench.store.postgres import driver_url, without_password
from bench.store.store import Attempt, Store
from registry.errors import UserError
from tests.store.conftest import PASSWORD, QUOTED, make_arm, make_study, make_trial
from tests.store.test_engine import RELEASED, alembic_config
from tests.store.test_merge import make_attempt

ROOT = Path(__file__).parents[2]


def bench(*words):
    """Run the command in this process, and return its exit code and output."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    output = done.output
    if isinstance(done.exception, UserError):
        output += str(done.exception)
    else:
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    for secret in (PASSWORD, QUOTED):
        assert secret not in output
    return 2 if isinstance(done.exception, UserError) else done.exit_code, output


def rows(database):
    """Return the rows of our tables."""
    store = Store.for_reading(database)
    try:
        with store.snapshot() as connection:
            return {
                table.name: [
                    tuple(row)
                    for row in connection.execute(table.select().order_by(*table.primary_key))
                ]
                for table in schema.metadata.sorted_tables
            }
    finally:
        store.close()


# ------------------------------------------------------------------------ URLs


@pytest.mark.parametrize(
    ("db", "shown", "name"),
    [
        ("postgresql://me@host/grid", "postgresql://me@host/grid", "grid on host"),
        ("postgres://host:5/grid", "postgresql://host:5/grid", "grid on host"),
        ("postgresql+psycopg://me:pw@host/grid", "postgresql://me:***@host/grid", "grid on host"),
        ("postgresql:///grid", "postgresql:///grid", "grid on localhost"),
        ("postgresql://me@host/grid?password=pw", "postgresql://me:***@host/grid", "grid on host"),
        (
            "postgresql:///grid?host=/run&sslmode=require",
            "postgresql:///grid?host=%2Frun&sslmode=require",
            "grid on localhost",
        ),
    ],
)
def test_a_url_names_a_database_and_hides_its_password(db, shown, name):
    database = find_database(db)
    assert (str(database), f"{database}", name_of(database)) == (shown, shown, name)


@pytest.mark.parametrize(
    "db",
    [
        *("postgresql://host", "postgresql://me:pw@host:port/grid", "postgresql://me:p@pw@host/x"),
        "postgresql://",
    ],
)
def test_an_invalid_url_is_a_sentence_without_the_password(db):
    with pytest.raises(UserError, match="not a valid database URL; use postgresql://") as error:
        find_database(db)
    assert "pw" not in str(error.value)


def test_another_server_is_a_sentence():
    with pytest.raises(UserError, match=r"of the kind mysql; use a path, sqlite:///FILE") as error:
        find_database("mysql://me:pw@host/grid")
    assert "pw" not in str(error.value)


def test_passwords_are_removed_from_commands():
    assert without_password("postgresql://me:p@:/w@host/x") == "postgresql://me:***@host/x"
    assert without_password("--db=postgresql://me:pw@host/x") == "--db=postgresql://me:***@host/x"
    assert without_password("postgresql:///x?user=me&password=pw&a=b") == (
        "postgresql:///x?user=me&password=***&a=b"
    )
    for words in ("postgresql://me@host:5432/x", "sqlite:///a.db", "lr=0.1", "a@b:c", "/a:b@c"):
        assert without_password(words) == words


def test_a_server_needs_a_working_directory(tmp_path):
    database = find_database("postgresql://me@host/grid")
    with pytest.raises(UserError, match="--work DIR is required"):
        work_folder(database)
    assert work_folder(database, tmp_path) == tmp_path
    assert weights_folder(database, tmp_path) == tmp_path / "weights"
    assert work_folder(tmp_path / "x.db", tmp_path) == tmp_path
    assert weights_folder(tmp_path / "x.db", tmp_path) == tmp_path / "x.db.weights"
    words = ["--model", "prior", "--data", "synthetic-ad-4mm", "--trials", "0"]
    code, output = bench("run", *words, "--db", "postgresql://me@host/grid")
    assert (code, "--work DIR is required" in output) == (2, True)


# ---------------------------------------------------------------------- errors


def test_what_cannot_be_reached_is_a_sentence(server, server_database):
    refused = f"postgresql://bench:{QUOTED}@127.0.0.1:1/grid"
    for url, reason in {
        server.url("grid", password="wr%40ng"): "password authentication failed for user",
        server.url("none"): 'database "none" does not exist',
        refused: "Connection refused",
        f"postgresql://bench:{QUOTED}@host.invalid/grid": "host.invalid",
    }.items():
        for words in (["status"], ["db", "check"], ["db", "upgrade"]):
            code, output = bench(*words, "--db", url)
            assert code == 2, output
            assert reason in output
            assert "bench:***@" in output
            assert "wr%40ng" not in output
            assert "PGPASSWORD" in output
            assert len(output.strip().splitlines()) == 1


def test_the_password_can_be_given_by_the_environment(server, server_database, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    url = server_database.replace(f":{QUOTED}", "")
    assert bench("db", "upgrade", "--db", url)[0] == 0
    assert bench("db", "check", "--db", url)[0] == 0


def test_an_empty_database_is_a_sentence_and_stays_empty(server_database):
    code, output = bench("status", "--db", server_database)
    assert (code, "is empty" in output) == (2, True)
    engine = create_engine(driver_url(find_database(server_database)))
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def migrate(engine, version):
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), version)


@pytest.mark.parametrize("released", RELEASED)
def test_a_database_of_every_released_schema_is_brought_up_to_date(
    server_database, tmp_path, released
):
    shutil.copy(released, tmp_path / "old.db")
    engines = (
        create_engine(f"sqlite:///{tmp_path / 'old.db'}"),
        create_engine(driver_url(find_database(server_database))),
    )
    migrate(engines[1], released.stem)
    tables = [MetaData(), MetaData()]
    for each, engine in zip(tables, engines, strict=True):
        each.reflect(engine, only=lambda name, _: name in schema.metadata.tables)
    with engines[0].connect() as source, engines[1].begin() as target:
        for table in tables[1].sorted_tables:
            content = [
                {k: v.replace(tzinfo=UTC) if isinstance(v, datetime) else v for k, v in row.items()}
                for row in source.execute(select(tables[0].tables[table.name])).mappings()
            ]
            if content:
                target.execute(insert(table), content)
    for engine in engines:
        engine.dispose()
    reports = []
    for db in (tmp_path / "old.db", server_database):
        assert bench("db", "upgrade", "--db", db)[0] == 0
        code, output = bench("report", "--format", "markdown", "--db", db)
        assert code == 0, output
        reports.append(output.replace("grid on 127.0.0.1", "old.db"))
    assert reports[0] == reports[1]
    # A copy of the upgraded file has the same content as the upgraded server.
    back = tmp_path / "back.db"
    assert bench("db", "copy", back, "--db", server_database)[0] == 0
    assert rows(back) == rows(tmp_path / "old.db") == rows(find_database(server_database))


def test_older_and_newer_schemas_are_sentences(server_database, tmp_path):
    engine = create_engine(driver_url(find_database(server_database)))
    migrate(engine, "0001")
    new = tmp_path / "new.db"
    for words in (["status", "--db", server_database], ["merge", server_database, "--db", new]):
        code, output = bench(*words)
        assert code == 2
        assert "schema 0001 of an older version" in output
        shown = find_database(server_database)._replace(password=None)
        assert f"`bench db upgrade --db {shown}`" in output
    assert not new.exists()
    assert bench("db", "upgrade", "--db", server_database)[0] == 0
    with engine.begin() as connection:
        command.check(alembic_config(connection))
        version = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()
        assert version == HEAD
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    engine.dispose()
    for words in (["status"], ["db", "upgrade"]):
        code, output = bench(*words, "--db", server_database)
        assert (code, "newer version of slicebench (schema 9999)" in output) == (2, True)


def test_a_reader_never_writes(server_database):
    database = find_database(server_database)
    Store.for_writing(database).close()
    store = Store.for_reading(database)
    with pytest.raises(UserError, match="read-only"), store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM bench_commands")
    store.close()


def test_a_missing_library_is_a_sentence(monkeypatch):
    monkeypatch.setattr("bench.store.postgres.find_spec", lambda name: None)
    code, output = bench("status", "--db", f"postgresql://me:{QUOTED}@host/grid")
    assert (code, "pip install 'slicebench[postgres]'" in output) == (2, True)


def test_a_missing_permission_is_a_sentence(server, server_database):
    server.execute("DROP ROLE IF EXISTS guest", f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    guest = server_database.replace("//bench:", "//guest:")
    code, output = bench("db", "upgrade", "--db", guest)
    assert (code, "cannot be written to: permission denied for schema" in output) == (2, True)
    assert bench("db", "upgrade", "--db", server_database)[0] == 0
    code, output = bench("status", "--db", guest)
    assert (code, "cannot be read: permission denied for table" in output) == (2, True)
    assert "Ask the owner of the database for permission" in output


# --------------------------------------------------------------------- locking


def test_a_second_writer_is_refused_and_names_the_first(server, server_database):
    database = find_database(server_database)
    server.execute("DROP DATABASE IF EXISTS elsewhere WITH (FORCE)", "CREATE DATABASE elsewhere")
    with driver_lock(database):
        code, output = bench("db", "upgrade", "--db", server_database)
        assert (code, f"process {os.getpid()} on " in output) == (2, True)
        with driver_lock(find_database(server.url("elsewhere"))):
            pass
    assert bench("db", "upgrade", "--db", server_database)[0] == 0


@contextlib.contextmanager
def other_process(db):
    """A process that holds the lock of a database."""
    holds = """
    import sys, time
    from bench.execute.lock import driver_lock
    from bench.store.database import find_database
    with driver_lock(find_database(sys.argv[1])):
        print("held", flush=True)
        time.sleep(600)
    """
    words = [sys.executable, "-c", textwrap.dedent(holds), db]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def holders(server):
    """Return how many connections hold the lock of a database."""
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    url = server.url("postgres").replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(query).scalar()
    engine.dispose()
    return found


def wait_for(ready):
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_lock_of_a_killed_process_is_released(server_database):
    with other_process(server_database) as process:
        with pytest.raises(UserError, match=f"process {process.pid} on "):
            driver_lock(find_database(server_database)).__enter__()
        process.kill()
    for _ in range(100):
        with contextlib.suppress(UserError), driver_lock(find_database(server_database)):
            return
    pytest.fail("the lock is still held")


def test_a_writer_waits_for_a_server_that_is_restarted(server, server_database, caplog):
    database = find_database(server_database)
    with driver_lock(database):
        store = Store.for_writing(database)
        store.add_attempt(make_attempt("a"))
        server.stop()
        later = threading.Timer(2, server.start)
        later.start()
        try:
            store.add_attempt(make_attempt("b"))
        finally:
            later.join()
        assert set(store.frame(schema.attempts)["unit"]) == {"a", "b"}
        store.close()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_the_lock_is_taken_again_after_a_restart(server, server_database):
    database = find_database(server_database)
    with driver_lock(database):
        store = Store.for_writing(database)
        for unit in "ab":
            server.stop()
            server.start()
            store.add_attempt(make_attempt(unit))
            with pytest.raises(LockHeld, match=f"process {os.getpid()} on "):
                driver_lock(database).__enter__()
        server.stop()
        server.start()
        # Also without any writing.
        wait_for(lambda: holders(server) == 1)
        store.close()
    wait_for(lambda: holders(server) == 0)


def test_a_lock_that_another_process_took_after_a_restart_is_not_taken_away(
    server, server_database, monkeypatch
):
    monkeypatch.setattr(postgres, "TICK", 600)
    database = find_database(server_database)
    with driver_lock(database):
        store = Store.for_writing(database)
        server.stop()
        server.start()
        with other_process(server_database) as process:
            with pytest.raises(LockHeld, match=f"process {process.pid} on "):
                store.add_attempt(make_attempt("a"))
            process.kill()
        wait_for(lambda: holders(server) == 0)
        store.add_attempt(make_attempt("b"))
        assert store.frame(schema.attempts)["unit"].tolist() == ["b"]
        store.close()


def test_a_transaction_that_was_interrupted_by_a_restart_is_repeated(server, server_database):
    """The server is restarted within each of some transactions."""
    database = find_database(server_database)
    store = Store.for_writing(database)
    left = ["INSERT INTO bench_attempts", "INSERT INTO bench_commands"]

    @event.listens_for(store.engine, "before_cursor_execute")
    def restart(connection, cursor, statement, *rest):
        if left and statement.startswith(left[0]):
            left.pop(0)
            server.stop()
            server.start()

    store.add_attempt(make_attempt("a"))
    assert store.add_command(["bench"], [], sizes={}, seeds=[0], dropped=[]) >= 1
    assert left == []
    assert store.frame(schema.attempts)["unit"].tolist() == ["a"]
    assert len(store.frame(schema.commands)) == 1
    store.close()


SLOW = """
import time
from registry import model

@model("slow", kind="estimator")
def build(params, task, shape):
    class Slow:
        def fit(self, volumes, targets):
            self.mean = targets.mean()
            time.sleep(0.3)
            return self
        def predict_proba(self, volumes):
            return [[1 - self.mean, self.mean]] * len(volumes)
    return Slow()
"""


def test_a_run_goes_on_after_restarts_and_a_second_one_waits(
    server, server_database, environment, tmp_path
):
    (tmp_path / "slow.py").write_text(SLOW)
    seeds = 40
    words = ["run", "--data", "synthetic-ad-4mm", "--model", "slow", "--plugins", "slow.py"]
    words += ["--train-sizes", "16", "--seeds", str(seeds), "--workers", "2", "--threads", "1"]
    words += ["--db", server_database, "--work", "work"]

    def start():
        return subprocess.Popen(
            [sys.executable, "-m", "bench", *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    first = start()
    for line in first.stdout:
        if line.startswith("[3/"):
            break
    server.stop()
    server.start()
    second = start()
    for line in second.stdout:
        if line.startswith("Another command is writing to"):
            break
    server.stop()
    server.start()
    outputs = [process.communicate(timeout=600)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert f"{seeds} of {seeds} trials done" in outputs[0]
    assert "Nothing to run" in outputs[1]
    store = Store.for_reading(find_database(server_database))
    assert sorted(store.frame(schema.trials)["seed"]) == list(range(seeds))
    assert len(store.frame(schema.attempts)) == seeds
    store.close()
    assert not (tmp_path / "work").exists()


# --------------------------------------------------------------------- content


def test_a_log_with_nul_characters_is_stored(server_database):
    store = Store.for_writing(find_database(server_database))
    attempt = make_attempt("a")
    store.add_attempt(Attempt(**{**attempt.__dict__, "log": "a\0b", "error": "\0"}))
    assert store.frame(schema.attempts)["log"].tolist() == ["ab"]
    store.close()


def test_the_shipped_example_is_copied_both_ways(server_database, tmp_path):
    example = tmp_path / "results.db"
    shutil.copy(ROOT / "results.db", example)
    code, output = bench("db", "copy", server_database, "--db", example)
    assert (code, output) == (0, f"80 trials copied from {example}.\n")
    assert example.read_bytes() == (ROOT / "results.db").read_bytes()
    back = tmp_path / "back.db"
    assert bench("db", "copy", back, "--db", server_database)[0] == 0
    assert rows(back) == rows(example) == rows(find_database(server_database))
    for db in (server_database, back):
        code, output = bench("db", "check", "--db", db)
        assert (code, ": 0 faults in 80 finished trials" in output) == (0, True), output
    reports = []
    for db in (server_database, example):
        code, output = bench("report", "--format", "markdown", "--db", db)
        assert code == 0
        reports.append(output.replace("grid on 127.0.0.1", "results.db"))
    assert reports[0] == reports[1]
    code, output = bench("db", "copy", back, "--db", server_database)
    assert (code, "already contains results; use `bench merge`" in output) == (2, True)
    code, output = bench("db", "copy", server_database, "--db", server_database)
    assert (code, "is both source and target" in output) == (2, True)


def test_commands_are_counted_on_after_a_copy(server_database, tmp_path):
    assert bench("db", "copy", server_database, "--db", ROOT / "results.db")[0] == 0
    store = Store.for_writing(find_database(server_database))
    assert store.add_command(["bench"], [], sizes={}, seeds=[0], dropped=[]) == 2
    store.close()


def test_databases_are_merged_between_files_and_servers(store, server_database):
    arm = make_arm(trials=2)
    number = store.add_command(["bench"], [(arm, False)], sizes={}, seeds=[0], dropped=[])
    study = make_study(arm)
    store.add_study(study)
    for seed in (0, 1):
        store.add_trial(make_trial(arm, seed, study=study.spec.key), number)
    target = Store.for_writing(find_database(server_database))
    assert merge(target, store).trials == 2
    again, back = merge(target, store), merge(store, target)
    for result in (again, back):
        assert (result.trials, result.studies, result.conflicts) == (0, [], [])
    target.close()


def test_an_export_of_a_server_equals_that_of_a_file(server_database, tmp_path):
    assert bench("db", "copy", server_database, "--db", ROOT / "results.db")[0] == 0
    for name, db in {"a": server_database, "b": ROOT / "results.db"}.items():
        words = ["export", "--format", "csv", "--out", tmp_path / name, "--db", db]
        code, output = bench(*words)
        assert code == 0, output
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


@pytest.mark.slow
def test_a_run_on_a_server_equals_a_run_on_a_file(bench, server_database, tmp_path):
    run = ["run", "--model", "linear-voxels,prior", "--data", "synthetic-ad-4mm", "--seeds", "2"]
    run += ["--train-sizes", "24", "--trials", "2", "--threads", "1", "--workers", "2"]
    databases = {"file": ["--db", "file.db"], "server": ["--db", server_database, "--work", "w"]}
    for words in databases.values():
        done = bench(*run, *words)
        assert done.returncode == 0, done.stderr
        for secret in (QUOTED, PASSWORD):
            assert secret not in done.stdout + done.stderr
    found = [rows(tmp_path / "file.db"), rows(find_database(server_database))]
    for name in ("bench_trials", "bench_metrics", "bench_predictions", "bench_tuning_trials"):
        assert len(found[0][name]) == len(found[1][name]) > 0
    for name in ("bench_metrics", "bench_predictions"):
        assert found[0][name] == found[1][name]
    assert QUOTED not in str(found[1])
    assert "postgresql://bench:***@127.0.0.1" in str(found[1]["bench_commands"])
    again = bench("--log-level", "debug", *run, *databases["server"])
    assert "Nothing to run: all requested trials are already stored in" in again.stdout
    assert QUOTED not in again.stdout + again.stderr
    assert PASSWORD not in again.stdout + again.stderr
    status = bench("status", "--db", server_database)
    assert status.returncode == 0, status.stderr
    assert QUOTED not in status.stdout
