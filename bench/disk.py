"""Disk space: reserving it, and distinguishing a full disk from other errors."""

from __future__ import annotations

import errno
import os

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space left on the disk, the quota of the user is used up, or the file would be too large."""


def is_full(error: BaseException) -> bool:
    """Tell whether an error means that the disk is full; the same call may succeed later."""
    return isinstance(error, OSError) and error.errno in FULL


def reserve_space(descriptor: int, size: int) -> None:
    """Set the size of a file and, if the system supports it, reserve the space on disk."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as error:
        # macOS and some file systems do not support posix_fallocate.
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(descriptor, size)
