"""What a Slurm job runs on its compute node.

The job runs its unit with the executor of a single machine, so a unit has the same process, pipe
and outcome as locally. What the driver would learn from the pipe, the job writes to files.
"""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.execute.base import WorkerExit
from bench.execute.local import LocalExecutor
from bench.execute.unit import OUTCOME, TIME_LIMIT_EXIT
from bench.files import atomic_write
from bench.unit import Unit

ENDED = "ended.json"
"""File of a unit that states how its process ended."""
PROGRESS = "progress.json"
"""File of a unit with its current step and the fraction completed."""
SEEN = "seen.json"
"""File with the directories that a probe did not find."""
PROGRESS_SECONDS = 2.0
"""Minimum number of seconds between two changes of the progress."""


@dataclass(frozen=True)
class UnitJob:
    """A job that runs a unit; submitit stores it in a file.

    Parameters
    ----------
    unit : str
        The unit as JSON.
    """

    unit: str

    def __call__(self) -> None:
        """Run the unit and write how its process ended."""
        from submitit.core.utils import UncompletedJobError

        unit = Unit.from_json(self.unit)
        folder = Path(unit.folder)
        if (folder / OUTCOME).is_dir():
            # The job was requeued after its unit had ended.
            return
        started = datetime.now(UTC)
        # Slurm announces a time limit or preemption by signals to all processes. The worker must
        # not end because of them, since this process decides what happens.
        with _ignored():
            executor = LocalExecutor(
                1, gpus=0, preload=[], on_progress=_ProgressFile(folder / PROGRESS)
            )
        try:
            ended = executor.submit(unit).result()
        except UncompletedJobError:
            # Raised by submitit if the job may not be requeued again.
            ended = WorkerExit(uuid.uuid4().hex, started, datetime.now(UTC), TIME_LIMIT_EXIT)
        finally:
            executor.shutdown()
        # If the directory is missing, a driver has already stored the outcome.
        with suppress(FileNotFoundError):
            write_json(folder / ENDED, exit_to_plain(ended))

    def checkpoint(self) -> Any:
        """Return what submitit requeues; the unit resumes from its own checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class Probe:
    """A job that checks whether a compute node sees some directories.

    Parameters
    ----------
    folder : str
        The directory in which the result is written.
    tokens : sequence of str
        A file in each of the directories.
    """

    folder: str
    tokens: Sequence[str]

    def __call__(self) -> None:
        """Write the directories that are missing."""
        missing = [str(Path(file).parent) for file in self.tokens if not Path(file).exists()]
        write_json(Path(self.folder) / SEEN, {"missing": missing})


def write_json(file: Path, content: Any) -> None:
    """Write JSON so that readers see either the old or the new content."""
    with atomic_write(file) as stream:
        stream.write(json.dumps(content).encode())


def read_json(file: Path) -> Any:
    """Return the content of a file, or None if it does not exist."""
    with suppress(FileNotFoundError):
        return json.loads(file.read_text(encoding="utf-8"))
    return None


def exit_to_plain(ended: WorkerExit) -> dict[str, Any]:
    """Return how a worker ended as JSON types."""
    times = {"started": ended.started.isoformat(), "finished": ended.finished.isoformat()}
    return {**asdict(ended), **times}


def exit_from_plain(values: dict[str, Any]) -> WorkerExit:
    """Invert `exit_to_plain`."""
    times = {name: datetime.fromisoformat(values[name]) for name in ("started", "finished")}
    return WorkerExit(**{**values, **times})


class _ProgressFile:
    """Writes the progress of a unit, but not more often than necessary."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._latest = float("-inf")

    def __call__(self, key: str, words: str, share: float) -> None:
        if time.monotonic() - self._latest < PROGRESS_SECONDS:
            return
        self._latest = time.monotonic()
        with suppress(OSError):
            write_json(self._file, {"words": words, "share": share})


@contextmanager
def _ignored() -> Iterator[None]:
    """Let processes that are started within ignore the signals that announce the end of a job."""
    from submitit.core.job_environment import JobEnvironment

    announced = (signal.SIGTERM, signal.Signals[f"SIG{JobEnvironment.USR_SIG}"])
    before = [signal.signal(each, signal.SIG_IGN) for each in announced]
    try:
        yield
    finally:
        for each, handler in zip(announced, before, strict=True):
            signal.signal(each, handler)
