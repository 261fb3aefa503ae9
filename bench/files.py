"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(file: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its name, and another's place, once it is on disk.

    A reader sees the old file or the new one, never half of it; where writing fails, the old one
    stays.

    Parameters
    ----------
    file : pathlib.Path
        Its name; the folder exists.

    Yields
    ------
    binary file
        A file beside it, of a name that no other process has.
    """
    part = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    try:
        with open(part, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def write_output(file: Path, content: bytes) -> None:
    """Write a file that a user asked for: whole, or not at all.

    Parameters
    ----------
    file : pathlib.Path
        Its name. A link is followed; what is not a regular file, such as ``/dev/stdout``, is
        written to directly.
    content : bytes
        All of it.
    """
    if file.exists() and not file.is_file():
        file.write_bytes(content)
        return
    with atomic_write(file.resolve()) as stream:
        stream.write(content)


def remove_parts(file: Path) -> None:
    """Remove what killed processes left beside a file that `atomic_write` writes."""
    for part in file.parent.glob(f".{file.name}-*"):
        part.unlink(missing_ok=True)
