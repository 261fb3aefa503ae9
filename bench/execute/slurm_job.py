"""What a Slurm job runs on its compute node.

The job runs its unit with the executor of a single machine, so a unit has the same process, pipe
and outcome as locally. What the driver would learn from the pipe, the job writes to files.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.execute.base import WorkerExit
from bench.execute.local import LocalExecutor
from bench.execute.remote import PROGRESS, ProgressFile, write_json
from bench.execute.unit import OUTCOME, TIME_LIMIT_EXIT
from bench.unit import Unit

ENDED = "ended.json"
"""File of a unit that states how its process ended."""
SEEN = "seen.json"
"""File with the directories that a probe did not find."""


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
        if (folder / OUTCOME).is_dir() or not folder.is_dir():
            # The job was requeued after its unit had ended; a driver may have stored the outcome.
            return
        # The end of a worker that was killed when the job was requeued.
        (folder / ENDED).unlink(missing_ok=True)
        started = datetime.now(UTC)
        # Slurm announces a time limit or preemption by signals to all processes. The worker must
        # not end because of them, since this process decides what happens.
        with _ignored():
            executor = LocalExecutor(
                1, gpus=0, preload=[], on_progress=ProgressFile(folder / PROGRESS)
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


def exit_to_plain(ended: WorkerExit) -> dict[str, Any]:
    """Return how a worker ended as JSON types."""
    times = {"started": ended.started.isoformat(), "finished": ended.finished.isoformat()}
    return {**asdict(ended), **times}


def exit_from_plain(values: dict[str, Any]) -> WorkerExit:
    """Invert `exit_to_plain`."""
    times = {name: datetime.fromisoformat(values[name]) for name in ("started", "finished")}
    return WorkerExit(**{**values, **times})


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
