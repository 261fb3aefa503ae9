"""Opening a database of a PostgreSQL server: its URL, schema version, lock and errors.

Passwords never appear in messages, because SQLAlchemy hides them when it prints a URL.
"""

from __future__ import annotations

import re
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    ExceptionContext,
    NullPool,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from bench.lock import LockHeld, this_process
from bench.store.engine import HEAD, VERSION_TABLE, migrations, upgrade
from registry.errors import UserError

LOCK = 5_193_824_716
"""The number of the advisory lock, which exists once per database."""

PATIENCE = 60.0
"""Seconds for which a run waits for a server that is restarted."""

TICK = 0.5
"""Seconds between two checks that the lock is still held."""

LONGEST_NAME = 63
"""Number of bytes of the name of a connection that the server keeps."""

READ_ONLY = {"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"}


class ConnectionLost(UserError):
    """The connection to a server was lost within a transaction, which had no effect."""


def is_server(db: str) -> bool:
    """Return whether a value of ``--db`` is the URL of a PostgreSQL server."""
    return re.match(r"postgres(ql)?(\+\w+)?://", db) is not None


def server_url(db: str) -> URL:
    """Return the URL of a database of a PostgreSQL server.

    Raises
    ------
    UserError
        If it is not valid or does not name a database.
    """
    invalid = UserError(
        f"{without_password(db)} is not a valid database URL; use postgresql://USER@HOST/NAME. "
        "Special characters in a password must be percent-encoded, for example %40 for @."
    )
    try:
        url = make_url(db)
    except (ArgumentError, ValueError):
        raise invalid from None
    if not url.database or "@" in (url.host or ""):
        raise invalid
    if "password" in url.query:
        password = str(url.query["password"])
        url = url.difference_update_query(["password"]).set(password=password)
    return url.set(drivername="postgresql")


def without_password(words: str) -> str:
    """Return a text with ``***`` in place of passwords in URLs."""
    words = re.sub(r"(\w+://[^:/@\s]*):\S*@", r"\1:***@", words)
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", words)


def driver_url(url: URL) -> str:
    """Return the URL for a library, which contains the password."""
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def has_tables(url: URL) -> bool:
    """Return whether a database contains tables of slicebench."""
    engine = _engine(url, "read", execution_options=READ_ONLY)
    try:
        return _found_version(engine, url) is not None
    finally:
        engine.dispose()


def open_for_writing(url: URL) -> Engine:
    """Open a database, creating the tables or upgrading them to the current schema.

    Raises
    ------
    UserError
        If the server cannot be reached, or the schema is newer.
    """
    engine = _engine(url, "written to")
    _found_version(engine, url)
    upgrade(engine)

    _wait_for_restarts(engine)

    @event.listens_for(engine, "begin")
    def check_lock(connection: Any) -> None:
        if url in _locks:
            _locks[url].check()

    return engine


def open_for_reading(url: URL) -> Engine:
    """Open a database in read-only transactions.

    Raises
    ------
    UserError
        If the server cannot be reached, or the database is empty or has another schema version.
    """
    engine = _engine(url, "read", execution_options=READ_ONLY)
    version = _found_version(engine, url)
    if version is None:
        raise UserError(
            f"The database {url} is empty; store results with `bench run`, or specify another "
            "database with --db."
        )
    if version != HEAD:
        command = shlex.join(["bench", "db", "upgrade", "--db", str(url._replace(password=None))])
        raise UserError(
            f"The database {url} has the schema {version} of an older version. Upgrade it to "
            f"schema {HEAD} with `{command}`."
        )
    return engine


@contextmanager
def advisory_lock(url: URL) -> Iterator[None]:
    """Hold a lock that allows one writing command per database.

    The server releases it when the connection ends, for example because the process died. If the
    server is restarted, the lock is taken again at once, and before anything is written.

    Raises
    ------
    LockHeld
        If another process holds the lock; the message names it.
    """
    lock = _AdvisoryLock(url)
    ended = threading.Event()
    keeper = threading.Thread(target=lock.keep, args=(ended,), daemon=True)
    keeper.start()
    _locks[url] = lock
    try:
        yield
    finally:
        del _locks[url]
        ended.set()
        # It may be waiting for a server that is down.
        keeper.join(timeout=5)


