"""Opening a file of SQLite: its URL, pragmas, schema version and errors."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Engine, ExceptionContext, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError

from registry.errors import UserError

HEAD = "0002"
"""The current schema version, which is that of the newest migration."""

VERSION_TABLE = "bench_alembic_version"
MOUNTS = Path("/proc/mounts")
LOCAL_FILE_SYSTEMS = (
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "tmpfs", "ramfs"),
    *("overlay", "rootfs", "vfat", "exfat", "ntfs", "ntfs3", "fuseblk"),
)
"""File systems of local disks and memory."""

_FORMS = "a path, sqlite:///FILE, or postgresql://USER@HOST/NAME"

READ, WRITE, IMMUTABLE = "mode=ro", "mode=rwc", "immutable=1"
"""Options of SQLite for opening a file."""


def database_file(db: str) -> Path:
    """Return the SQLite file for a value of ``--db``, which is a path or an ``sqlite:///`` URL.

    Raises
    ------
    UserError
        If it is another kind of URL, has options, or does not name a file.
    """
    name = db
    if "://" in db:
        try:
            url = make_url(db)
        except ArgumentError:
            raise UserError(f"{db!r} is not a valid database URL; use {_FORMS}.") from None
        if url.get_backend_name() != "sqlite":
            raise UserError(
                f"Results cannot be stored in a database of the kind {url.get_backend_name()}; use "
                f"{_FORMS}."
            )
        if url.query:
            raise UserError(
                f"Options in the database URL {db!r} are not supported; use sqlite:///FILE, or a "
                "path if the file name contains a question mark."
            )
        name = url.database or ":memory:"
    if name == ":memory:":
        raise UserError("Results must be stored in a file; use --db with a path or sqlite:///FILE.")
    return Path(os.path.expanduser(name))


def database_url(file: Path, mode: str) -> URL:
    """Return the SQLAlchemy URL of a file, whose name may contain any characters.

    Parameters
    ----------
    file : Path
        The database.
    mode : str
        `READ`, `WRITE` (which creates the file if necessary), or `IMMUTABLE` to read a file that
        no process is writing to.
    """
    option, _, value = mode.partition("=")
    return URL.create("sqlite", database=_address(file), query={option: value, "uri": "true"})


def check_writable(file: Path) -> None:
    """Check that a file can be used as a database, without changing it.

    Raises
    ------
    UserError
        If it cannot be written, is not a database of slicebench, or has a newer schema.
    """
    if not file.parent.is_dir():
        raise UserError(
            f"The directory {file.parent} of the database does not exist; create it or choose "
            "another --db."
        )
    _refuse_other_kinds(file)
    if not all(os.access(place, os.W_OK) for place in (file, file.parent) if place.exists()):
        raise UserError(
            f"The database {file} cannot be written to; check its permissions and those of its "
            "directory, or choose another --db."
        )
    if has_content(file):
        # If a process died while writing, SQLite rolls the transaction back when it is opened.
        mode = _mode_of_reading(file)
        half = Path(f"{file.resolve()}-journal").exists()
        _found_version(file, IMMUTABLE if half else mode)


def open_for_writing(file: Path) -> Engine:
    """Open or create a database and upgrade it to the current schema; see `check_writable`."""
    check_writable(file)
    journal = "DELETE" if on_network(file) else "WAL"
    engine = create_engine(database_url(file, WRITE), connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def pragmas(connection: sqlite3.Connection, _: Any) -> None:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=NORMAL")

    try:
        file.touch()  # SQLite itself would create a file without write permission for the group.
        upgrade(engine)
    except (DatabaseError, sqlite3.Error, OSError) as error:
        engine.dispose()
        why = error.orig if isinstance(error, DatabaseError) else error
        raise UserError(
            f"The database {file} cannot be written to: {why}. Choose another one with --db."
        ) from None
    return engine


def open_for_reading(file: Path) -> Engine:
    """Open an existing database read-only.

    Raises
    ------
    UserError
        If it does not exist, is not a database of slicebench, or has another schema version.
    """
    _refuse_other_kinds(file)
    if not file.exists():
        raise UserError(
            f"The database {file} does not exist; create it with `bench run`, or specify another "
            "one with --db."
        )
    mode = _mode_of_reading(file) if has_content(file) else None
    version = _found_version(file, mode) if mode else None
    if mode is None or version is None:
        raise UserError(
            f"The database {file} is empty; store results with `bench run`, or specify another "
            "database with --db."
        )
    if version != HEAD:
        raise UserError(
            f"The database {file} has the schema {version} of an older version. Upgrade it, or a "
            f"copy of it, to schema {HEAD} with `{_upgrade(file)}`."
        )
    engine = create_engine(database_url(file, mode), connect_args={"timeout": 30})

    @event.listens_for(engine, "handle_error")
    def in_words(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, sqlite3.DatabaseError):
            raise _unreadable(file, context.original_exception)

    return engine


def leave_wal_mode(engine: Engine) -> None:
    """Close an engine and leave WAL mode, so that reading requires no write permission."""
    # This fails while another process is reading or if the disk is full. That is harmless, because
    # the next process that writes will try again.
    with suppress(DBAPIError), engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=1000")
        connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
    engine.dispose()


@contextmanager
def write_errors(file: Path) -> Iterator[None]:
    """Convert errors while writing, for example because of a full disk, to a `UserError`.

    Outcomes are deleted only after they were stored, so no results are lost.
    """
    try:
        yield
    except DBAPIError as error:
        raise UserError(
            f"The database {file} cannot be written to: {error.orig}. Finished results are kept "
            "next to it; solve the problem and run the same command again to store them and to "
            "resume."
        ) from None


def on_network(file: Path) -> bool:
    """Return whether a file may be on a network file system, where SQLite's WAL mode is unsafe.

    All file systems that are not known to be local count as network file systems.
    """
    return file_system(file) not in LOCAL_FILE_SYSTEMS


def network_warning(file: Path) -> str:
    """Return a warning with its remedy if a file may be on a network file system."""
    kind = file_system(file)
    if not kind or kind in LOCAL_FILE_SYSTEMS:
        return ""
    return (
        f"the database {file} is on a file system of the type {kind}, whose locks may not work "
        "between machines. Write to it from one machine at a time, or use --db with a file on a "
        "local disk or a PostgreSQL server."
    )


def file_system(file: Path) -> str:
    """Return the type of the file system of a file, such as ``ext4``; empty if it is unknown."""
    if not MOUNTS.exists():
        return ""
    folder = str(file.resolve().parent)
    best, kind = "", ""
    for line in MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, point, fstype = line.split(" ")[:3]
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point)
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fstype
    return kind


def upgrade(engine: Engine) -> None:
    """Migrate the schema to `HEAD` in one transaction."""
    with engine.connect() as connection:
        if _version(connection) == HEAD:
            return
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _version(connection: Any) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    row = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).first()
    return row[0] if row else None


def _refuse_other_kinds(file: Path) -> None:
    """Refuse a directory or a device."""
    if file.exists() and not file.is_file():
        kind = "a directory" if file.is_dir() else "not a regular file"
        raise UserError(f"The database {file} is {kind}; specify a file with --db.")


def has_content(file: Path) -> bool:
    """Return whether a file is not empty; SQLite first creates an empty file."""
    return file.exists() and file.stat().st_size > 0


def _mode_of_reading(file: Path) -> str:
    """Return a mode (see `database_url`) in which reading does not create files.

    A database in WAL mode has no log file if no process is connected to it. Opening it in the usual
    way would create one, and would fail without write permission.
    """
    try:
        with open(file, "rb") as stream:
            head = stream.read(20)
    except OSError as error:
        raise _unreadable(file, error.strerror) from None
    if not head.startswith(b"SQLite format 3\0"):
        raise UserError(
            f"The file {file} is not a database and was not changed; specify another one with --db."
        )
    log = Path(f"{file.resolve()}-wal")
    return IMMUTABLE if head[18:] == b"\2\2" and not log.exists() else READ


def _found_version(file: Path, mode: str) -> str | None:
    """Return the schema version of a database, None if it has no tables.

    Raises
    ------
    UserError
        If it is not a database of slicebench or has a newer schema.
    """
    uri = f"{_address(file)}?{mode}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            rows = []
            if VERSION_TABLE in names:
                rows = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname == "SQLITE_READONLY_ROLLBACK":
            raise UserError(
                f"A process died while writing to the database {file}. Repair it by running the "
                f"same `bench run` command again, or `{_upgrade(file)}`."
            ) from None
        raise _unreadable(file, error) from None
    except sqlite3.DatabaseError as error:
        raise _unreadable(file, error) from None
    if not names:
        return None
    if not rows:
        raise UserError(
            f"The database {file} belongs to another program and was not changed; specify another "
            "one with --db."
        )
    version = str(rows[0][0])
    if version not in migrations():
        raise UserError(
            f"The database {file} was written by a newer version of slicebench (schema {version}); "
            "install that version, or specify another database with --db."
        )
    return version


def _upgrade(file: Path) -> str:
    return f"bench db upgrade --db {shlex.quote(str(file))}"


def _address(file: Path) -> str:
    return f"file:{quote(os.fsencode(file.absolute()))}"


def _unreadable(file: Path, why: object) -> UserError:
    return UserError(
        f"The database {file} cannot be read: {why}. Specify another database with --db, such as a "
        "backup."
    )


def migrations() -> set[str]:
    """Return the versions of all schemas."""
    folder = Path(__file__).parent / "migrations" / "versions"
    return {file.name.partition("_")[0] for file in folder.glob("[0-9]*.py")}
