"""The contract of an executor: every one of them passes the same test."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from bench.unit import Unit

OnProgress = Callable[[str, str, float], None]
"""Told (unit key, words, share done) while a unit runs."""


@dataclass(frozen=True)
class WorkerExit:
    """How a worker ended. Whether it left an outcome is for the driver to see."""

    attempt: str
    started: datetime
    finished: datetime
    exit_code: int
    """Negative for the number of the signal that killed it."""
    stderr: str = ""
    """What was written to standard error meanwhile by processes that had no log yet."""


class Executor(Protocol):
    """Runs units, each in a process of its own.

    `registry.executor` registers a class or function that makes one from the arguments of
    `bench.execute.local.LocalExecutor`. A unit travels as `Unit.to_json`; the process calls
    `bench.execute.unit.work`, which leaves the outcome in the unit's folder.
    """

    def submit(self, unit: Unit) -> Future[WorkerExit]:
        """Queue a unit; the future is done when its process has ended, however it ended."""

    def cancel(self) -> None:
        """Drop what is queued; what runs goes on."""

    def kill(self) -> None:
        """End what runs and start nothing more; safe in a signal handler."""

    def shutdown(self) -> None:
        """End everything at once, what runs included, and free the slots."""
