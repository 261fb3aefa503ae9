"""Databases of results, which are files of SQLite or databases of a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Engine

from bench.store import engine, postgres

Database = Path | URL


def find_database(db: str) -> Database:
    """Return the database for a value of ``--db``.

    Raises
    ------
    UserError
        If it is neither a path, an ``sqlite:///`` URL nor a ``postgresql://`` URL.
    """
    return postgres.server_url(db) if postgres.is_server(db) else engine.database_file(db)


def name_of(database: Database) -> str:
    """Return a short name for titles."""
    if isinstance(database, Path):
        return database.name
    return f"{database.database} on {database.host or 'localhost'}"


def exists(database: Database) -> bool:
    """Return whether a database exists; opening a database of a server tells."""
    return isinstance(database, URL) or database.exists()


def has_content(database: Database) -> bool:
    """Return whether something is stored in a database."""
    if isinstance(database, URL):
        return postgres.has_tables(database)
    return engine.has_content(database)


def check_writable(database: Database) -> None:
    """Check a file without changing it; see `bench.store.engine.check_writable`."""
    if isinstance(database, Path):
        engine.check_writable(database)


def open_for_writing(database: Database) -> Engine:
    """Open or create a database and upgrade it to the current schema."""
    if isinstance(database, URL):
        return postgres.open_for_writing(database)
    return engine.open_for_writing(database)


def open_for_reading(database: Database) -> Engine:
    """Open an existing database, which is not changed."""
    if isinstance(database, URL):
        return postgres.open_for_reading(database)
    return engine.open_for_reading(database)


@contextmanager
def write_errors(database: Database) -> Iterator[None]:
    """Convert errors while writing to a `UserError`; engines of a server do so themselves."""
    if isinstance(database, URL):
        yield
        return
    with engine.write_errors(database):
        yield


def optuna_url(database: Database) -> str:
    """Return the URL for Optuna, which contains the password of a server."""
    if isinstance(database, URL):
        return postgres.driver_url(database)
    return engine.database_url(database, engine.WRITE).render_as_string()
