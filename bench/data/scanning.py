"""Reading many scans: each read, conformed and measured once, by several processes if it pays."""

from __future__ import annotations

import hashlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import facts, formats, volume
from bench.data.formats import ScanError
from bench.data.volume import Conform
from bench.processes import cores, import_as_usual, importing_safely
from registry.errors import UserError

WORTH_A_POOL = 1 << 28
"""Bytes of files from which starting other processes pays."""

AHEAD = 4
"""Scans a process that wait to be read; more would only delay an end."""


@dataclass(frozen=True)
class Job:
    """What is done with every scan.

    Parameters
    ----------
    conform : Conform
        How it becomes a volume.
    array : str
        File to write the volume into, at its row; empty to keep none.
    start : int
        Where row 0 begins in that file.
    pictures : bool
        Return a thumbnail with the facts.
    """

    conform: Conform
    array: str = ""
    start: int = 0
    pictures: bool = False


def read_all(
    scans: Sequence[tuple[int, Sequence[Path]]], job: Job, workers: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read scans, in whatever order they are done.

    Parameters
    ----------
    scans : sequence of (int, sequence of Path)
        Each row and its files, of which the first that can be used is taken.
    job : Job
        What is done with each.
    workers : int, optional
        Processes; default: all cores, or this process where there is little to read.

    Yields
    ------
    number, row : int, dict
        The row, its facts (`bench.data.facts.FACTS`), its ``checksum``, ``picture`` if the job
        asks for one, and ``tried``, the facts of each file that was read, if the first of several
        cannot be used. The volume is on disk by then, if the job names an array.

    Raises
    ------
    UserError
        When a process is killed from outside.
    """
    if workers is None:
        much = sum(max(0, formats.stamp(files[0])[0]) for _, files in scans) >= WORTH_A_POOL
        registering = job.conform.register != "none"
        workers = cores() if much or registering else 1
    workers = min(workers, len(scans))
    if workers <= 1:
        for number, files in scans:
            yield number, do_scan(number, files, job)
        return
    # Not the fork server: it is kept for training, with torch imported.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
    running: dict[Future[dict[str, Any]], int] = {}
    left = iter(scans)
    try:
        while True:
            while len(running) < workers * AHEAD and (scan := next(left, None)) is not None:
                with importing_safely():
                    running[pool.submit(do_scan, *scan, job)] = scan[0]
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise UserError(
            "A process that read scans was killed, most likely for want of memory; the same "
            "command goes on where this one ended."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    import_as_usual()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def do_scan(number: int, files: Sequence[Path], job: Job) -> dict[str, Any]:
    """Read one scan, write its volume, and return its facts; see `read_all`."""
    from threadpoolctl import threadpool_limits

    # One thread: the bits must not depend on how many processes share the cores.
    with threadpool_limits(1):
        data, row, picture, tried = _first_usable(files, job)
    if len(tried) > 1:
        row["tried"] = tried
    content = data.tobytes()
    row["checksum"] = checksum(content)
    if job.pictures:
        row["picture"] = picture
    if job.array:
        descriptor = os.open(job.array, os.O_WRONLY)
        try:
            write_row(descriptor, content, job.start + number * len(content))
        finally:
            os.close(descriptor)
    return row


def _first_usable(
    files: Sequence[Path], job: Job
) -> tuple[NDArray[Any], dict[str, Any], NDArray[np.uint8] | None, list[dict[str, Any]]]:
    """Return what `read_scan` does of the first file that can be used, else of the first file.

    The last item is what was said of each file that was read, in order.
    """
    first, tried = None, []
    for file in files:
        found = read_scan(file, job.conform, picture=job.pictures)
        tried.append(dict(found[1]))
        first = first or found
        if not found[1]["reason"]:
            return *found, tried
    assert first is not None
    return *first, tried


def read_scan(
    file: Path, conform: Conform, *, picture: bool = False
) -> tuple[NDArray[Any], dict[str, Any], NDArray[np.uint8] | None]:
    """Read, conform, measure and standardise one scan.

    Parameters
    ----------
    file : Path
        The scan.
    conform : Conform
        What to.
    picture : bool
        Make a thumbnail.

    Returns
    -------
    data : ndarray of the stored type, (X, Y, Z)
        Zeros when the scan cannot be used.
    row : dict
        Its facts.
    picture : ndarray of uint8, or None
        Its thumbnail.
    """
    grid = conform.target
    row: dict[str, Any] = dict.fromkeys(facts.FACTS, "")
    shown = None
    try:
        scan = volume.load(file)
        row |= facts.described(scan.info)
        if conform.register == "affine":
            from bench.data.register import registered

            scan = registered(scan)
        data = volume.conform(scan, grid, conform.space)
        row |= facts.measured(data, grid)
        if picture:
            shown = facts.thumbnail(data)
        with np.errstate(over="ignore"):
            stored = volume.zscore(data, conform.zscore).astype(conform.dtype)
        if not np.isfinite(stored).all():
            raise ScanError("its values do not fit 16 bits; use zscore=whole")
    except ScanError as error:
        return np.zeros(grid.shape, conform.dtype), row | {"reason": str(error)}, shown
    return stored, row, shown


def write_row(descriptor: int, content: bytes, at: int) -> None:
    """Write bytes at a place of a file and wait until they are on disk."""
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], at + written)
    # macOS has no fdatasync.
    getattr(os, "fdatasync", os.fsync)(descriptor)


def checksum(content: bytes) -> str:
    """Return the checksum of a row's bytes."""
    return hashlib.sha256(content).hexdigest()[:16]
