"""Conformed volumes on disk: one memory-mapped array a cohort, made once.

A folder ``volumes/<digest>`` holds ``volumes.npy``, (N, X, Y, Z), one row for each scan that was
chosen, and ``index.csv``, which says what each scan is (`bench.data.facts.FACTS`) and the checksum
of its row; the row of a scan that cannot be used is zeros, and nothing points to it. The digest is
that of the scans' voxels and the settings. A folder is complete or absent, whatever is killed when:
rows are written into ``.building-*`` in the cohort's folder with a journal, from which the next
process goes on.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.data import facts, formats, volume
from bench.data.manifest import sha256_of
from bench.data.scanning import Job, checksum, read_all, write_row
from bench.data.volume import Conform
from bench.lock import locked
from bench.room import take_room
from registry.errors import UserError

Progress = Callable[[int, int], None]
"""Told how many scans of how many are done."""

VOLUMES = "volumes.npy"
INDEX = "index.csv"
STAMPS = "scans.csv"
JOURNAL = "rows.jsonl"
ABOUT = "about.json"
BUILDING = ".building-"


@dataclass(frozen=True)
class Cached:
    """A complete cache: its folder, and the facts of each scan, one row a row of the array."""

    folder: Path
    facts: pd.DataFrame


@contextmanager
def cohort_folder(folder: Path) -> Iterator[None]:
    """Hold a cohort's folder, making it if need be; a second process waits for the first.

    Who only reads what is complete needs no lock, and no permission to write.

    Raises
    ------
    UserError
        When the folder cannot be written, also for want of room, before or within the block.
    """
    try:
        with locked(folder / ".lock"):
            yield
    except OSError as error:
        raise UserError(
            f"The cache in {folder.parent.parent} cannot be written ({error.strerror}); make room "
            "there, or set BENCH_CACHE to another folder; what is done is kept."
        ) from None


def prepare(
    files: Sequence[Path],
    conform: Conform,
    cohort: Path,
    cache_dir: Path,
    progress: Progress | None = None,
    *,
    root: Path | None = None,
    workers: int | None = None,
    verify: bool = False,
) -> Cached:
    """Return the cache of these scans, reading them only when they or the settings are new.

    A scan counts as unchanged while its path, size and time of modification are the same. Call
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
    root : Path, optional
        Where the dataset lies, for those who list what is prepared.
    workers : int, optional
        Processes that read; default: all cores, or this process where there is little to read.
    verify : bool
        Compare every stored volume with its checksum, and make those anew that differ.

    Returns
    -------
    Cached

    Raises
    ------
    UserError
        When there is not enough room, or a process that reads is killed.
    OSError
        When the cache cannot be written; `cohort_folder` turns it into a sentence.
    """
    found = complete(files, conform, cohort, cache_dir)
    if found is not None and not (verify and _damaged(found, conform)):
        return found
    stamps = [(str(file), *formats.stamp(file)) for file in files]
    building = cohort / f"{BUILDING}{sha256_of([_settings(conform), stamps])[:16]}"
    for other in cohort.glob(f"{BUILDING}*"):
        if other != building:
            shutil.rmtree(other)
    rows = _Rows(building, len(files), conform)
    try:
        if rows.fresh and not verify:
            _copy_earlier(rows, stamps, cohort, cache_dir, conform)
        todo = [number for number in range(len(files)) if number not in rows.done]
        job = Job(conform, str(building / VOLUMES), rows.start)
        for number, row in read_all([(i, files[i]) for i in todo], job, workers):
            rows.add(number, row)
            if progress is not None:
                progress(len(rows.done), len(files))
        index = rows.finish()
    finally:
        rows.close()
    folder = _folder(cache_dir, _identities(index), conform)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir() and (verify or not _is_complete(folder, len(files), conform)):
        shutil.rmtree(folder)
    _publish(building, folder)
    table = pd.DataFrame(stamps, columns=["path", "size", "mtime_ns"], dtype=object)
    write_csv(table.assign(identity=_identities(index)), cohort / STAMPS)
    about = {"settings": _settings(conform), "in": folder.name, "root": str(root or "")}
    _write_whole(cohort / ABOUT, json.dumps(about).encode())
    return Cached(folder, index)


def complete(
    files: Sequence[Path], conform: Conform, cohort: Path, cache_dir: Path
) -> Cached | None:
    """Return the cache of these scans if it is there, None if anything must be read."""
    known = _known_identities(cohort / STAMPS)
    identities = [known.get((str(file), *formats.stamp(file))) for file in files]
    if any(identity is None for identity in identities):
        return None
    folder = _folder(cache_dir, [str(identity) for identity in identities], conform)
    if not _is_complete(folder, len(files), conform):
        return None
    return Cached(folder, _read_index(folder))


class _Rows:
    """The array that is being built, and the journal of its rows that are safe on disk."""

    def __init__(self, building: Path, n: int, conform: Conform) -> None:
        self.building, self.n, self.conform = building, n, conform
        self.fresh = not (building / JOURNAL).is_file()
        header = {
            "descr": conform.dtype.str,
            "fortran_order": False,
            "shape": (n, *conform.target.shape),
        }
        if self.fresh:
            shutil.rmtree(building, ignore_errors=True)
            self._reserve(header)
        with open(building / VOLUMES, "rb") as stream:
            np.lib.format.read_magic(stream)
            np.lib.format.read_array_header_1_0(stream)
            self.start = stream.tell()
        self._volumes = os.open(building / VOLUMES, os.O_RDWR)
        self.done = self._resume()
        self._journal = open(building / JOURNAL, "a", encoding="utf-8")  # noqa: SIM115

    def _reserve(self, header: dict[str, Any]) -> None:
        """Write the array's header and take all the room that it will need."""
        needed = self.n * self.conform.row_bytes
        free = shutil.disk_usage(self.building.parent).free
        if needed > free:
            raise UserError(
                f"The volumes need {needed / 1e9:.1f} GB and {self.building.parent.parent.parent} "
                f"has {free / 1e9:.1f} GB left; make room, set BENCH_CACHE to another folder, or "
                "choose a coarser grid with --data-set grid=mni-4mm."
            )
        self.building.mkdir()
        try:
            with open(self.building / VOLUMES, "wb") as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                stream.flush()
                take_room(stream.fileno(), stream.tell() + needed)
                os.fsync(stream.fileno())
        except OSError:
            shutil.rmtree(self.building)
            raise

    def _resume(self) -> dict[int, dict[str, Any]]:
        """Return the rows that an earlier process finished and whose bytes are what they were."""
        done: dict[int, dict[str, Any]] = {}
        file = self.building / JOURNAL
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            # The last line was being written when its process died.
            os.truncate(file, len(whole.encode()))
        for line in whole.splitlines():
            row = json.loads(line)
            if checksum(self.read(row["row"])) == row["checksum"]:
                done[row["row"]] = row
        return done

    def read(self, number: int) -> bytes:
        """Return the bytes of a row."""
        size = self.conform.row_bytes
        return os.pread(self._volumes, size, self.start + number * size)

    def write(self, number: int, content: bytes) -> None:
        """Write the bytes of a row."""
        write_row(self._volumes, content, self.start + number * self.conform.row_bytes)

    def add(self, number: int, row: dict[str, Any]) -> None:
        """Note a row as done; its bytes are on disk already."""
        line = {"row": number, **row}
        self._journal.write(json.dumps(line) + "\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self.done[number] = line

    def finish(self) -> pd.DataFrame:
        """Write the index of a whole array and return it."""
        os.fsync(self._volumes)
        index = pd.DataFrame([self.done[number] for number in range(self.n)])
        index = index.reindex(columns=["row", *facts.FACTS, "checksum"])
        with open(self.building / INDEX, "w", encoding="utf-8") as stream:
            index.to_csv(stream, index=False)
            stream.flush()
            os.fsync(stream.fileno())
        return _read_index(self.building)

    def close(self) -> None:
        """Close both files; what is done stays."""
        self._journal.close()
        os.close(self._volumes)


def _copy_earlier(
    rows: _Rows,
    stamps: Sequence[tuple[str, int, int]],
    cohort: Path,
    cache_dir: Path,
    conform: Conform,
) -> None:
    """Take over the rows of this cohort's earlier cache whose scans are the same."""
    try:
        earlier = json.loads((cohort / ABOUT).read_text())
        folder = cache_dir / "volumes" / earlier["in"]
        if earlier["settings"] != _settings(conform) or not (folder / INDEX).is_file():
            return
        index = _read_index(folder)
        stored = np.load(folder / VOLUMES, mmap_mode="r")
    except (OSError, ValueError, KeyError):
        return
    known = _known_identities(cohort / STAMPS)
    at = {identity: number for number, identity in enumerate(_identities(index))}
    for number, stamp in enumerate(stamps):
        place = at.get(known.get(stamp, ""))
        if place is None or index["sha256"][place] == "":
            continue
        content = stored[place].tobytes()
        row = {str(name): value for name, value in index.iloc[place].to_dict().items()}
        if checksum(content) == row["checksum"]:
            rows.write(number, content)
            rows.add(number, {name: row[name] for name in row if name != "row"})


def _damaged(found: Cached, conform: Conform) -> bool:
    """Tell whether a stored volume differs from its checksum."""
    stored = np.load(found.folder / VOLUMES, mmap_mode="r")
    sums = found.facts["checksum"]
    return any(checksum(stored[row].tobytes()) != sums[row] for row in range(len(stored)))


def _settings(conform: Conform) -> list[Any]:
    return [volume.VERSION, dataclasses.asdict(conform)]


def _folder(cache_dir: Path, identities: Sequence[str], conform: Conform) -> Path:
    return cache_dir / "volumes" / sha256_of([_settings(conform), list(identities)])[:16]


def _identities(index: pd.DataFrame) -> list[str]:
    """Return what decides each row: the scan's voxels and affine, or why it has none."""
    rows = zip(index["sha256"], index["affine"], index["reason"], strict=True)
    return [f"{digest} {affine}" if digest else reason for digest, affine, reason in rows]


def _publish(building: Path, folder: Path) -> None:
    """Give a built cache its name; another cohort of the same files may have been faster."""
    try:
        building.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(building)
    (folder / JOURNAL).unlink(missing_ok=True)


def _is_complete(folder: Path, n: int, conform: Conform) -> bool:
    """Tell whether the folder holds an array of the expected shape."""
    try:
        found = np.load(folder / VOLUMES, mmap_mode="r")
    except (OSError, ValueError):
        return False
    return found.shape == (n, *conform.target.shape) and (folder / INDEX).is_file()


def _read_index(folder: Path) -> pd.DataFrame:
    return facts.typed(pd.read_csv(folder / INDEX, dtype=str, keep_default_na=False))


def _known_identities(file: Path) -> dict[tuple[str, int, int], str]:
    if not file.is_file():
        return {}
    # Not by pandas, whose texts must be UTF-8.
    with open(file, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return {
            (row["path"], int(row["size"]), int(row["mtime_ns"])): row["identity"]
            for row in csv.DictReader(stream)
        }


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write a table so that a reader sees the old one or the new one, never half of it."""
    _write_whole(file, as_csv(table))


def as_csv(table: pd.DataFrame) -> bytes:
    """Return a table as `write_csv` writes it; file names need not be UTF-8."""
    return table.to_csv(index=False).encode(errors="surrogateescape")


def _write_whole(file: Path, content: bytes) -> None:
    part = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    try:
        with open(part, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
