"""The lock that allows only one driver per database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import Timeout
from sqlalchemy import URL

from bench.lock import locked, this_process
from bench.store.database import Database
from bench.store.postgres import advisory_lock
from registry.errors import UserError


@contextmanager
def driver_lock(database: Database) -> Iterator[None]:
    """Hold ``<database>.lock``, or a lock of the server.

    Symbolic links to a database share its lock.

    Raises
    ------
    UserError
        If another process holds the lock; the message names it.
    """
    if isinstance(database, URL):
        with advisory_lock(database):
            yield
        return
    file = Path(f"{database.resolve()}.lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(file, wait=False))
            file.write_text(this_process())
        except Timeout as held:
            raise UserError(_held(database, file, Path(held.lock_file))) from None
        except OSError as error:
            raise UserError(
                f"The lock file {file} cannot be written ({error.strerror}); choose a database in "
                "another directory with --db."
            ) from None
        yield


def _held(database: Path, file: Path, held: Path) -> str:
    """Return a message about the process that holds the lock."""
    holder = file.read_text(errors="replace").strip() or "another process"
    words = f"Another run is writing to {database}: {holder}. Wait for it, or use another --db"
    if held == file:
        return f"{words}."
    return f"{words}; if that process no longer exists, delete {held}."
