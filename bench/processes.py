"""Processes that a command starts: how many there may be, what they import, where they listen."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from registry.errors import UserError

SAFE_PATH = "PYTHONSAFEPATH"
"""Python's variable that keeps the working directory out of the import path."""

LONGEST_SOCKET = 100
"""Characters that the path of a Unix socket may have anywhere: Linux takes 107, macOS 103."""
SOCKET_NAME = len("/pymp-12345678/listener-12345678")
"""Characters that multiprocessing adds to the folder of temporary files."""


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: its affinity, within its group's CPU quota.

    Parameters
    ----------
    root : pathlib.Path
        Where ``proc`` and ``sys`` are.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    found = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([found, *_quotas(root)]))


def threads_per_unit(workers: int) -> int:
    """Return the threads of each of `workers` units: its share of the cores.

    ``OMP_NUM_THREADS`` and ``SLURM_CPUS_PER_TASK`` only lower it.
    """
    found = cores()
    with suppress(KeyError, ValueError):
        found = min(found, int(os.environ["SLURM_CPUS_PER_TASK"]))
    found //= workers
    with suppress(KeyError, ValueError):
        # OpenMP takes a list, one number a level of nesting.
        found = min(found, int(os.environ["OMP_NUM_THREADS"].split(",")[0]))
    return max(1, found)


def _quotas(root: Path) -> Iterator[int]:
    """Yield the whole cores of every quota of this process's control groups, version 1 and 2."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(errors="replace").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                mount = root / "sys/fs/cgroup"
            elif "cpu" in controllers.split(","):
                mount = root / "sys/fs/cgroup" / controllers
            else:
                continue
            group = mount / path.lstrip("/")
            # In a container the path may be the host's; then only the mount itself is there.
            for folder in (group, *group.parents):
                yield from _quota(folder)
                if folder == mount:
                    break


def _quota(folder: Path) -> Iterator[int]:
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        yield int(quota) // int(period)
    with suppress(OSError, ValueError):
        quota = (folder / "cpu.cfs_quota_us").read_text()
        # -1 is no limit.
        if int(quota) > 0:
            yield int(quota) // int((folder / "cpu.cfs_period_us").read_text())


@contextmanager
def importing_safely() -> Iterator[None]:
    """Keep the working directory out of the import path of Python processes started meanwhile.

    Otherwise they take a user's ``random.py``, ``registry.py`` or ``bench/`` for a library's. They
    call `import_as_usual` once they run, for the sake of processes that they start in turn.
    """
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before


def import_as_usual() -> None:
    """Forget the variable of `importing_safely`, in a process that it started."""
    os.environ.pop(SAFE_PATH, None)


def choose_short_socket_folder() -> None:
    """Put multiprocessing's sockets elsewhere when the path of TMPDIR is too long for them.

    Raises
    ------
    UserError
        When no short folder for temporary files can be written.
    """
    if len(os.fsencode(tempfile.gettempdir())) + SOCKET_NAME <= LONGEST_SOCKET:
        return
    before = tempfile.tempdir
    try:
        for folder in ("/tmp", "/var/tmp", "/dev/shm"):
            tempfile.tempdir = folder
            with suppress(OSError):
                # Makes the folder in which all sockets of this process will lie.
                multiprocessing.util.get_temp_dir()
                return
    finally:
        tempfile.tempdir = before
    raise UserError(
        f"The path of TMPDIR ({before}) is too long for the socket of the workers; set it to a "
        f"folder with a path of at most {LONGEST_SOCKET - SOCKET_NAME} characters."
    )
