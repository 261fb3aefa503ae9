"""One driver a database: an operating-system lock that a dead driver cannot leave behind."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from registry.errors import UserError


@contextmanager
def driver_lock(database: Path) -> Iterator[None]:
    """Hold ``<database>.lock`` while this process drives.

    Raises
    ------
    UserError
        When another driver holds it; the sentence names that process.
    """
    file = database.with_name(database.name + ".lock")
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"The lock {file} cannot be written ({error.strerror}); choose another place with --db."
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(handle, 500).decode(errors="replace").strip() or "another process"
            raise UserError(
                f"Another run writes to {database}: {holder}. Wait for it, or use another --db."
            ) from None
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(handle, 0)
        os.write(
            handle, f"process {os.getpid()} on {socket.gethostname()} since {now} UTC".encode()
        )
        yield
    finally:
        os.close(handle)
