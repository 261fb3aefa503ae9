"""Files by which units on other machines report to the driver."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.files import atomic_write

PROGRESS = "progress.json"
"""File of a unit with its current step and the fraction completed."""
PROGRESS_SECONDS = 2.0
"""Minimum number of seconds between two changes of the progress."""


def write_json(file: Path, content: Any) -> None:
    """Write JSON so that readers see either the old or the new content."""
    with atomic_write(file) as stream:
        stream.write(json.dumps(content).encode())


def read_json(file: Path) -> Any:
    """Return the content of a file, or None if it does not exist."""
    with suppress(FileNotFoundError):
        return json.loads(file.read_text(encoding="utf-8"))
    return None


def latest_attempt(folder: Path) -> str:
    """Return the name of the latest attempt in the directory of a unit, or a new name."""
    attempts = sorted(folder.glob("attempt-*"), key=lambda file: file.stat().st_mtime)
    return attempts[-1].name.removeprefix("attempt-") if attempts else uuid.uuid4().hex


class ProgressFile:
    """Writes the progress of a unit, but not more often than necessary."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._latest = float("-inf")

    def __call__(self, key: str, words: str, share: float) -> None:
        """Write the progress unless it was written a moment ago."""
        if time.monotonic() - self._latest < PROGRESS_SECONDS:
            return
        self._latest = time.monotonic()
        with suppress(OSError):
            write_json(self._file, {"words": words, "share": share})
