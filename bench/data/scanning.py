"""Reading many scans: each is read, resampled and measured once, in parallel if worthwhile."""

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
"""Total size of the files in bytes above which reading in parallel is worthwhile."""

AHEAD = 4
"""Number of scans queued per process; longer queues would only delay stopping."""


@dataclass(frozen=True)
class Job:
    """What is done with each scan.

    Parameters
    ----------
    conform : Conform
        How the volume is prepared.
    array : str
        File to which the volumes are written; empty to discard them.
    start : int
        Position of row 0 in that file.
    pictures : bool
        Whether thumbnails are returned with the facts.
    """

    conform: Conform
    array: str = ""
    start: int = 0
    pictures: bool = False


def read_all(
    scans: Sequence[tuple[int, Sequence[Path]]], job: Job, workers: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read scans and yield their facts as they are completed, in any order.

    Parameters
    ----------
    scans : sequence of (int, sequence of Path)
        The number of each row and its files, of which the first usable one is taken.
    job : Job
        What is done with each scan.
    workers : int, optional
        Number of processes; by default one per core, or only this process if there is little to
        read.

    Yields
    ------
    number, row : int, dict
        The number of the row and its facts (`bench.data.facts.FACTS`), with its ``checksum``,
        ``picture`` if `job` requests thumbnails, and ``tried``, the facts of all files that were
        read, if the first of several cannot be used. If `job` names an array, the volume has been
        written to it.

    Raises
    ------
    UserError
        If a process is killed.
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
    # The fork server is not used because its processes for training have imported torch.
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
            "A process that read scans was killed, most likely because memory ran out; run the "
            "same command again to continue."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """Ignore Ctrl-C, which the parent process handles, and exit when the parent exits."""
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

    # With one thread, the results do not depend on the number of processes that share the cores.
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
    """Return the result of `read_scan` for the first usable file, else for the first file.

    The last item contains the facts of all files that were read, in order.
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
    """Read, resample, measure and standardise one scan.

    Parameters
    ----------
    file : Path
        The scan.
    conform : Conform
        Grid, standardisation, space and type.
    picture : bool
        Whether a thumbnail is returned.

    Returns
    -------
    data : ndarray of the stored type, (X, Y, Z)
        The prepared volume; zeros if the scan cannot be used.
    row : dict
        The facts of the scan.
    picture : ndarray of uint8, or None
        The thumbnail.
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
    """Write bytes at a position of a file and wait until they are on disk."""
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], at + written)
    # macOS has no fdatasync.
    getattr(os, "fdatasync", os.fsync)(descriptor)


def checksum(content: bytes) -> str:
    """Return the checksum of a row's bytes."""
    return hashlib.sha256(content).hexdigest()[:16]
