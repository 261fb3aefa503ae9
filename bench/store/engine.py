"""Opening a database: URL, pragmas, schema version; every way in which that can go wrong."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError

from registry.errors import UserError

HEAD = "0002"
"""The schema version of this code; a test holds it equal to the newest migration."""

VERSION_TABLE = "bench_alembic_version"
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "fuse", "9p", "ceph")


class _Unreadable(UserError):
    """The file could not be opened at all."""


def database_file(db: str) -> Path:
    """Return the SQLite file a ``--db`` value names: a path or an ``sqlite:///`` URL.

    Raises
    ------
    UserError
        When it is a URL of another kind or holds no file name.
    """
    if "://" not in db:
        return Path(db)
    try:
        url = make_url(db)
    except ArgumentError:
        raise UserError(f"{db!r} is not a database URL; write sqlite:///FILE or a path.") from None
    if url.get_backend_name() != "sqlite":
        raise UserError(f"Results are stored in SQLite; {db!r} is not sqlite:///FILE or a path.")
    if not url.database or url.database == ":memory:":
        raise UserError("Results must be kept in a file; write --db sqlite:///FILE or a path.")
    return Path(url.database)


def open_for_writing(file: Path) -> Engine:
    """Open or create a database at the newest schema.

    Raises
    ------
    UserError
        When it cannot be written, is no database or comes from a newer version.
    """
    if not file.parent.is_dir():
        raise UserError(
            f"The folder {file.parent} of the database does not exist; create it first."
        )
    if not all(os.access(place, os.W_OK) for place in (file, file.parent) if place.exists()):
        raise UserError(f"The database {file} cannot be written; choose another with --db.")
    if file.exists():
        # Before anything is written: a file that is not ours must stay as it is.
        _found_version(file, f"file:{_quoted(file)}?mode=ro")
    journal = "DELETE" if on_network(file) else "WAL"
    engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def pragmas(connection: sqlite3.Connection, _: Any) -> None:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=NORMAL")

    try:
        upgrade(engine)
    except DatabaseError as error:
        engine.dispose()
        raise UserError(f"The database {file} cannot be written: {error.orig}.") from None
    return engine


def open_for_reading(file: Path) -> Engine:
    """Open an existing database without ever writing to it.

    Raises
    ------
    UserError
        When it does not exist, is no database, or is of another schema version.
    """
    if not file.is_file():
        raise UserError(
            f"There is no database {file} yet; `bench run` makes it, --db names another."
        )
    uri = f"file:{_quoted(file)}?mode=ro"
    try:
        version = _found_version(file, uri)
    except _Unreadable:
        if file.with_name(file.name + "-wal").exists():
            raise
        # A file left in WAL mode in a folder where nothing may be written opens only like this;
        # without a write-ahead log beside it, nothing is missed.
        uri = f"file:{_quoted(file)}?immutable=1"
        version = _found_version(file, uri)
    if version != HEAD:
        if not os.access(file, os.W_OK):
            raise UserError(
                f"The database {file} has the older schema {version or 'none'} and cannot be "
                "written to bring it up to date; copy it to a folder of yours."
            )
        settle(open_for_writing(file))
    return create_engine(f"sqlite:///{uri}&uri=true")


def settle(engine: Engine) -> None:
    """Close an engine and leave WAL mode: then reading never needs permission to write."""
    # Refused while somebody reads or the disk is full, which is harmless: the next writer tries
    # again.
    with suppress(DBAPIError), engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=1000")
        connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
    engine.dispose()


@contextmanager
def write_errors(file: Path) -> Iterator[None]:
    """Turn what SQLite says of a full disk or a vanished file into one sentence.

    An outcome is deleted only once it is stored, so nothing that was computed is lost.
    """
    try:
        yield
    except DBAPIError as error:
        raise UserError(
            f"The database {file} cannot be written: {error.orig}. What is finished is kept beside "
            "it; the same command stores that and goes on."
        ) from None


def on_network(file: Path) -> bool:
    """Tell whether a file lies on a network file system, where SQLite's WAL mode is unsafe."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return False
    folder = str(file.absolute().parent)
    best, kind = "", ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, fstype = line.split()[:3]
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fstype
    return kind.startswith(NETWORK_FILE_SYSTEMS)


def upgrade(engine: Engine) -> None:
    """Bring the schema to `HEAD` by migration, in one transaction."""
    with engine.connect() as connection:
        if _version(connection) == HEAD:
            return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _version(connection: Any) -> str | None:
    known = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = :name"
    if connection.execute(text(known), {"name": VERSION_TABLE}).first() is None:
        return None
    row = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).first()
    return row[0] if row else None


def _found_version(file: Path, uri: str) -> str | None:
    """Return the schema version of an existing file, or refuse the file."""
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            tables = {
                name
                for (name,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                )
            }
            version = None
            if VERSION_TABLE in tables:
                row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
                version = row[0] if row else None
    except sqlite3.OperationalError as error:
        raise _Unreadable(f"The database {file} cannot be read: {error}.") from None
    except sqlite3.DatabaseError:
        raise UserError(
            f"{file} is not a database; name another file with --db, it was left as it is."
        ) from None
    if version is not None and version not in _migrations():
        raise UserError(
            f"The database {file} was written by a newer slicebench (schema {version}); "
            "install that version, or name another file with --db."
        )
    return version


def _migrations() -> set[str]:
    folder = Path(__file__).parent / "migrations" / "versions"
    return {file.name.partition("_")[0] for file in folder.glob("[0-9]*.py")}


def _quoted(file: Path) -> str:
    from urllib.parse import quote

    return quote(str(file.absolute()))
