"""Display of progress: bars on a terminal, lines in log files and pipes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from bench.cli import streams

if TYPE_CHECKING:
    from rich.progress import TaskID

    from bench.expected import TimeLeft


MINUTE = 60.0
"""Minimum number of seconds between two lines about running units in logs and pipes."""
SHOWN = 8
"""Maximum number of running units to show."""
STILL = 10
"""Minutes after which a line is repeated even if nothing has changed."""


class PlainProgress:
    """One line per finished unit and at most one per minute about running units."""

    def __init__(self, left: TimeLeft, workers: int) -> None:
        self.total = left.total
        self.finished = 0
        self._left = left
        self._workers = workers
        self._labels: dict[str, str] = {}
        self._running: dict[str, str] = {}
        """The latest progress of each running unit."""
        # Threads of the executor report while the threads of the driver and the clock print.
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> PlainProgress:
        self._clock.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self._clock.join()

    def say(self, words: str) -> None:
        """Print a line; if the pipe was closed, continue without output."""
        with self._lock:
            try:
                print(words, flush=True)
            except BrokenPipeError:
                streams.forget_output()
                print("Standard output was closed; the run continues without it.", file=sys.stderr)

    def ask(self, question: str) -> str:
        """Ask the user a question; return the answer."""
        with self._lock:
            return input(question)

    def started(self, key: str, label: str) -> None:
        """Remember the unit; nothing is printed for queued units."""
        with self._lock:
            self._labels[key] = label

    def progressed(self, key: str, words: str, share: float) -> None:
        """Remember the progress of a unit for the next line."""
        with self._lock:
            self._running[key] = words

    def ended(self, key: str, label: str, state: str, seconds: float, error: str) -> None:
        """Print how a unit ended."""
        with self._lock:
            self._labels.pop(key, None)
            self._running.pop(key, None)
            self.finished += 1
            self._left.ended(key, seconds, done=state == "done")
            detail = f": {error}" if error else ""
            self.say(f"[{self.finished}/{self.total}] {label} {state} in {seconds:.1f} s{detail}")

    def warn(self, words: str) -> None:
        """Print a warning."""
        self.say(f"warning: {words}")

    def _tick(self) -> None:
        printed, quiet = "", 0
        while not self._over.wait(MINUTE):
            with self._lock:
                found = [
                    f"{self._labels[key]}, {words}"
                    for key, words in self._running.items()
                    if key in self._labels
                ]
                line = "; ".join(found[:SHOWN])
                if len(found) > SHOWN:
                    line += f"; and {len(found) - SHOWN} more"
                quiet += 1
                if line and (line != printed or quiet >= STILL):
                    left = _left(self._left, self._workers or len(found))
                    words = f"; {left}" if left else ""
                    self.say(f"[{self.finished}/{self.total}] running: {line}{words}")
                    printed, quiet = line, 0


class BarProgress:
    """A bar for the whole command and one for each running unit."""

    def __init__(self, left: TimeLeft, workers: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=Console(stderr=False),
        )
        self._left = left
        self._workers = workers
        self._all = self._progress.add_task("units", total=left.total, left="")
        self._labels: dict[str, str] = {}
        self._tasks: dict[str, TaskID] = {}
        # Threads of the executor report while the thread of the driver adds and removes bars.
        self._lock = threading.Lock()

    def __enter__(self) -> BarProgress:
        self._progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.stop()

    def say(self, words: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(words, markup=False, highlight=False)

    def ask(self, question: str) -> str:
        """Ask the user a question while the bars are hidden; return the answer."""
        self._progress.stop()
        try:
            return input(question)
        finally:
            self._progress.start()

    def started(self, key: str, label: str) -> None:
        """Remember the unit; its bar appears when it first reports progress."""
        with self._lock:
            self._labels[key] = label

    def progressed(self, key: str, words: str, share: float) -> None:
        """Update the bar of a unit."""
        with self._lock:
            label = self._labels.get(key)
            if label is None:
                return
            if key not in self._tasks:
                if len(self._tasks) >= SHOWN:
                    return
                self._tasks[key] = self._progress.add_task("", total=100, left="")
            self._progress.update(
                self._tasks[key], description=f"  {label}, {words}", completed=round(100 * share)
            )

    def ended(self, key: str, label: str, state: str, seconds: float, error: str) -> None:
        """Remove the bar of a unit and advance the main bar."""
        with self._lock:
            self._labels.pop(key, None)
            task = self._tasks.pop(key, None)
            if task is not None:
                self._progress.remove_task(task)
            self._left.ended(key, seconds, done=state == "done")
            left = _left(self._left, self._workers or len(self._tasks))
            self._progress.update(self._all, advance=1, left=left)
        if error:
            self.say(f"{label} {state} in {seconds:.1f} s: {error}")

    def warn(self, words: str) -> None:
        """Print a warning above the bars."""
        self.say(f"warning: {words}")


def make_progress(left: TimeLeft, workers: int) -> PlainProgress | BarProgress:
    """Return the display for standard output.

    Parameters
    ----------
    left : TimeLeft
        The units of the command.
    workers : int
        Number of units that run in parallel; 0 if it is not known.
    """
    return (BarProgress if _is_terminal() else PlainProgress)(left, workers)


def _left(left: TimeLeft, parallel: int) -> str:
    """Return the time left in words, if it is known."""
    from bench.expected import in_words

    seconds = left.seconds(parallel)
    return "" if seconds is None else f"{in_words(seconds)} left"


def _is_terminal() -> bool:
    """Return whether lines can be overwritten; dumb terminals would show nothing until the end."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb", "unknown")


class Ticker:
    """A counter for a long step: one line on a terminal, otherwise one line per minute."""

    def __init__(self, words: str) -> None:
        self.words = words
        self._terminal = _is_terminal()
        self._last = 0.0 if self._terminal else time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Show the progress of the step."""
        now = time.monotonic()
        if self._terminal and (now - self._last > 0.1 or done == total):
            self._last = now
            end = "\n" if done == total else ""
            print(f"\r{self.words} {done}/{total}", end=end, flush=True)
        elif not self._terminal and done == total:
            print(f"{self.words} {total}", flush=True)
        elif not self._terminal and now - self._last > MINUTE:
            self._last = now
            print(f"{self.words} {done}/{total}", flush=True)


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn Ctrl-C into a message and exit code 1, for work that can be resumed."""
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        # Python 3.11 wraps exceptions that are raised while a class is created, as in an import.
        if KeyboardInterrupt not in (type(error), type(error.__cause__)):
            raise
        print("\nStopped on request; run the same command again to resume.")
        raise typer.Exit(1) from None
