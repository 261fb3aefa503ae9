import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect
from typer.testing import CliRunner

from bench.cli.db import app
from bench.cli.run import _open_store
from bench.store import engine as opening
from bench.store.engine import database_file, open_for_reading, open_for_writing
from bench.store.mirror import mirror_all
from bench.store.schema import metadata, trials
from bench.store.store import Store
from registry.errors import UserError

ROOT = Path(__file__).parents[2]


def alembic_config(connection):
    from alembic.config import Config

    # By default, it is the output at the first import, which another test may have closed.
    config = Config(stdout=sys.stdout)
    config.set_main_option("script_location", str(Path(opening.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def test_a_new_database_has_every_table_and_the_newest_schema(tmp_path):
    engine = open_for_writing(tmp_path / "new.db")
    names = set(inspect(engine).get_table_names())
    assert names == set(metadata.tables) | {opening.VERSION_TABLE}
    from alembic.script import ScriptDirectory

    with engine.connect() as connection:
        head = ScriptDirectory.from_config(alembic_config(connection)).get_current_head()
    assert head == opening.HEAD


def test_the_migrations_make_what_the_schema_says_with_optunas_tables_beside(tmp_path):
    from alembic import command
    from optuna.storages import RDBStorage

    file = tmp_path / "both.db"
    engine = open_for_writing(file)
    RDBStorage(f"sqlite:///{file}")
    with engine.begin() as connection:
        command.check(alembic_config(connection))
    open_for_writing(file).dispose()


FOREIGN = {
    "an empty file": (lambda file: file.touch(), "is empty"),
    "a blank database": (lambda file: execute(file, "VACUUM"), "is empty"),
    "a table": (lambda file: execute(file, "CREATE TABLE notes (x)"), "another program"),
    "in WAL mode": (
        lambda file: execute(file, "PRAGMA journal_mode=WAL", "CREATE TABLE notes (x)"),
        "another program",
    ),
    "a view": (lambda file: execute(file, "CREATE VIEW notes AS SELECT 1"), "another program"),
    "an unversioned table": (
        lambda file: execute(file, f"CREATE TABLE {opening.VERSION_TABLE} (version_num)"),
        "another program",
    ),
    "a text": (lambda file: file.write_text("dear diary, " * 100), "is not a database"),
    "a short text": (lambda file: file.write_text("x"), "is not a database"),
    "a folder": (lambda file: file.mkdir(), "is a directory"),
    "a pipe": (os.mkfifo, "is not a regular file"),
}


def execute(file, *statements):
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_ours_is_a_sentence_and_stays_as_it_is(tmp_path, kind):
    make, words = FOREIGN[kind]
    file = tmp_path / "found.db"
    make(file)
    before = file.read_bytes() if file.is_file() else None
    opened = [open_for_reading]
    if words != "is empty":  # SQLite turns an empty file into a database.
        opened.append(open_for_writing)
    for each in opened:
        with pytest.raises(UserError, match=words):
            each(file)
    assert os.listdir(tmp_path) == ["found.db"]
    assert before is None or file.read_bytes() == before


@pytest.mark.parametrize(
    "name",
    [
        *("a?b.db", "a%20b.db", "a b.db", "a#b.db", "a;b.db", "a&mode=ro.db", "a{b}.db"),
        *("größe.db", "~a.db", "-a.db", "file:a.db", "a\\b.db", "a'b\".db", "a\nb.db"),
        os.fsdecode(b"gr\xf6sse.db"),
    ],
)
def test_a_database_may_have_any_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    file = database_file(name)
    Store.for_writing(file).close(leave_wal=True)
    store = Store.for_writing(file)
    assert mirror_all(store) == []
    assert {os.listdir(tmp_path).pop()[: len(name)]} == {name}
    store.close(leave_wal=True)
    store = Store.for_reading(file)
    assert len(store.frame(trials)) == 0
    store.close()
    assert os.listdir(tmp_path) == [name]


def test_a_reader_of_a_damaged_database_says_so(tmp_path):
    file = tmp_path / "torn.db"
    Store.for_writing(file).close(leave_wal=True)
    with open(file, "r+b") as stream:
        stream.seek(size := file.stat().st_size // 2)
        stream.write(b"\xff" * size)
    with pytest.raises(UserError, match=r"torn\.db cannot be read: .*malformed"):
        read(file)
    with open(file, "r+b") as stream:
        stream.truncate(5000)
    with pytest.raises(UserError, match=r"torn\.db cannot be read: .*malformed"):
        read(file)


def read(file):
    store = Store.for_reading(file)
    try:
        return [store.frame(table) for table in metadata.tables.values()]
    finally:
        store.close()


def test_what_a_dead_process_left_half_written_is_said_and_put_in_order(tmp_path):
    file = tmp_path / "half.db"
    Store.for_writing(file).close(leave_wal=True)
    dies = """
    import os, sqlite3, sys
    connection = sqlite3.connect(sys.argv[1])
    connection.execute("PRAGMA cache_size=1")
    connection.execute("CREATE TABLE bench_x (y)")
    connection.executemany("INSERT INTO bench_x VALUES (?)", [(os.urandom(2000),)] * 99)
    os._exit(1)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(dies), file])
    assert (tmp_path / "half.db-journal").exists()
    with pytest.raises(UserError, match=r"died while writing .* or `bench db upgrade"):
        Store.for_reading(file)
    Store.for_writing(file).close(leave_wal=True)
    store = Store.for_reading(file)
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM bench_x").scalar_one() == 0
    store.close()


@pytest.mark.parametrize("place", ["disk", "net work", "net work/deep", "net work/local", "link"])
def test_wal_is_used_where_the_disk_is_of_this_machine(tmp_path, monkeypatch, place):
    """Replaces the list of mounts, because tests cannot mount a network file system."""
    (tmp_path / "net work" / "deep").mkdir(parents=True)
    (tmp_path / "net work" / "local").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "net work")
    point = str(tmp_path).replace(" ", r"\040")
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/sda1 / ext4 rw 0 0\nserver:/x {point}/net\\040work nfs4 rw 0 0\n"
        f"/dev/sdb1 {point}/net\\040work/local xfs rw 0 0\n"
    )
    monkeypatch.setattr(opening, "MOUNTS", mounts)
    file = tmp_path / place / "x.db"
    local = place in ("disk", "net work/local")
    assert opening.on_network(file) == (not local)
    assert opening.file_system(file) == (
        {"disk": "ext4", "net work/local": "xfs"}.get(place) or "nfs4"
    )
    warning = opening.network_warning(file)
    if local:
        assert warning == ""
    else:
        assert f"the database {file} is on a file system of the type nfs4, whose locks" in warning
        assert "--db with a file on a local disk or a PostgreSQL server" in warning
    with open_for_writing(file).connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    assert mode == ("wal" if local else "delete")


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "fuse.sshfs", "9p", "ceph"]
)
def test_wal_is_not_used_on_network_disks(tmp_path, monkeypatch, kind):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x / {kind} rw 0 0\n")
    monkeypatch.setattr(opening, "MOUNTS", mounts)
    assert opening.on_network(tmp_path / "x.db")
    assert f"of the type {kind}," in opening.network_warning(tmp_path / "x.db")
    monkeypatch.setattr(opening, "MOUNTS", tmp_path / "none")
    assert opening.on_network(tmp_path / "x.db")
    assert opening.network_warning(tmp_path / "x.db") == ""


def test_a_run_on_a_network_disk_says_so(tmp_path, monkeypatch, capsys):
    mounts = tmp_path / "mounts"
    mounts.write_text("server:/x / nfs4 rw 0 0\n")
    monkeypatch.setattr(opening, "MOUNTS", mounts)
    with contextlib.ExitStack() as stack:
        _open_store(tmp_path / "x.db", dry_run=False, stack=stack)
    warning = opening.network_warning(tmp_path / "x.db")
    assert capsys.readouterr().out == f"warning: {warning}\n"


def test_a_database_of_a_newer_version_is_refused(tmp_path):
    file = tmp_path / "newer.db"
    open_for_writing(file).dispose()
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE {opening.VERSION_TABLE} SET version_num = '9999'")
    for opened in (open_for_writing, open_for_reading):
        with pytest.raises(UserError, match=r"newer version of slicebench \(schema 9999\)"):
            opened(file)


@pytest.mark.parametrize(
    "db",
    [
        *("postgresql://host/name", "sqlite:///:memory:", "sqlite://", ":memory:"),
        "sqlite:///grid.db?timeout=10",
    ],
)
def test_only_files_of_sqlite_are_databases(db):
    with pytest.raises(UserError, match="FILE"):
        database_file(db)


@pytest.mark.parametrize(
    ("db", "file"),
    [
        ("grid.db", "grid.db"),
        ("sqlite:///grid.db", "grid.db"),
        ("sqlite:////tmp/x.db", "/tmp/x.db"),
        ("~/x.db", Path.home() / "x.db"),
        ("sqlite:///~/x.db", Path.home() / "x.db"),
        ("~nobody-of-that-name.db", "~nobody-of-that-name.db"),
    ],
)
def test_a_path_and_a_url_name_the_same_file(db, file):
    assert database_file(db) == Path(file)


def test_a_missing_database_and_a_missing_folder_are_sentences(tmp_path):
    with pytest.raises(UserError, match=r"none\.db does not exist"):
        open_for_reading(tmp_path / "none.db")
    with pytest.raises(UserError, match="does not exist; create it"):
        open_for_writing(tmp_path / "no" / "folder.db")


def test_a_finished_database_is_one_file_that_a_read_only_folder_can_hold(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    Store.for_writing(folder / "done.db").close(leave_wal=True)
    assert [f.name for f in folder.iterdir()] == ["done.db"]
    os.chmod(folder / "done.db", 0o444)
    os.chmod(folder, 0o555)
    store = Store.for_reading(folder / "done.db")
    assert len(store.frame(trials)) == 0
    store.close()
    os.chmod(folder, 0o755)
    assert [f.name for f in folder.iterdir()] == ["done.db"]


def test_the_group_may_write_a_database_where_the_umask_lets_it(tmp_path):
    before = os.umask(0o002)
    try:
        engine = open_for_writing(tmp_path / "shared.db")
    finally:
        os.umask(before)
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o777 == 0o664, file
    engine.dispose()


def test_a_reader_never_writes(tmp_path):
    file = tmp_path / "kept.db"
    Store.for_writing(file).close(leave_wal=True)
    before = file.read_bytes()
    store = Store.for_reading(file)
    with pytest.raises(Exception, match="readonly"), store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM bench_commands")
    store.close()
    assert file.read_bytes() == before


def test_a_database_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    file = tmp_path / "fixed.db"
    open_for_writing(file).dispose()
    # Root has all permissions, so os.access is replaced.
    real = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: False if mode == os.W_OK else real(p, mode))
    with pytest.raises(UserError, match=r"cannot be written to; .* choose another --db"):
        open_for_writing(file)


def test_a_full_disk_is_a_sentence(tmp_path):
    """A database on a full file system."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)])
    if mounted.returncode:
        pytest.skip("this machine does not let a test mount a file system")
    try:
        with pytest.raises(UserError, match=r"full\.db cannot be written to: "):
            open_for_writing(small / "full.db")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_shipped_example_opens_at_the_newest_schema():
    engine = open_for_reading(ROOT / "results.db")
    assert isinstance(engine, type(create_engine("sqlite://")))
    with engine.connect() as connection:
        row = connection.exec_driver_sql(f"SELECT version_num FROM {opening.VERSION_TABLE}").one()
        done = connection.exec_driver_sql(
            "SELECT COUNT(*) FROM bench_trials WHERE state = 'done'"
        ).scalar_one()
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    assert row[0] == opening.HEAD
    assert done > 0
    assert mode == "delete"


RELEASED = sorted((Path(__file__).parent / "released").glob("*.db"))


def test_there_is_a_file_of_every_earlier_schema():
    assert {file.stem for file in RELEASED} == opening.migrations() - {opening.HEAD}


@pytest.mark.parametrize("released", RELEASED)
def test_a_database_of_every_released_schema_is_brought_up_to_date_and_reported(tmp_path, released):
    from bench.report.build import build_report

    file = tmp_path / released.name
    shutil.copy(released, file)
    with sqlite3.connect(file) as connection:
        assert connection.execute(
            f"SELECT version_num FROM {opening.VERSION_TABLE}"
        ).fetchone() == (released.stem,)
        before = connection.execute("SELECT count(*) FROM bench_trials").fetchone()
    content = file.read_bytes()
    with pytest.raises(UserError, match=rf"the schema {released.stem} .*bench db upgrade --db"):
        Store.for_reading(file)
    assert file.read_bytes() == content
    assert os.listdir(tmp_path) == [released.name]
    assert CliRunner().invoke(app, ["upgrade", "--db", str(file)]).exit_code == 0
    store = Store.for_reading(file)
    report = build_report(store)
    store.close()
    assert any(row[0].text.startswith("slice2d-imagenet") for row in report.tables[0].rows)
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM bench_trials").fetchone() == before
        assert connection.execute(
            f"SELECT version_num FROM {opening.VERSION_TABLE}"
        ).fetchone() == (opening.HEAD,)