class _AdvisoryLock:
    """A lock of a server that is kept by a connection.

    Raises
    ------
    LockHeld
        If another process holds the lock.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._me = this_process()[:LONGEST_NAME]
        self._engine = _engine(
            url,
            "written to",
            isolation_level="AUTOCOMMIT",
            poolclass=NullPool,
            connect_args={"application_name": self._me},
        )
        self._connection: Connection | None = self._connect()
        _wait_for_restarts(self._engine)
        self._mutex = threading.Lock()

    def check(self) -> None:
        """Take the lock again if the connection was lost.

        Raises
        ------
        LockHeld
            If another process has taken it in the meantime.
        """
        with self._mutex:
            if self._connection is not None:
                try:
                    self._connection.scalar(text("SELECT 1"))
                    return
                except UserError:
                    self._connection.invalidate()
                    self._connection = None
            self._connection = self._connect(again=True)

    def _connect(self, *, again: bool = False) -> Connection:
        connection = self._engine.connect()
        try:
            if again:
                # The server may not know yet that the earlier connection was lost.
                connection.execute(text(_END_EARLIER), {"me": self._me})
            if connection.scalar(text(f"SELECT pg_try_advisory_lock({LOCK})")):
                return connection
            raise LockHeld(self._url, connection.scalar(text(_HOLDER)) or "another process")
        except BaseException:
            connection.close()
            raise

    def keep(self, ended: threading.Event) -> None:
        """Take the lock again whenever it was lost, and release it when `ended` is set."""
        while not ended.wait(TICK):
            # The next writing transaction raises the error if it persists.
            with suppress(UserError):
                self.check()
        if self._connection is not None:
            with suppress(UserError):
                self._connection.close()
        self._engine.dispose()


_locks: dict[URL, _AdvisoryLock] = {}
"""The locks that this process holds."""

_END_EARLIER = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = :me AND pid <> pg_backend_pid()
"""

# The two halves of the number of a lock are stored in two columns.
_HOLDER = f"""
SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid)
WHERE locktype = 'advisory' AND granted AND datname = current_database()
AND (classid::bigint << 32) + objid::bigint = {LOCK}
"""


def _wait_for_restarts(engine: Engine) -> None:
    """Let new connections of an engine wait for a server that is restarted."""

    @event.listens_for(engine, "do_connect")
    def wait_for_server(dialect: Any, record: Any, args: Any, options: Any) -> Any:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return dialect.connect(*args, **options)
            except dialect.loaded_dbapi.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


def _engine(url: URL, action: str, **options: Any) -> Engine:
    """Return an engine that raises errors of the server as `UserError`."""
    if find_spec("psycopg") is None:
        raise UserError(
            f"psycopg is required for {url}; install it with `pip install 'slicebench[postgres]'`."
        )
    given = options.pop("connect_args", {})
    defaults = {"connect_timeout": "10", "application_name": "bench", "client_encoding": "utf8"}
    engine = create_engine(
        driver_url(url),
        pool_pre_ping=True,
        connect_args={k: v for k, v in (defaults | given).items() if k not in url.query},
        **options,
    )

    @event.listens_for(engine, "handle_error")
    def in_words(context: ExceptionContext) -> None:
        if context.is_pre_ping or not isinstance(context.sqlalchemy_exception, DBAPIError):
            return
        why = _reason(context.original_exception)
        if context.connection is None:
            remedy = (
                "Check the URL and that the server is running; the password can be given in "
                "PGPASSWORD or ~/.pgpass."
            )
        elif "permission denied" in why:
            remedy = "Ask the owner of the database for permission, or specify another --db."
        else:
            remedy = "Solve the problem and run the same command again; finished results are kept."
        kind = ConnectionLost if context.is_disconnect and context.connection else UserError
        raise kind(f"The database {url} cannot be {action}: {why}. {remedy}") from None

    return engine


def _reason(error: BaseException) -> str:
    """Return the message of an error without its details."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # If the name of a server has several addresses, the first line introduces a list.
    line = lines[1] if lines[0].startswith("Multiple") and len(lines) > 1 else lines[0]
    return line.rpartition(" failed: ")[2].removeprefix("FATAL:").strip().rstrip(".")


def _found_version(engine: Engine, url: URL) -> str | None:
    """Return the schema version of a database, None if it has no tables of slicebench.

    Raises
    ------
    UserError
        If it has a newer schema.
    """
    with engine.connect() as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        version = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    if version is not None and version not in migrations():
        raise UserError(
            f"The database {url} was written by a newer version of slicebench (schema {version}); "
            "install that version, or specify another database with --db."
        )
    return version
