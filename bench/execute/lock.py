"""One driver a database: an operating-system lock that a dead driver cannot leave behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import Timeout

from bench.lock import locked
from registry.errors import UserError


@contextmanager
def driver_lock(database: Path) -> Iterator[None]:
    """Hold ``<database>.lock`` while this process drives; a link and its file have one lock.

    Raises
    ------
    UserError
        When another driver holds it; the sentence names that process.
    """
    file = Path(f"{database.resolve()}.lock")
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(file, wait=False))
            file.write_text(f"process {os.getpid()} on {socket.gethostname()} since {now} UTC")
        except Timeout as held:
            raise UserError(_held(database, file, Path(held.lock_file))) from None
        except OSError as error:
            raise UserError(
                f"The lock {file} cannot be written ({error.strerror}); choose another place with "
                "--db."
            ) from None
        yield


def _held(database: Path, file: Path, held: Path) -> str:
    """Return who drives a database, in words."""
    holder = file.read_text(errors="replace").strip() or "another process"
    words = f"Another run writes to {database}: {holder}. Wait for it, or use another --db"
    return f"{words}." if held == file else f"{words}; if that process is gone, delete {held}."
