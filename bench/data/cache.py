"""Conformed volumes on disk: one memory-mapped float16 array a cohort, made once.

A folder ``volumes/<digest>`` holds ``volumes.npy``, (N, X, Y, Z), one row for each scan that the
adapter chose, and ``index.csv``, which says what each file was and why it was left out, if it was
(its row is zeros, and nothing points to it). The digest is that of the files' bytes and the
settings. A folder is complete or absent, whatever is killed when.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.data import volume
from bench.data.manifest import sha256_of
from bench.data.volume import GRIDS, Grid, Info, ScanError
from registry.errors import UserError

Progress = Callable[[int, int], None]
"""Told how many scans of how many are done."""

VOLUMES = "volumes.npy"
INDEX = "index.csv"
STAMPS = "scans.csv"


@dataclass(frozen=True)
class Conform:
    """How scans become volumes of one shape."""

    grid: str
    zscore: str
    space: str

    @property
    def target(self) -> Grid:
        """The grid itself."""
        return GRIDS[self.grid]


@dataclass(frozen=True)
class Cached:
    """A complete cache: its folder, and for each scan the sha256 of its file and a reason."""

    folder: Path
    sha256: Sequence[str]
    reasons: Sequence[str]
    """Why a scan was left out, ``""`` where its row is good."""


@contextmanager
def cohort_folder(folder: Path) -> Iterator[None]:
    """Hold a cohort's folder, making it if need be; a second process waits for the first.

    Raises
    ------
    UserError
        When the folder cannot be written, also for want of room, before or within the block.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Who holds the lock is alone: what is half built was left by a process that died.
            for left in folder.glob(".building-*"):
                shutil.rmtree(left)
            yield
    except OSError as error:
        raise UserError(
            f"The cache in {folder.parent.parent} cannot be written ({error.strerror}); make room "
            "there, or set BENCH_CACHE to another folder."
        ) from None


def prepare(
    files: Sequence[Path],
    conform: Conform,
    cohort: Path,
    cache_dir: Path,
    progress: Progress | None = None,
) -> Cached:
    """Return the cache of these scans, reading them only when they or the settings are new.

    A file counts as unchanged while its path, size and time of modification are the same. Call
    inside `cohort_folder`.

    Parameters
    ----------
    files : sequence of Path
        The scans, one row each.
    conform : Conform
        Grid, standardisation and space.
    cohort : Path
        The cohort's folder, where the files' stamps are kept.
    cache_dir : Path
        Holds ``volumes/``.
    progress : callable, optional
        Called after each scan that is read.

    Returns
    -------
    Cached

    Raises
    ------
    UserError
        When there is not enough room.
    OSError
        When the cache cannot be written; `cohort_folder` turns it into a sentence.
    """
    stamps = [_stamp(file) for file in files]
    known = _known_digests(cohort / STAMPS)
    digests = [known.get(stamp) for stamp in stamps]
    if all(digest is not None for digest in digests):
        folder = _folder(cache_dir, [str(digest) for digest in digests], conform)
        if _is_complete(folder, len(files), conform):
            return _read(folder)
    return _build(files, stamps, conform, cohort, cache_dir, progress)


