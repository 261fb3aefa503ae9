"""Atomic writing of files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(file: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `file` once it is complete and on disk.

    Readers see either the old file or the complete new one. If writing fails, the old file is
    kept.

    Parameters
    ----------
    file : pathlib.Path
        The file to write, in an existing directory.

    Yields
    ------
    binary file
        A temporary file in the same directory, whose name no other process uses.
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
    """Remove the temporary files that killed processes left in `atomic_write`."""
    for part in file.parent.glob(f".{file.name}-*"):
        part.unlink(missing_ok=True)
