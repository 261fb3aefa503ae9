"""A lock between processes that a dead one cannot leave behind."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

logger = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system says that has no locks (some network disks)."""

PATIENCE = 10.0
"""Seconds after which it is said that a lock is waited for."""


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file alone, making it if need be.

    The system ends the lock together with its process. Where the file system has no locks, a file
    of its own is the lock: ``<file>.held``, which names its process, and which the next process of
    the same machine removes if that one is gone.

    Parameters
    ----------
    file : Path
        The lock file, which stays behind.
    wait : bool
        Wait while another process holds it.

    Raises
    ------
    filelock.Timeout
        When another process holds it and `wait` is False; its `lock_file` is the file that is held.
    OSError
        When the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = _acquired(file, PATIENCE if wait else 0.0)
    except Timeout as held:
        if not wait:
            raise
        logger.warning("waiting for another process, which holds %s", held.lock_file)
        lock = _acquired(file, -1.0)
    try:
        yield
    finally:
        lock.release()


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
