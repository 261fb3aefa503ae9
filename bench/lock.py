"""A lock between processes, released when its process ends."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from registry.errors import UserError

logger = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors of file systems without locks, such as some network file systems."""

PATIENCE = 10.0
"""Seconds of waiting for a lock before a warning is logged."""


class LockHeld(UserError):
    """Another process writes to a database.

    Parameters
    ----------
    database : object
        The database.
    holder : str
        A description of the process.
    remnant : str
        A file to delete if that process no longer exists; empty if the system releases its lock.
    """

    def __init__(self, database: object, holder: str, remnant: str = "") -> None:
        self.holder = holder
        words = f"Another command is writing to {database}: {holder}. Wait for it, or use another "
        super().__init__(
            f"{words}--db; if that process no longer exists, delete {remnant}."
            if remnant
            else f"{words}--db."
        )


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created if necessary.

    The operating system releases the lock when the process ends. On file systems without locks,
    the existence of ``<file>.held`` is the lock. It contains the id of the process, so that a
    process on the same machine removes it if that one no longer exists.

    Parameters
    ----------
    file : Path
        The lock file, which is not removed.
    wait : bool
        Whether to wait while another process holds the lock.

    Raises
    ------
    filelock.Timeout
        If another process holds the lock and `wait` is False; its `lock_file` is the file held.
    OSError
        If the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = _acquired(file, PATIENCE if wait else 0.0)
    except Timeout as held:
        if not wait:
            raise
        logger.warning("waiting for another process, which holds the lock %s", held.lock_file)
        lock = _acquired(file, -1.0)
    try:
        yield
    finally:
        lock.release()


def this_process() -> str:
    """Return a description of this process for others that wait for its lock."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()} since {now} UTC"


def _acquired(file: Path, timeout: float) -> BaseFileLock:
    lock: BaseFileLock = FileLock(file, timeout=timeout, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        lock = SoftFileLock(file.with_name(f"{file.name}.held"), timeout=timeout)
        lock.acquire()
    return lock
