"""A control group with a limit of memory, for processes of a test."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PLACES = {
    "memory.limit_in_bytes": Path("/sys/fs/cgroup/memory"),
    "memory.max": Path("/sys/fs/cgroup"),
}
"""Where groups with this file are created: in version 1, and in version 2."""


@contextmanager
def control_group(megabytes: int) -> Iterator[Callable[[], None]]:
    """Create a group, and return what a process must call to join it.

    The test is skipped if groups cannot be created.
    """
    for name, place in PLACES.items():
        group = place / f"bench-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / name).exists():
                (group / name).write_text(str(megabytes * 2**20))
                yield lambda group=group: (group / "cgroup.procs").write_text("0")
                return
        finally:
            _remove(group)
    pytest.skip("this machine does not let a test create a control group with a limit of memory")


def _remove(group: Path) -> None:
    """Remove a group as soon as its last process has ended."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