def _build(
    files: Sequence[Path],
    stamps: Sequence[tuple[str, int, int]],
    conform: Conform,
    cohort: Path,
    cache_dir: Path,
    progress: Progress | None,
) -> Cached:
    grid = conform.target
    needed = len(files) * int(np.prod(grid.shape)) * 2
    free = shutil.disk_usage(cohort).free
    if needed > free:
        raise UserError(
            f"The volumes need {needed / 1e9:.1f} GB and {cache_dir} has {free / 1e9:.1f} GB left; "
            "make room, set BENCH_CACHE to another folder, or choose a coarser grid with "
            "--data-set grid=mni-4mm."
        )
    building = cohort / f".building-{uuid.uuid4().hex}"
    building.mkdir()
    try:
        rows = []
        # Written as a stream: a full disk is an error here and would kill a memory map's writer.
        with open(building / VOLUMES, "wb") as stream:
            shape = (len(files), *grid.shape)
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for done, file in enumerate(files, start=1):
                data, row = read_scan(file, conform)
                stream.write(data.tobytes())
                rows.append(row)
                if progress is not None:
                    progress(done, len(files))
            stream.flush()
            os.fsync(stream.fileno())
        index = pd.DataFrame(rows)
        index.to_csv(building / INDEX, index_label="row")
        folder = _folder(cache_dir, index["sha256"].tolist(), conform)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_dir() and not _is_complete(folder, len(files), conform):
            shutil.rmtree(folder)
        if not folder.is_dir():
            _publish(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    table = pd.DataFrame(stamps, columns=["path", "size", "mtime_ns"])
    table["sha256"] = index["sha256"]
    write_csv(table, cohort / STAMPS)
    return _read(folder)


def read_scan(file: Path, conform: Conform) -> tuple[NDArray[np.float16], dict[str, object]]:
    """Read, conform and standardise one scan.

    Parameters
    ----------
    file : Path
        The scan.
    conform : Conform
        What to.

    Returns
    -------
    data : ndarray of float16, (X, Y, Z)
        Zeros when the scan cannot be used.
    row : dict
        ``sha256`` of the file (``""`` when it cannot be read), ``reason`` (``""`` when the scan is
        good), and what its header says.
    """
    grid = conform.target
    row: dict[str, object] = {"sha256": "", "reason": ""}
    try:
        content, row["sha256"] = volume.read_bytes(file)
        scan = volume.parse(content, file.name)
        row |= _describe(scan.info)
        data = volume.zscore(volume.conform(scan, grid, conform.space), conform.zscore)
        with np.errstate(over="ignore"):
            stored = data.astype("<f2")
        if not np.isfinite(stored).all():
            raise ScanError("its values do not fit 16 bits; use zscore=whole")
    except ScanError as error:
        return np.zeros(grid.shape, "<f2"), row | {"reason": str(error)}
    return np.ascontiguousarray(stored), row


def _describe(info: Info) -> dict[str, object]:
    return {
        "shape": "x".join(map(str, info.shape)),
        "voxel_mm": "x".join(f"{mm:g}" for mm in info.voxel_mm),
        "orientation": info.orientation if info.oriented else "unknown",
        "n_nonfinite": info.n_nonfinite,
    }


def _folder(cache_dir: Path, digests: Sequence[str], conform: Conform) -> Path:
    settings = [volume.VERSION, conform.grid, conform.zscore, conform.space]
    return cache_dir / "volumes" / sha256_of([settings, list(digests)])[:16]


def _publish(building: Path, folder: Path) -> None:
    """Give a built cache its name; another cohort of the same files may have been faster."""
    try:
        building.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _is_complete(folder: Path, n: int, conform: Conform) -> bool:
    """Tell whether the folder holds an array of the expected shape."""
    try:
        found = np.load(folder / VOLUMES, mmap_mode="r")
    except (OSError, ValueError):
        return False
    return found.shape == (n, *conform.target.shape) and (folder / INDEX).is_file()


def _read(folder: Path) -> Cached:
    index = pd.read_csv(folder / INDEX, dtype=str, keep_default_na=False)
    return Cached(folder, index["sha256"].tolist(), index["reason"].tolist())


def _stamp(file: Path) -> tuple[str, int, int]:
    """Return path, size and time of modification; size -1 when there is no such file."""
    try:
        status = os.stat(file)
    except OSError:
        return str(file), -1, 0
    return str(file), status.st_size, status.st_mtime_ns


def _known_digests(file: Path) -> dict[tuple[str, int, int], str]:
    if not file.is_file():
        return {}
    table = pd.read_csv(file, dtype={"path": str, "sha256": str}, keep_default_na=False)
    rows = zip(table["path"], table["size"], table["mtime_ns"], table["sha256"], strict=True)
    return {(path, int(size), int(mtime)): digest for path, size, mtime, digest in rows}


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write a table so that a reader sees the old one or the new one, never half of it."""
    part = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    try:
        table.to_csv(part, index=False)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
