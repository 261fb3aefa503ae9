"""Opening a database: URL, pragmas, schema version; every way in which that can go wrong."""

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

from sqlalchemy import URL, Engine, ExceptionContext, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError

from registry.errors import UserError

HEAD = "0002"
"""The schema version of this code; a test holds it equal to the newest migration."""

VERSION_TABLE = "bench_alembic_version"
MOUNTS = Path("/proc/mounts")
LOCAL_FILE_SYSTEMS = (
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "tmpfs", "ramfs"),
    *("overlay", "rootfs", "vfat", "exfat", "ntfs", "ntfs3", "fuseblk"),
)
"""File systems of one machine's own disks and memory."""

READ, WRITE, IMMUTABLE = "mode=ro", "mode=rwc", "immutable=1"
"""How SQLite may open a file."""


def database_file(db: str) -> Path:
    """Return the SQLite file a ``--db`` value names: a path or an ``sqlite:///`` URL.

    Raises
    ------
    UserError
        When it is a URL of another kind, holds no file name, or holds options.
    """
    name = db
    if "://" in db:
        try:
            url = make_url(db)
        except ArgumentError:
            raise UserError(
                f"{db!r} is not a database URL; write sqlite:///FILE or a path."
            ) from None
        if url.get_backend_name() != "sqlite":
            raise UserError(
                f"Results are stored in SQLite; {db!r} is not sqlite:///FILE or a path."
            )
        if url.query:
            raise UserError(
                f"{db!r} has options after its question mark, which are not taken; write "
                "sqlite:///FILE, or the path of a file whose name has a question mark."
            )
        name = url.database or ":memory:"
    if name == ":memory:":
        raise UserError("Results must be kept in a file; write --db sqlite:///FILE or a path.")
    return Path(os.path.expanduser(name))


def database_url(file: Path, mode: str) -> URL:
    """Return the URL under which SQLAlchemy opens a file, whatever characters its name has.

    Parameters
    ----------
    file : Path
        The database.
    mode : str
        `READ`, `WRITE` (which creates the file), or `IMMUTABLE`: read it as a file that nobody
        writes.
    """
    option, _, value = mode.partition("=")
    return URL.create("sqlite", database=_address(file), query={option: value, "uri": "true"})


def check_writable(file: Path) -> None:
    """Refuse, before anything is written, a file that cannot be written or is not ours.

    Raises
    ------
    UserError
        When it cannot be written, holds something else than results, or comes from a newer version.
    """
    if not file.parent.is_dir():
        raise UserError(
            f"The folder {file.parent} of the database does not exist; create it first."
        )
    _refuse_other_kinds(file)
    if not all(os.access(place, os.W_OK) for place in (file, file.parent) if place.exists()):
        raise UserError(f"The database {file} cannot be written; choose another with --db.")
    if _has_content(file):
        # What a process that died has left half written is put in order on opening.
        mode = _mode_of_reading(file)
        half = Path(f"{file.resolve()}-journal").exists()
        _found_version(file, IMMUTABLE if half else mode)


