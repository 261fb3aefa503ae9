"""The interface of executors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from bench.unit import Unit

OnProgress = Callable[[str, str, float], None]
"""Called with the key of a running unit, its current step and the fraction completed."""


@dataclass(frozen=True)
class WorkerExit:
    """How a worker process ended; the driver checks whether it left an outcome."""

    attempt: str
    started: datetime
    finished: datetime
    exit_code: int
    """The negative number of a signal if a signal ended the process."""
    stderr: str = ""
    """What processes wrote to standard error before they opened their log."""
    reason: str = ""
    """Why the worker ended, if the executor knows more than the exit code."""
    cause: str = ""
    """What that means for another attempt; empty if only the exit code tells.

    ``lost``: the worker, its job or its machine vanished, so the unit may run again.
    ``memory``: there was not enough memory. ``cancelled``: somebody cancelled it.
    """


class Executor(Protocol):
    """Runs each unit of work in its own process.

    `registry.executor` registers a class or function that is called with the arguments of
    `bench.execute.local.LocalExecutor`. Units are passed on as `Unit.to_json`. The process calls
    `bench.execute.unit.work`, which writes the outcome into the directory of the unit.

    Executors on other machines (``remote`` on the card) are a `RemoteExecutor`.
    """

    def submit(self, unit: Unit) -> Future[WorkerExit]:
        """Queue a unit; the future completes when its process has ended for any reason."""

    def cancel(self) -> None:
        """Cancel queued units; running ones continue."""

    def kill(self) -> None:
        """Stop running units and start no more; must be safe to call in a signal handler."""

    def shutdown(self) -> None:
        """Stop everything, including running units, and release resources."""


class RemoteExecutor(Executor, Protocol):
    """Runs units on other machines, which share the directories ``work`` and ``cache`` with this.

    It is also called with ``options``, ``work``, ``cache`` and ``say``, as
    `bench.execute.slurm.SlurmExecutor`. The options are those of the table in ``bench.toml`` with
    the name of the executor, and of the command line.
    """

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """Check that the executor can be used with these options, before cohorts are read.

        Raises
        ------
        UserError
            If something is missing, or an option cannot be used.
        """

    @classmethod
    def threads(cls, options: Mapping[str, Any]) -> int:
        """Return the number of threads per unit that the options request."""

    @classmethod
    def scripts(
        cls,
        options: Mapping[str, Any],
        work: Path,
        *,
        workers: int,
        threads: int,
        units: Mapping[bool, int],
    ) -> Iterable[tuple[str, str]]:
        """Return a title and the text of each kind of batch script that would be submitted.

        Only called if the card of the executor says ``detachable``, like `detach`.

        Parameters
        ----------
        options : mapping
            Options by name.
        work : pathlib.Path
            The working directory of the units.
        workers, threads : int
            Maximum number of units that run in parallel, 0 for no maximum; and threads of each.
        units : mapping
            Number of units that would be started first, of networks (True) and estimators (False).

        Raises
        ------
        UserError
            As `check`.
        """

    def detach(self) -> None:
        """Start whatever waits and forget it: it continues without this process.

        Futures that are not done are cancelled, and `shutdown` neither stops anything nor removes
        files.
        """
