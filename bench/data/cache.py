"""Conformed volumes on disk: one memory-mapped array a cohort, made once.

A folder ``volumes/<digest>`` holds ``volumes.npy``, (N, X, Y, Z), one row for each scan that was
chosen, and ``index.csv``, which says what each scan is (`bench.data.facts.FACTS`) and the checksum
of its row; the row of a scan that cannot be used is zeros, and nothing points to it. Where other
images of the visit could stand in for it, the first that can be used does. The digest is that of
the scans' voxels and the settings. What was said of every file that was read, those that could not
be used included, is in ``scans.csv`` of the cohort's folder.

A folder is complete or absent, whatever is killed when: rows are written into ``.building-*`` in
the cohort's folder with a journal, from which the next process goes on.
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
"""Told how many scans of how many are done."""

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
        Holds the array.
    facts : DataFrame
        Of each scan, one row a row of the array.
    unusable : dict
        Why a file cannot be used, for every file that was read in vain.
    """

    folder: Path
    facts: pd.DataFrame
    unusable: dict[Path, str] = field(default_factory=dict)


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
    substitutes: Mapping[int, Sequence[Path]] | None = None,
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
    substitutes : mapping, optional
        By row, the files that stand in for its own if that cannot be used, in order.
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
        said = [rows.done[number] for number in range(len(files))]
    finally:
        rows.close()
    folder = _folder(cache_dir, _identities(index), conform)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir() and (verify or not _is_complete(folder, len(files), conform)):
        shutil.rmtree(folder)
    _publish(building, folder)
    note(images, said, conform, cohort)
    about = {"settings": _settings(conform), "in": folder.name, "root": str(root or "")}
    with atomic_write(cohort / ABOUT) as stream:
        stream.write(json.dumps(about).encode())
    return Cached(folder, index, unusable_of(images, said))


def complete(
    files: Sequence[Path],
    conform: Conform,
    cohort: Path,
    cache_dir: Path,
    substitutes: Mapping[int, Sequence[Path]] | None = None,
) -> Cached | None:
    """Return the cache of these scans if it is there, None if anything must be read.

    Where the scans were read last with other settings, what these say of them is noted.
    """
    images = images_of(files, substitutes)
    found = _remembered(images, cohort, conform)
    rows = [row for row in found if row is not None]
    if len(rows) < len(found):
        return None
    folder = _folder(cache_dir, [_identity(row) for row in rows], conform)
    if not _is_complete(folder, len(files), conform):
        return None
    index = _read_index(folder)
    for number in substitutes or ():
        # What other settings could use these may not, and then another image is tried.
        if (index["reason"][number] == "") != (rows[number]["reason"] == ""):
            return None
    if _noted_settings(cohort) != sha256_of(_settings(conform)):
        said: list[dict[Any, Any]] = index.to_dict("records")
        for one, row in zip(said, rows, strict=True):
            one |= {"tried": row["tried"]} if "tried" in row else {}
        with contextlib.suppress(OSError):
            note(images, said, conform, cohort)
    return Cached(folder, index, unusable_of(images, rows))


def remembered(
    files: Sequence[Path], cohort: Path, substitutes: Mapping[int, Sequence[Path]] | None = None
) -> tuple[pd.DataFrame, dict[Path, str]]:
    """Return what was said of these scans when they were read last, whatever the settings.

    Parameters
    ----------
    files, cohort, substitutes
        See `prepare`.

    Returns
    -------
    facts : DataFrame
        Indexed by row; rows that were never read, or have changed since, are not in it.
    unusable : dict
        See `Cached`.
    """
    images = images_of(files, substitutes)
    said = dict(enumerate(_remembered(images, cohort)))
    rows = {number: row for number, row in said.items() if row is not None}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*facts.FACTS])
    return facts.typed(table), unusable_of([images[number] for number in rows], list(rows.values()))


