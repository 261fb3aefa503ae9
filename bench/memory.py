"""Memory of this machine: how much workers may use, and how much they need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from bench.processes import control_groups
from bench.spec import Arm
from registry.core import counted
from registry.errors import UserError

MEGABYTE = 2**20
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_memory(text: str) -> float:
    """Return an amount of memory such as ``8G`` or ``500M`` in MB.

    Raises
    ------
    UserError
        If it is not a positive number with one of the units K, M, G and T.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if found is None or not float(found[1]):
        raise UserError(f"--memory must be an amount such as 8G or 500M, got {text!r}.")
    return float(found[1]) * UNITS[found[2].upper()] / MEGABYTE


def available_memory(root: Path = Path("/")) -> float | None:
    """Return how much more memory in MB processes may use, None if it cannot be determined.

    This is the smallest of what the machine has available, and what each control group of this
    process (version 1 or 2) may still use. Pages of files do not count as used, because the system
    frees them when memory is needed.

    Parameters
    ----------
    root : pathlib.Path
        The directory that contains ``proc`` and ``sys``.
    """
    found = [*_machine(root)]
    for folder in control_groups("memory", root):
        found += _version_2(folder)
        found += _version_1(folder)
    return max(0.0, min(found) / MEGABYTE) if found else None


def _machine(root: Path) -> Iterator[int]:
    with suppress(OSError):
        text = (root / "proc/meminfo").read_text()
        yield from (1024 * int(n) for n in re.findall(r"^MemAvailable:\s*(\d+) kB", text, re.M))


def _version_2(folder: Path) -> Iterator[int]:
    with suppress(OSError):
        used = int((folder / "memory.current").read_text()) - _files(folder, "")
        for name in ("memory.max", "memory.high"):
            limit = (folder / name).read_text().strip()
            if limit != "max":
                yield int(limit) - used


def _version_1(folder: Path) -> Iterator[int]:
    # Without a limit, the number is larger than any machine.
    with suppress(OSError):
        limit = int((folder / "memory.limit_in_bytes").read_text())
        used = int((folder / "memory.usage_in_bytes").read_text())
        yield limit - used + _files(folder, "total_")


def _files(folder: Path, prefix: str) -> int:
    """Return the memory of a control group that holds pages of files."""
    text = (folder / "memory.stat").read_text()
    return sum(map(int, re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", text, re.M)))


def killed_for_memory(root: Path = Path("/")) -> int:
    """Return how many processes the system has killed because memory ran out.

    Those of this process's control group are counted, or of the machine if it has none.

    Parameters
    ----------
    root : pathlib.Path
        The directory that contains ``proc`` and ``sys``.
    """
    files = [
        folder / name
        for folder in control_groups("memory", root)
        for name in ("memory.events", "memory.oom_control")
    ]
    for file in [*files, root / "proc/vmstat"]:
        with suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", file.read_text(), re.M)
            if found:
                return int(found[1])
    return 0


class Needs:
    """How much memory units need, from finished ones.

    It is the peak memory of a worker without pages of files. Those are libraries, which workers
    share, and the memory map of the cohort, which the system frees when memory is needed. Memory
    that is shared with the process from which workers are forked (about 100 MB) is included.

    Parameters
    ----------
    peaks : iterable of (Arm, float)
        What earlier units needed in MB, on any machine and at any training size.
    """

    def __init__(self, peaks: Iterable[tuple[Arm, float]]) -> None:
        self._arms: dict[str, float] = {}
        self._kinds: dict[tuple[str, bool], float] = {}
        for arm, megabytes in peaks:
            self.learn(arm, megabytes)

    def learn(self, arm: Arm, megabytes: float) -> None:
        """Take into account a unit that has ended."""
        kind = _kind(arm)
        self._arms[arm.key] = max(megabytes, self._arms.get(arm.key, 0.0))
        self._kinds[kind] = max(megabytes, self._kinds.get(kind, 0.0))

    def of(self, arm: Arm) -> float | None:
        """Return the need of an arm's units in MB: the largest known, None if there is none.

        For an arm without a finished unit, it is that of all networks, or all estimators, on the
        same cohort.
        """
        return self._arms.get(arm.key, self._kinds.get(_kind(arm)))


def _kind(arm: Arm) -> tuple[str, bool]:
    """Return the cohort of an arm, and whether it is an estimator."""
    return arm.fingerprint, arm.precision is None


def workers_that_fit(workers: int, need: float, memory: float) -> tuple[int, str]:
    """Return how many workers to start, and a sentence if they are fewer than requested.

    Parameters
    ----------
    workers : int
        The requested number.
    need, memory : float
        What one worker needs and what is available, in MB.
    """
    fitting = max(1, min(workers, int(memory // max(need, 1.0))))
    if fitting == workers:
        return workers, ""
    return fitting, (
        f"{workers} workers need about {gigabytes(workers * need)} of memory, but "
        f"{gigabytes(memory)} are available, so {counted(fitting, 'unit runs', 'units run')} at a "
        "time."
    )


def gigabytes(megabytes: float) -> str:
    """Return an amount of memory as text, in GB with two significant digits."""
    value = megabytes / 1024
    return f"{value:.0f} GB" if value >= 10 else f"{value:.2g} GB"
