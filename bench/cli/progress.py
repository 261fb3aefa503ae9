"""Showing what runs: a bar on a terminal, plain lines elsewhere."""

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


MINUTE = 60.0
"""Seconds between two lines on what runs, in logs and pipes."""
STILL = 10
"""Minutes after which a line is said again though nothing has changed."""


class PlainProgress:
    """One line a finished unit and, while units run, at most one a minute, for logs and pipes."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.finished = 0
        self._labels: dict[str, str] = {}
        self._running: dict[str, str] = {}
        """What was last heard of each unit that runs."""
        # Executor threads report while the driver's thread and the clock print.
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
        """Print a line; where nobody reads any more, the run goes on without."""
        with self._lock:
            try:
                print(words, flush=True)
            except BrokenPipeError:
                streams.forget_output()
                print("Nobody reads standard output any more; the run goes on.", file=sys.stderr)

    def started(self, key: str, label: str) -> None:
        """Remember the unit; nothing is printed for what is only queued."""
        with self._lock:
            self._labels[key] = label

    def progressed(self, key: str, words: str, share: float) -> None:
        """Remember what a unit does, for the line of this minute."""
        with self._lock:
            self._running[key] = words

    def ended(self, key: str, label: str, state: str, seconds: float, error: str) -> None:
        """Print how a unit ended."""
        with self._lock:
            self._labels.pop(key, None)
            self._running.pop(key, None)
            self.finished += 1
            detail = f": {error}" if error else ""
            self.say(f"[{self.finished}/{self.total}] {label} {state} in {seconds:.1f} s{detail}")

    def warn(self, words: str) -> None:
        """Print a warning."""
        self.say(f"warning: {words}")

    def _tick(self) -> None:
        said, quiet = "", 0
        while not self._over.wait(MINUTE):
            with self._lock:
                found = [
                    f"{self._labels[key]}, {words}"
                    for key, words in self._running.items()
                    if key in self._labels
                ]
                line = "; ".join(found)
                quiet += 1
                if line and (line != said or quiet >= STILL):
                    self.say(f"[{self.finished}/{self.total}] running: {line}")
                    said, quiet = line, 0


class BarProgress:
    """A bar for the whole command and a line for each unit that runs."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=False),
        )
        self._all = self._progress.add_task("units", total=total)
        self._labels: dict[str, str] = {}
        self._tasks: dict[str, TaskID] = {}
        # Executor threads report while the driver's thread adds and removes lines.
        self._lock = threading.Lock()

    def __enter__(self) -> BarProgress:
        self._progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.stop()

    def say(self, words: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(words, markup=False, highlight=False)

    def started(self, key: str, label: str) -> None:
        """Remember the unit; its line appears with its first word."""
        with self._lock:
            self._labels[key] = label

    def progressed(self, key: str, words: str, share: float) -> None:
        """Move a unit's bar."""
        with self._lock:
            label = self._labels.get(key)
            if label is None:
                return
            if key not in self._tasks:
                self._tasks[key] = self._progress.add_task("", total=100)
            self._progress.update(
                self._tasks[key], description=f"  {label}, {words}", completed=round(100 * share)
            )

    def ended(self, key: str, label: str, state: str, seconds: float, error: str) -> None:
        """Take a unit's line away and move the whole."""
        with self._lock:
            self._labels.pop(key, None)
            task = self._tasks.pop(key, None)
            if task is not None:
                self._progress.remove_task(task)
            self._progress.advance(self._all)
        if error:
            self.say(f"{label} {state} in {seconds:.1f} s: {error}")

    def warn(self, words: str) -> None:
        """Print a warning above the bars."""
        self.say(f"warning: {words}")


def make_progress(total: int) -> PlainProgress | BarProgress:
    """Return the display that suits standard output."""
    return BarProgress(total) if _is_terminal() else PlainProgress(total)


def _is_terminal() -> bool:
    """Tell whether lines can be renewed: a dumb terminal would show nothing until the end."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb", "unknown")


class Ticker:
    """A counter for one long step before the units: one line on a terminal, else one a minute."""

    def __init__(self, words: str) -> None:
        self.words = words
        self._terminal = _is_terminal()
        self._last = 0.0 if self._terminal else time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Show how far the step is."""
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
    """Turn Ctrl-C into a sentence and exit code 1, for work that goes on where it ended."""
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        # Python 3.11 wraps what is raised while a class is made, in an import say.
        if KeyboardInterrupt not in (type(error), type(error.__cause__)):
            raise
        print("\nStopped on request; the same command goes on where this one ended.")
        raise typer.Exit(1) from None