def note(
    images: Sequence[Sequence[Path]],
    said: Sequence[Mapping[str, Any]],
    conform: Conform,
    cohort: Path,
) -> None:
    """Write down what was said of every file that was read; `remembered` finds it.

    Parameters
    ----------
    images : sequence of sequence of Path
        The files of each row, in the order in which they are tried.
    said : sequence of mapping
        What `bench.data.scanning.read_all` yields for each row.
    conform, cohort
        See `prepare`.
    """
    rows = [
        {"path": stamp[0], "size": stamp[1], "mtime_ns": stamp[2], **fact}
        for files, row in zip(images, said, strict=True)
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
    images: Sequence[Sequence[Path]], said: Sequence[Mapping[str, Any]]
) -> dict[Path, str]:
    """Return why files cannot be used, for every file that was read in vain; see `note`."""
    return {
        file: str(fact["reason"])
        for files, row in zip(images, said, strict=True)
        for file, fact in zip(files, row.get("tried", [row]), strict=False)
        if fact["reason"]
    }


def _remembered(
    images: Sequence[Sequence[Path]], cohort: Path, conform: Conform | None = None
) -> list[dict[str, Any] | None]:
    """Return what `read_all` would yield for each row, None where something must be read.

    Settings decide whether a scan that can be read can be used; under others than those it was read
    with it is taken for usable.
    """
    known: dict[tuple[str, int, int], dict[str, Any]] = {}
    settings = None if conform is None else sha256_of(_settings(conform))
    try:
        # Not by pandas, whose texts must be UTF-8.
        with open(cohort / STAMPS, encoding="utf-8", errors="surrogateescape", newline="") as file:
            for row in csv.DictReader(file):
                fact = {name: row[name] for name in facts.FACTS}
                if settings not in (None, row["settings"]) and fact["sha256"]:
                    fact["reason"] = ""
                known[row["path"], int(row["size"]), int(row["mtime_ns"])] = fact
    except (OSError, KeyError):
        # None, or one of an earlier version that says less.
        return [None] * len(images)
    return [_said(files, known) for files in _stamps(images)]


def _noted_settings(cohort: Path) -> str:
    """Return the digest of the settings that scans were read with last."""
    with open(cohort / STAMPS, encoding="utf-8", errors="replace", newline="") as stream:
        return next(csv.DictReader(stream), {}).get("settings", "")


def _said(
    stamps: Sequence[tuple[str, int, int]], known: Mapping[tuple[str, int, int], dict[str, Any]]
) -> dict[str, Any] | None:
    """Return what is known of the first usable file, or of the first if none can be used."""
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
                reserve_space(stream.fileno(), stream.tell() + needed)
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
    images: Sequence[Sequence[Path]],
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
    if not set(facts.FACTS) <= set(index.columns):
        return
    at = {identity: number for number, identity in enumerate(_identities(index))}
    for number, said in enumerate(_remembered(images, cohort, conform)):
        if said is None or said["sha256"] == "":
            continue
        place = at.get(_identity(said))
        if place is None:
            continue
        content = stored[place].tobytes()
        row = {str(name): value for name, value in index.iloc[place].to_dict().items()}
        if checksum(content) == row["checksum"]:
            rows.write(number, content)
            tried = {"tried": said["tried"]} if "tried" in said else {}
            rows.add(number, {name: row[name] for name in row if name != "row"} | tried)


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
    return [_identity(row) for row in index[["sha256", "affine", "reason"]].to_dict("records")]


def _identity(fact: Mapping[Any, Any]) -> str:
    """Return what decides a row: the scan's voxels and affine, or why it has none."""
    return f"{fact['sha256']} {fact['affine']}" if fact["sha256"] else str(fact["reason"])


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
    if found.shape != (n, *conform.target.shape) or not (folder / INDEX).is_file():
        return False
    # One that an earlier version made may say less.
    return set(facts.FACTS) <= set(pd.read_csv(folder / INDEX, nrows=0).columns)


def _read_index(folder: Path) -> pd.DataFrame:
    return facts.typed(pd.read_csv(folder / INDEX, dtype=str, keep_default_na=False))


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write a table so that a reader sees the old one or the new one, never half of it."""
    with atomic_write(file) as stream:
        stream.write(as_csv(table))


def as_csv(table: pd.DataFrame) -> bytes:
    """Return a table as `write_csv` writes it; file names need not be UTF-8."""
    return table.to_csv(index=False).encode(errors="surrogateescape")
