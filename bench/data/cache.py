"""Cache of prepared volumes: one memory-mapped array per cohort, created once.

A folder ``volumes/<digest>`` contains ``volumes.npy``, (N, X, Y, Z), with one row for each chosen
scan, and ``index.csv`` with the facts of each scan (`bench.data.facts.FACTS`) and the checksum of
its row. The digest covers the voxels of the scans and the settings. If a scan cannot be used, the
first usable image of the same visit replaces it; if there is none, its row is zero and is not
referred to. The facts of all files that were read, including unusable ones, are in ``scans.csv``
in the cohort's folder.

A folder is either complete or absent, even if processes are killed: rows are first written to
``.building-*`` in the cohort's folder, with a journal from which the next process continues.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.data import facts, formats, volume
from bench.data.manifest import sha256_of
from bench.data.scanning import Job, checksum, read_all, write_row
from bench.data.volume import Conform
from bench.disk import reserve_space
from bench.files import atomic_write
from bench.lock import locked
from registry.errors import UserError

Progress = Callable[[int, int], None]
"""Called with the number of scans done and their total number."""

VOLUMES = "volumes.npy"
INDEX = "index.csv"
STAMPS = "scans.csv"
JOURNAL = "rows.jsonl"
ABOUT = "about.json"
BUILDING = ".building-"


@dataclass(frozen=True)
class Cached:
    """A complete cache.

    Parameters
    ----------
    folder : Path
        The folder that contains the array.
    facts : DataFrame
        The facts of each scan, in the order of the array's rows.
    unusable : dict
        The reason why a file cannot be used, for each unusable file that was read.
    """

    folder: Path
    facts: pd.DataFrame
    unusable: dict[Path, str] = field(default_factory=dict)


@contextmanager
def cohort_folder(folder: Path) -> Iterator[None]:
    """Lock a cohort's folder, creating it if needed; a second process waits for the first.

    Reading a complete cache needs neither the lock nor permission to write.

    Raises
    ------
    UserError
        If the folder cannot be written, in or before the block, for example because the disk is
        full.
    """
    try:
        with locked(folder / ".lock"):
            yield
    except OSError as error:
        raise UserError(
            f"The cache in {folder.parent.parent} cannot be written ({error.strerror}); free space "
            "there or set BENCH_CACHE to another folder. Scans prepared so far are kept."
        ) from None


def prepare(
    files: Sequence[Path],
    conform: Conform,
    cohort: Path,
    cache_dir: Path,
    progress: Progress | None = None,
    *,
    substitutes: Mapping[int, Sequence[Path]] | None = None,
    root: Path | None = None,
    workers: int | None = None,
    verify: bool = False,
) -> Cached:
    """Return the cache of these scans, reading only those that are new or have new settings.

    A scan is considered unchanged if its path, size and modification time are the same. Call this
    function within `cohort_folder`.

    Parameters
    ----------
    files : sequence of Path
        The scans, one per row.
    conform : Conform
        Grid, standardisation and space.
    cohort : Path
        The cohort's folder, in which size and modification time of the files are stored.
    cache_dir : Path
        The folder that contains ``volumes/``.
    progress : callable, optional
        Called after each scan that is read.
    substitutes : mapping, optional
        For each row, the files that are tried in this order if its own file cannot be used.
    root : Path, optional
        The root directory of the dataset, for listings of the prepared volumes.
    workers : int, optional
        Number of reading processes; by default one per core, or only this process if there is
        little to read.
    verify : bool
        Whether stored volumes are compared with their checksums, and created again if they differ.

    Returns
    -------
    Cached

    Raises
    ------
    UserError
        If there is not enough space on the disk, or if a reading process is killed.
    OSError
        If the cache cannot be written; `cohort_folder` turns it into a UserError.
    """
    found = complete(files, conform, cohort, cache_dir, substitutes)
    if found is not None and not (verify and _damaged(found, conform)):
        return found
    images = images_of(files, substitutes)
    building = cohort / f"{BUILDING}{sha256_of([_settings(conform), _stamps(images)])[:16]}"
    for other in cohort.glob(f"{BUILDING}*"):
        if other != building:
            shutil.rmtree(other)
    rows = _Rows(building, len(files), conform)
    try:
        if rows.fresh and not verify:
            _copy_earlier(rows, images, cohort, cache_dir, conform)
        todo = [number for number in range(len(files)) if number not in rows.done]
        job = Job(conform, str(building / VOLUMES), rows.start)
        for number, row in read_all([(i, images[i]) for i in todo], job, workers):
            rows.add(number, row)
            if progress is not None:
                progress(len(rows.done), len(files))
        index = rows.finish()
        found_facts = [rows.done[number] for number in range(len(files))]
    finally:
        rows.close()
    folder = _folder(cache_dir, _identities(index), conform)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir() and (verify or not _is_complete(folder, len(files), conform)):
        shutil.rmtree(folder)
    _publish(building, folder)
    store_facts(images, found_facts, conform, cohort)
    about = {"settings": _settings(conform), "in": folder.name, "root": str(root or "")}
    with atomic_write(cohort / ABOUT) as stream:
        stream.write(json.dumps(about).encode())
    return Cached(folder, index, unusable_of(images, found_facts))


def complete(
    files: Sequence[Path],
    conform: Conform,
    cohort: Path,
    cache_dir: Path,
    substitutes: Mapping[int, Sequence[Path]] | None = None,
) -> Cached | None:
    """Return the cache of these scans if it is complete, None if any scan must be read.

    If the scans were last read with other settings, their facts are updated for these settings.
    """
    images = images_of(files, substitutes)
    found = _stored_facts(images, cohort, conform)
    rows = [row for row in found if row is not None]
    if len(rows) < len(found):
        return None
    folder = _folder(cache_dir, [_identity(row) for row in rows], conform)
    if not _is_complete(folder, len(files), conform):
        return None
    index = _read_index(folder)
    for number in substitutes or ():
        # An image usable with other settings may not be with these, so another must be tried.
        if (index["reason"][number] == "") != (rows[number]["reason"] == ""):
            return None
    if _stored_settings(cohort) != sha256_of(_settings(conform)):
        found_facts: list[dict[Any, Any]] = index.to_dict("records")
        for one, row in zip(found_facts, rows, strict=True):
            one |= {"tried": row["tried"]} if "tried" in row else {}
        with contextlib.suppress(OSError):
            store_facts(images, found_facts, conform, cohort)
    return Cached(folder, index, unusable_of(images, rows))


def stored_facts(
    files: Sequence[Path], cohort: Path, substitutes: Mapping[int, Sequence[Path]] | None = None
) -> tuple[pd.DataFrame, dict[Path, str]]:
    """Return the facts of these scans from the last time they were read, with any settings.

    Parameters
    ----------
    files, cohort, substitutes
        See `prepare`.

    Returns
    -------
    facts : DataFrame
        Indexed by row, without rows whose files were never read or have changed since.
    unusable : dict
        See `Cached`.
    """
    images = images_of(files, substitutes)
    found_facts = dict(enumerate(_stored_facts(images, cohort)))
    rows = {number: row for number, row in found_facts.items() if row is not None}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*facts.FACTS])
    return facts.typed(table), unusable_of([images[number] for number in rows], list(rows.values()))


def store_facts(
    images: Sequence[Sequence[Path]],
    found_facts: Sequence[Mapping[str, Any]],
    conform: Conform,
    cohort: Path,
) -> None:
    """Store the facts of all files that were read, for `stored_facts`.

    Parameters
    ----------
    images : sequence of sequence of Path
        The files of each row, in the order in which they are tried.
    found_facts : sequence of mapping
        The facts of each row, as yielded by `bench.data.scanning.read_all`.
    conform, cohort
        See `prepare`.
    """
    rows = [
        {"path": stamp[0], "size": stamp[1], "mtime_ns": stamp[2], **fact}
        for files, row in zip(images, found_facts, strict=True)
        for stamp, fact in zip(_stamps([files])[0], row.get("tried", [row]), strict=False)
    ]
    columns = ["path", "size", "mtime_ns", "settings", *facts.FACTS]
    table = pd.DataFrame(rows, dtype=object).assign(settings=sha256_of(_settings(conform)))
    write_csv(table.reindex(columns=columns), cohort / STAMPS)


def images_of(
    files: Sequence[Path], substitutes: Mapping[int, Sequence[Path]] | None
) -> list[list[Path]]:
    """Return the files of each row, in the order in which they are tried; see `prepare`."""
    return [[file, *(substitutes or {}).get(row, ())] for row, file in enumerate(files)]


def _stamps(images: Sequence[Sequence[Path]]) -> list[list[tuple[str, int, int]]]:
    return [[(str(file), *formats.stamp(file)) for file in files] for files in images]


def unusable_of(
    images: Sequence[Sequence[Path]], found_facts: Sequence[Mapping[str, Any]]
) -> dict[Path, str]:
    """Return the reason for each unusable file that was read; see `store_facts`."""
    return {
        file: str(fact["reason"])
        for files, row in zip(images, found_facts, strict=True)
        for file, fact in zip(files, row.get("tried", [row]), strict=False)
        if fact["reason"]
    }


def _stored_facts(
    images: Sequence[Sequence[Path]], cohort: Path, conform: Conform | None = None
) -> list[dict[str, Any] | None]:
    """Return what `read_all` would yield for each row, None for rows that must be read.

    Whether a readable scan can be used depends on the settings; with settings other than those it
    was read with, it is assumed to be usable.
    """
    known: dict[tuple[str, int, int], dict[str, Any]] = {}
    settings = None if conform is None else sha256_of(_settings(conform))
    try:
        # The csv module is used because pandas requires UTF-8.
        with open(cohort / STAMPS, encoding="utf-8", errors="surrogateescape", newline="") as file:
            for row in csv.DictReader(file):
                fact = {name: row[name] for name in facts.FACTS}
                if settings not in (None, row["settings"]) and fact["sha256"]:
                    fact["reason"] = ""
                known[row["path"], int(row["size"]), int(row["mtime_ns"])] = fact
    except (OSError, KeyError):
        # The file does not exist, or an earlier version wrote it with fewer columns.
        return [None] * len(images)
    return [_first_usable(files, known) for files in _stamps(images)]


def _stored_settings(cohort: Path) -> str:
    """Return the digest of the settings with which the scans were last read."""
    with open(cohort / STAMPS, encoding="utf-8", errors="replace", newline="") as stream:
        return next(csv.DictReader(stream), {}).get("settings", "")


def _first_usable(
    stamps: Sequence[tuple[str, int, int]], known: Mapping[tuple[str, int, int], dict[str, Any]]
) -> dict[str, Any] | None:
    """Return the facts of the first usable file, or of the first file if none is usable.

    Return None if the facts of a file that would have to be tried are not known.
    """
    tried: list[dict[str, Any]] = []
    for stamp in stamps:
        if stamp not in known:
            return None
        tried.append(known[stamp])
        if not tried[-1]["reason"]:
            break
    taken = tried[0] if tried[-1]["reason"] else tried[-1]
    return {**taken, "tried": tried} if len(tried) > 1 else taken


class _Rows:
    """The array being built, and the journal of the rows that are already on disk."""

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
        """Write the array's header and reserve the space for the whole array."""
        needed = self.n * self.conform.row_bytes
        free = shutil.disk_usage(self.building.parent).free
        if needed > free:
            raise UserError(
                f"The volumes need {needed / 1e9:.1f} GB but only {free / 1e9:.1f} GB are free in "
                f"{self.building.parent.parent.parent}; free space there, set BENCH_CACHE to "
                "another folder, or choose a coarser grid, e.g. --data-set grid=mni-4mm."
            )
        self.building.mkdir()
        try:
            with open(self.building / VOLUMES, "wb") as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                stream.flush()
                reserve_space(stream.fileno(), stream.tell() + needed)
                os.fsync(stream.fileno())
        except OSError:
            shutil.rmtree(self.building)
            raise

    def _resume(self) -> dict[int, dict[str, Any]]:
        """Return the rows that an earlier process finished and whose checksums are correct."""
        done: dict[int, dict[str, Any]] = {}
        file = self.building / JOURNAL
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            # The process was killed while it wrote the last line.
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
        """Record that a row is done, once its bytes are on disk."""
        line = {"row": number, **row}
        self._journal.write(json.dumps(line) + "\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self.done[number] = line

    def finish(self) -> pd.DataFrame:
        """Write the index of the complete array and return it."""
        os.fsync(self._volumes)
        index = pd.DataFrame([self.done[number] for number in range(self.n)])
        index = index.reindex(columns=["row", *facts.FACTS, "checksum"])
        with open(self.building / INDEX, "w", encoding="utf-8") as stream:
            index.to_csv(stream, index=False)
            stream.flush()
            os.fsync(stream.fileno())
        return _read_index(self.building)

    def close(self) -> None:
        """Close both files; finished rows are kept."""
        self._journal.close()
        os.close(self._volumes)


def _copy_earlier(
    rows: _Rows,
    images: Sequence[Sequence[Path]],
    cohort: Path,
    cache_dir: Path,
    conform: Conform,
) -> None:
    """Copy the rows of unchanged scans from an earlier cache of this cohort."""
    try:
        earlier = json.loads((cohort / ABOUT).read_text())
        folder = cache_dir / "volumes" / earlier["in"]
        if earlier["settings"] != _settings(conform) or not (folder / INDEX).is_file():
            return
        index = _read_index(folder)
        stored = np.load(folder / VOLUMES, mmap_mode="r")
    except (OSError, ValueError, KeyError):
        return
    if not set(facts.FACTS) <= set(index.columns):
        return
    at = {identity: number for number, identity in enumerate(_identities(index))}
    for number, found_facts in enumerate(_stored_facts(images, cohort, conform)):
        if found_facts is None or found_facts["sha256"] == "":
            continue
        place = at.get(_identity(found_facts))
        if place is None:
            continue
        content = stored[place].tobytes()
        row = {str(name): value for name, value in index.iloc[place].to_dict().items()}
        if checksum(content) == row["checksum"]:
            rows.write(number, content)
            tried = {"tried": found_facts["tried"]} if "tried" in found_facts else {}
            rows.add(number, {name: row[name] for name in row if name != "row"} | tried)


def _damaged(found: Cached, conform: Conform) -> bool:
    """Tell whether the checksum of any stored volume is wrong."""
    stored = np.load(found.folder / VOLUMES, mmap_mode="r")
    sums = found.facts["checksum"]
    return any(checksum(stored[row].tobytes()) != sums[row] for row in range(len(stored)))


def _settings(conform: Conform) -> list[Any]:
    return [volume.VERSION, dataclasses.asdict(conform)]


def _folder(cache_dir: Path, identities: Sequence[str], conform: Conform) -> Path:
    return cache_dir / "volumes" / sha256_of([_settings(conform), list(identities)])[:16]


def _identities(index: pd.DataFrame) -> list[str]:
    return [_identity(row) for row in index[["sha256", "affine", "reason"]].to_dict("records")]


def _identity(fact: Mapping[Any, Any]) -> str:
    """Return what determines a row: the scan's voxels and affine, or why it cannot be read."""
    return f"{fact['sha256']} {fact['affine']}" if fact["sha256"] else str(fact["reason"])


def _publish(building: Path, folder: Path) -> None:
    """Rename the finished folder, unless another cohort with the same files was faster."""
    try:
        building.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(building)
    (folder / JOURNAL).unlink(missing_ok=True)


def _is_complete(folder: Path, n: int, conform: Conform) -> bool:
    """Tell whether the folder contains an array of the expected shape and its index."""
    try:
        found = np.load(folder / VOLUMES, mmap_mode="r")
    except (OSError, ValueError):
        return False
    if found.shape != (n, *conform.target.shape) or not (folder / INDEX).is_file():
        return False
    # The index of an earlier version may have fewer columns.
    return set(facts.FACTS) <= set(pd.read_csv(folder / INDEX, nrows=0).columns)


def _read_index(folder: Path) -> pd.DataFrame:
    return facts.typed(pd.read_csv(folder / INDEX, dtype=str, keep_default_na=False))


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write a table atomically, so that a reader never sees a partial file."""
    with atomic_write(file) as stream:
        stream.write(as_csv(table))


def as_csv(table: pd.DataFrame) -> bytes:
    """Return the bytes that `write_csv` writes; file names need not be UTF-8."""
    return table.to_csv(index=False).encode(errors="surrogateescape")
