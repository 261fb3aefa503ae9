"""What runs on the nodes of a Ray cluster, as tasks of `bench.execute.ray_driver`."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bench.execute.base import WorkerExit
from bench.execute.local import LocalExecutor
from bench.execute.remote import PROGRESS, ProgressFile
from bench.execute.unit import OUTCOME
from bench.files import atomic_write
from bench.unit import Unit
from registry.errors import UserError

TICK = 0.2
"""Seconds between checks for an interruption, which Ray cannot deliver during a call."""
OWNER = "driver.txt"
"""File of a unit."""
OWNER_SECONDS = 5.0
"""Seconds between checks whether another driver has submitted a unit."""
ABANDONED_SECONDS = 3600.0
"""Age of unfinished copies that are removed."""


@dataclass(frozen=True)
class Owner:
    """A file in the directory of a unit with the name of the driver that submitted it last.

    It shows nodes that they see the directory, and an earlier driver may have lost the connection
    to a task that still runs the unit, which then ends.
    """

    file: str
    driver: str

    @classmethod
    def of(cls, folder: str, driver: str) -> Owner:
        """Write the file into the directory of a unit."""
        file = Path(folder) / OWNER
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as stream:
            stream.write(driver.encode())
        return cls(str(file), driver)

    @property
    def work(self) -> Path:
        """The working directory."""
        return Path(self.file).parent.parent

    def found(self) -> str | None:
        """Return the driver in the file, or None if this machine does not see it."""
        with suppress(OSError):
            return Path(self.file).read_text()
        return None


@dataclass(frozen=True)
class Data:
    """A file that units read, and that is copied to nodes that do not see it.

    Parameters
    ----------
    path : str
        The file on the machine of the driver.
    size : int
        Its size in bytes.
    copy : str
        The name of copies.
    """

    path: str
    size: int
    copy: str

    def find(self) -> Path | None:
        """Return the file or its copy on this machine."""
        for file in (Path(self.path), own_folder() / self.copy):
            with suppress(OSError):
                if file.stat().st_size == self.size:
                    return file
        return None


def run_unit(text: str, data: Sequence[Data], owner: Owner, preload: Sequence[str]) -> WorkerExit:
    """Run a unit on this node.

    Parameters
    ----------
    text : str
        The unit as JSON.
    data : sequence of Data
        The files that it reads.
    owner : Owner
        The driver that submits it.
    preload : sequence of str
        Modules to import in the fork server, which remains for the next unit.

    Returns
    -------
    WorkerExit
        How the process of the unit ended.
    """
    # Ray cancels a task with a KeyboardInterrupt, unless the node was started with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unit = Unit.from_json(text)
    folder = Path(unit.folder)
    started = datetime.now(UTC)
    if owner.found() != owner.driver:
        reason = f"the Ray node {os.uname().nodename} does not see {owner.work}"
        return WorkerExit(uuid.uuid4().hex, started, started, 1, reason=reason)
    if (folder / OUTCOME).is_dir():
        # The task of an earlier driver ended after this one had looked for outcomes.
        return WorkerExit(uuid.uuid4().hex, started, started, 0)
    report = ProgressFile(folder / PROGRESS)
    places = {}
    for each in data:
        while (found := each.find()) is None:
            report(unit.key, "waiting for the data", 0.0)
            time.sleep(TICK)
        places[each.path] = str(found)
    unit = replace(
        unit,
        data=replace(unit.data, volumes=places.get(unit.data.volumes, unit.data.volumes)),
        weights=places.get(unit.weights, unit.weights),
        cache=_writable(unit.cache),
    )
    import ray

    # Processes of units would otherwise import Ray's main module.
    sys.modules["__main__"].__dict__.pop("__file__", None)
    gpus = 1 if ray.get_gpu_ids() else 0
    executor = LocalExecutor(1, gpus=gpus, preload=preload, on_progress=report)
    try:
        return _wait(executor, unit, owner)
    finally:
        executor.shutdown()


def _wait(executor: LocalExecutor, unit: Unit, owner: Owner) -> WorkerExit:
    """Run a unit until its process ends, or until the driver or its successor stops it."""
    future = executor.submit(unit)
    checked = time.monotonic()
    while True:
        try:
            if wait([future], timeout=TICK).done:
                return future.result()
            if time.monotonic() - checked > OWNER_SECONDS:
                checked = time.monotonic()
                if owner.found() not in (owner.driver, None):
                    executor.kill()
        except KeyboardInterrupt:
            executor.kill()


def look(data: Sequence[Data], plugins: Sequence[str], owner: Owner) -> Sequence[Data]:
    """Return the data that are missing on this node.

    Raises
    ------
    UserError
        If it does not see the working directory or a plugin.
    """
    if owner.found() != owner.driver:
        raise UserError(
            f"The Ray node {os.uname().nodename} does not see {owner.work}; use --db (or --work) "
            "with a directory that all nodes share."
        )
    for plugin in plugins:
        if not Path(plugin).exists():
            raise UserError(
                f"The Ray node {os.uname().nodename} does not see the plugin {plugin}; move it to "
                "a directory that all nodes share."
            )
    return [each for each in data if each.find() is None]


def write_part(data: Data, writer: str, offset: int, part: bytes) -> None:
    """Write a part of a copy, unless it is complete; after the last part, it is.

    Parameters
    ----------
    data : Data
        The file.
    writer : str
        A unique name of the driver and node, since others may copy the same file.
    offset : int
        Where the part begins.
    part : bytes
        The content of the part.

    Raises
    ------
    UserError
        If the copy cannot be written.
    """
    folder = own_folder()
    building = folder / f".{data.copy}-{writer}"
    if data.find() is not None:
        building.unlink(missing_ok=True)
        return
    try:
        if offset == 0:
            _remove_abandoned(folder)
        with open(building, "r+b" if offset else "wb") as stream:
            stream.seek(offset)
            stream.write(part)
            if offset + len(part) == data.size:
                stream.flush()
                os.fsync(stream.fileno())
                building.replace(folder / data.copy)
    except OSError as error:
        with suppress(OSError):
            building.unlink()
        raise UserError(
            f"{data.path} could not be copied to {folder} on the Ray node {os.uname().nodename} "
            f"({error.strerror}); free space there, or move the cache to a directory that all "
            "nodes share (BENCH_CACHE)."
        ) from None


def _remove_abandoned(folder: Path) -> None:
    """Remove copies that drivers began and did not continue."""
    for file in folder.glob(".*-*"):
        if time.time() - file.stat().st_mtime > ABANDONED_SECONDS:
            file.unlink()


def own_folder() -> Path:
    """Return the directory for copies on this machine, which only this user can read.

    Raises
    ------
    UserError
        If it belongs to another user.
    """
    folder = Path(tempfile.gettempdir()) / f"slicebench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder} on the node {os.uname().nodename} belongs to another user.")
    return folder


def _writable(cache: str) -> str:
    """Return the cache directory, or one of this machine if it cannot be written here."""
    with suppress(OSError):
        Path(cache).mkdir(parents=True, exist_ok=True)
    return cache if os.access(cache, os.W_OK) else str(own_folder() / "cache")
