"""Room on the disk: taking it, and telling a full disk from other errors."""

from __future__ import annotations

import errno
import os

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room on the disk, in a user's share of it, or in a file of the largest size allowed."""


def is_full(error: BaseException) -> bool:
    """Tell whether an error says that there was no room to write: the same again may work."""
    return isinstance(error, OSError) and error.errno in FULL


def take_room(descriptor: int, size: int) -> None:
    """Give a file its size and, where the system can, the room on disk that it will need."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as error:
        # macOS does not have it, nor do some file systems.
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(descriptor, size)
