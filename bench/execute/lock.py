"""The lock that allows only one driver per database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import Timeout
from sqlalchemy import URL

from bench.lock import LockHeld, locked, this_process
from bench.store.database import Database
from bench.store.postgres import PATIENCE, advisory_lock
from registry.errors import UserError

TICK = 1.0
"""Seconds between two attempts to get the lock."""
PAUSE = 3.0
"""Seconds for which a lock that was waited for is given back once."""


@contextmanager
def driver_lock(database: Database, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold ``<database>.lock``, or a lock of the server.

    Symbolic links to a database share its lock.

    Parameters
    ----------
    database : pathlib.Path or sqlalchemy.URL
        The database.
    say : callable, optional
        Called with the name of the process that holds the lock; then the lock is waited for.

    Raises
    ------
    LockHeld
        If another process holds the lock, unless `say` is given; the message names it.
    """
    with ExitStack() as stack:
        holder, seen = "", 0.0
        while True:
            try:
                with ExitStack() as found:
                    found.enter_context(_lock(database))
                    if not (holder and isinstance(database, URL)):
                        stack.push(found.pop_all())
                        break
                # If the server was restarted, the process that held the lock takes it again.
                holder = ""
                time.sleep(PAUSE)
                continue
            except LockHeld as held:
                if say is None:
                    raise
                seen = time.monotonic()
                if held.holder != holder:
                    holder = held.holder
                    say(f"Another command is writing to {database}: {holder}. Waiting for it ...")
            except UserError:
                # A server may be restarted while this waits.
                if not seen or time.monotonic() - seen > PATIENCE:
                    raise
            time.sleep(TICK)
        yield


@contextmanager
def _lock(database: Database) -> Iterator[None]:
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
            holder = file.read_text(errors="replace").strip() or "another process"
            remnant = "" if held.lock_file == str(file) else held.lock_file
            raise LockHeld(database, holder, remnant) from None
        except OSError as error:
            raise UserError(
                f"The lock file {file} cannot be written ({error.strerror}); choose a database in "
                "another directory with --db."
            ) from None
        yield