def open_for_writing(file: Path) -> Engine:
    """Open or create a database at the newest schema; see `check_writable`."""
    check_writable(file)
    journal = "DELETE" if on_network(file) else "WAL"
    engine = create_engine(database_url(file, WRITE), connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def pragmas(connection: sqlite3.Connection, _: Any) -> None:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=NORMAL")

    try:
        file.touch()  # SQLite itself would make a file that the group may not write
        upgrade(engine)
    except (DatabaseError, sqlite3.Error, OSError) as error:
        engine.dispose()
        why = error.orig if isinstance(error, DatabaseError) else error
        raise UserError(f"The database {file} cannot be written: {why}.") from None
    return engine


def open_for_reading(file: Path) -> Engine:
    """Open an existing database without ever writing to it.

    Raises
    ------
    UserError
        When it does not exist, is no database of results, or is of another schema version.
    """
    _refuse_other_kinds(file)
    if not file.exists():
        raise UserError(
            f"There is no database {file} yet; `bench run` makes it, --db names another."
        )
    mode = _mode_of_reading(file) if _has_content(file) else None
    version = _found_version(file, mode) if mode else None
    if mode is None or version is None:
        raise UserError(
            f"The database {file} is empty: nothing was stored in it yet; `bench run` does, --db "
            "names another."
        )
    if version != HEAD:
        raise UserError(
            f"The database {file} has the older schema {version}, and reading changes nothing: "
            f"`{_upgrade(file)}` brings it, or a copy of it, to schema {HEAD}."
        )
    engine = create_engine(database_url(file, mode), connect_args={"timeout": 30})

    @event.listens_for(engine, "handle_error")
    def in_words(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, sqlite3.DatabaseError):
            raise _unreadable(file, context.original_exception)

    return engine


def leave_wal_mode(engine: Engine) -> None:
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
    """Tell whether a file may lie on a network file system, where SQLite's WAL mode is unsafe.

    What is not known to be a disk of this machine counts as one.
    """
    if not MOUNTS.exists():
        return True
    folder = str(file.resolve().parent)
    best, kind = "", ""
    for line in MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, point, fstype = line.split(" ")[:3]
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point)
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fstype
    return kind not in LOCAL_FILE_SYSTEMS


def upgrade(engine: Engine) -> None:
    """Bring the schema to `HEAD` by migration, in one transaction."""
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
    known = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = :name"
    if connection.execute(text(known), {"name": VERSION_TABLE}).first() is None:
        return None
    row = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).first()
    return row[0] if row else None


def _refuse_other_kinds(file: Path) -> None:
    """Refuse a folder or a device."""
    if file.exists() and not file.is_file():
        kind = "a folder" if file.is_dir() else "not a regular file"
        raise UserError(f"{file} is {kind}, not a database; name a file with --db.")


def _has_content(file: Path) -> bool:
    """Tell whether there is anything in a file; SQLite makes a database empty first."""
    return file.exists() and file.stat().st_size > 0


def _mode_of_reading(file: Path) -> str:
    """Return the mode (see `database_url`) in which reading leaves nothing on disk.

    A file in WAL mode to which nobody is connected has no log beside it. Opened as usual it would
    get one, and could not be opened where nothing may be written.
    """
    try:
        with open(file, "rb") as stream:
            head = stream.read(20)
    except OSError as error:
        raise _unreadable(file, error.strerror) from None
    if not head.startswith(b"SQLite format 3\0"):
        raise UserError(
            f"{file} is not a database; name another file with --db; this one was left unchanged."
        )
    log = Path(f"{file.resolve()}-wal")
    return IMMUTABLE if head[18:] == b"\2\2" and not log.exists() else READ


def _found_version(file: Path, mode: str) -> str | None:
    """Return the schema version of an existing file, None if it has no table; or refuse the file.

    Raises
    ------
    UserError
        When it is no database, one of another program, or written by a newer version.
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
                f"A process that died has left the database {file} in the middle of a write; the "
                f"same `bench run`, or `{_upgrade(file)}`, puts it in order."
            ) from None
        raise _unreadable(file, error) from None
    except sqlite3.DatabaseError as error:
        raise _unreadable(file, error) from None
    if not names:
        return None
    if not rows:
        raise UserError(
            f"The database {file} belongs to another program; name another file with --db; this "
            "one was left unchanged."
        )
    version = str(rows[0][0])
    if version not in _migrations():
        raise UserError(
            f"The database {file} was written by a newer slicebench (schema {version}); "
            "install that version, or name another file with --db."
        )
    return version


def _upgrade(file: Path) -> str:
    return f"bench db upgrade --db {shlex.quote(str(file))}"


def _address(file: Path) -> str:
    return f"file:{quote(os.fsencode(file.absolute()))}"


def _unreadable(file: Path, why: object) -> UserError:
    return UserError(
        f"The database {file} cannot be read: {why}. If a copy of it can be, or an older one, name "
        "that with --db."
    )


def _migrations() -> set[str]:
    folder = Path(__file__).parent / "migrations" / "versions"
    return {file.name.partition("_")[0] for file in folder.glob("[0-9]*.py")}
