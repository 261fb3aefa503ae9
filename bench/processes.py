"""Child processes: available cores, import path and socket directory."""

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
"""The environment variable that keeps the working directory out of Python's import path."""

LONGEST_SOCKET = 100
"""Safe length of the path of a Unix socket: Linux allows 107 characters, macOS 103."""
SOCKET_NAME = len("/pymp-12345678/listener-12345678")
"""Characters that multiprocessing appends to the directory of temporary files."""


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use, according to its affinity and CPU quota.

    Parameters
    ----------
    root : pathlib.Path
        The directory that contains ``proc`` and ``sys``.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    found = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([found, *_quotas(root)]))


def threads_per_unit(workers: int) -> int:
    """Return the number of threads of each of `workers` concurrent units.

    The cores are divided equally. ``OMP_NUM_THREADS`` and ``SLURM_CPUS_PER_TASK`` can lower the
    number but not raise it.
    """
    found = cores()
    with suppress(KeyError, ValueError):
        found = min(found, int(os.environ["SLURM_CPUS_PER_TASK"]))
    found //= workers
    with suppress(KeyError, ValueError):
        # OpenMP accepts a list with one number per nesting level.
        found = min(found, int(os.environ["OMP_NUM_THREADS"].split(",")[0]))
    return max(1, found)


def _quotas(root: Path) -> Iterator[int]:
    """Yield the CPU quotas of this process's control groups (version 1 and 2) in whole cores."""
    for folder in control_groups("cpu", root):
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) // int(period)
        with suppress(OSError, ValueError):
            quota = (folder / "cpu.cfs_quota_us").read_text()
            # -1 means no limit.
            if int(quota) > 0:
                yield int(quota) // int((folder / "cpu.cfs_period_us").read_text())


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Yield the directories of this process's control groups, from the innermost outwards.

    Parameters
    ----------
    controller : str
        The controller of version 1, ``cpu`` or ``memory``. Groups of version 2 have all of them.
    root : pathlib.Path
        The directory that contains ``proc`` and ``sys``.
    """
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(errors="replace").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                mount = root / "sys/fs/cgroup"
            elif controller in controllers.split(","):
                mount = root / "sys/fs/cgroup" / controllers
            else:
                continue
            group = mount / path.lstrip("/")
            # In a container the path may be that of the host; then only the mount point exists.
            for folder in (group, *group.parents):
                yield folder
                if folder == mount:
                    break


@contextmanager
def importing_safely() -> Iterator[None]:
    """Keep the working directory out of the import path of Python processes started within.

    Otherwise a user's ``random.py``, ``registry.py`` or ``bench/`` would shadow a library. The
    processes call `import_as_usual` once they run, so that their own children are not affected.
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
    """Undo `importing_safely` in a process that was started within it."""
    os.environ.pop(SAFE_PATH, None)


def choose_short_socket_folder() -> None:
    """Choose another directory for multiprocessing's sockets if the path of TMPDIR is too long.

    Raises
    ------
    UserError
        If no directory with a short path is writable.
    """
    if len(os.fsencode(tempfile.gettempdir())) + SOCKET_NAME <= LONGEST_SOCKET:
        return
    before = tempfile.tempdir
    try:
        for folder in ("/tmp", "/var/tmp", "/dev/shm"):
            tempfile.tempdir = folder
            with suppress(OSError):
                # This creates the directory for all sockets of this process.
                multiprocessing.util.get_temp_dir()
                return
    finally:
        tempfile.tempdir = before
    raise UserError(
        f"The path of TMPDIR ({before}) is too long for the sockets of the workers. Set it to a "
        f"directory whose path has at most {LONGEST_SOCKET - SOCKET_NAME} characters."
    )
