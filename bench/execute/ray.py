"""Units of work on a Ray cluster, or on one that is started on this machine.

A process of its own is connected to Ray (`bench.execute.ray_driver`); units run in processes of
their own on the nodes (`bench.execute.ray_job`).
"""

from __future__ import annotations

import importlib.util
import math
import multiprocessing
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.execute.base import OnProgress, WorkerExit
from bench.execute.ray_driver import Needs, RayUnit, Settings, serve
from bench.processes import cores, importing_safely
from bench.unit import Unit
from registry.errors import UserError

KNOWN = ("address", "memory", "num_cpus", "num_gpus", "resources")
"""Options."""
UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
LONGEST_FOLDER = 22
"""Longest path of a directory in which Ray's sockets can be; Linux allows 107 characters."""
TICK = 0.1
"""Seconds between checks whether the units are to be stopped."""
CONNECT_SECONDS = 10.0
"""Seconds to wait for an answer of the address of a cluster."""
START_SECONDS = 120.0
"""Seconds to wait for Ray to start, or for the connection to a cluster."""
SHUTDOWN = 60.0
"""Seconds to wait for units to end."""


@dataclass(frozen=True)
class Options:
    """The options of the user."""

    address: str = ""
    """Empty to start a cluster on this machine."""
    num_cpus: int | None = None
    """CPUs per unit."""
    num_gpus: float | None = None
    """GPUs per network."""
    memory: int = 0
    """Bytes per unit, used by Ray to distribute units."""
    resources: tuple[tuple[str, float], ...] = ()
    """The cluster's own resources per unit."""

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Options:
        """Check options from the command line or ``bench.toml``.

        Raises
        ------
        UserError
            If an option is unknown or its value cannot be used.
        """
        for name in given:
            if name not in KNOWN:
                raise UserError(f"--ray {name} is unknown; use one of {', '.join(KNOWN)}.")
        address = str(given.get("address", ""))
        if address and address != "auto" and not re.fullmatch(r"[^/:]+:\d+|\[[^/]+\]:\d+", address):
            raise UserError(
                "--ray address must be the HOST:PORT of a cluster that this machine belongs to, or "
                f"auto, got {address!r}."
            )
        cpus = given.get("num_cpus")
        if cpus is not None and not (str(cpus).isdecimal() and int(cpus) >= 1):
            raise UserError(f"--ray num_cpus must be a positive integer, got {str(cpus)!r}.")
        gpus = given.get("num_gpus")
        resources = given.get("resources", {})
        if isinstance(resources, str):
            resources = dict(pair.partition("=")[::2] for pair in resources.split(","))
        return cls(
            address,
            None if cpus is None else int(cpus),
            None if gpus is None else _gpus(str(gpus)),
            _bytes(str(given.get("memory", "0"))),
            tuple(sorted((name, _quantity(name, number)) for name, number in resources.items())),
        )


class RayExecutor:
    """Runs each unit as a task of Ray.

    Parameters
    ----------
    workers : int
        Maximum number of units that run in parallel; 0 for as many as the cluster can run.
    gpus
        Not used: units use the GPUs that Ray assigns to them.
    preload : sequence of str
        Modules to import in the fork servers of the nodes, which saves seconds per unit.
    on_progress : callable
        Called with the progress of each unit.
    options : mapping
        Options by name: ``address``, ``memory``, ``num_cpus``, ``num_gpus`` and ``resources``.
    work : pathlib.Path
        The working directory of the units.
    cache : pathlib.Path
        Not used: units know the cache directory.
    say : callable
        Called with messages to the user.

    Raises
    ------
    UserError
        If Ray does not start, or the cluster does not answer.
    """

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """Check that Ray is available, accepts the options, and has a cluster at the address.

        Parameters
        ----------
        options : mapping
            Options by name.

        Raises
        ------
        UserError
            If something is missing, or an option cannot be used.
        """
        if importlib.util.find_spec("ray") is None:
            raise UserError(
                "--executor ray requires Ray; install it with `pip install 'slicebench[ray]'`."
            )
        address = Options.parse(options).address
        if address in ("", "auto"):
            return
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise UserError(
                f"No Ray cluster answers at {address} ({error}). Start it with `ray start` on each "
                "node, or correct --ray address or address in [ray] of bench.toml."
            ) from None

    @classmethod
    def threads(cls, options: Mapping[str, Any]) -> int:
        """Return the number of threads per unit that the options request, 1 by default."""
        return Options.parse(options).num_cpus or 1

    def __init__(
        self,
        workers: int,
        *,
        gpus: int,
        preload: Sequence[str],
        on_progress: OnProgress,
        options: Mapping[str, Any],
        work: Path,
        cache: Path,
        say: Callable[[str], None],
    ) -> None:
        self._options = Options.parse(options)
        self._on_progress = on_progress
        self._say = say
        self._work = work.resolve()
        self._work.mkdir(parents=True, exist_ok=True)
        # Ray's sockets are in this directory, and their paths must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="bench-ray-", dir=_short_folder()))
        self._log = self._folder / "ray.log"
        self._log.touch()
        self._jobs: dict[str, Future[WorkerExit]] = {}
        """Futures of units that have not ended, by key."""
        self._stopped = self._cancelled = False
        self._error: UserError | None = None
        """Why no more units can run."""
        self._lock = threading.Lock()
        self._has_cancelled = threading.Event()
        settings = Settings(
            address=self._options.address,
            cpus=max(cores(), workers * (self._options.num_cpus or 1)),
            folder=str(self._folder),
            log=str(self._log),
            workers=workers,
            name=uuid.uuid4().hex,
            preload=tuple(preload),
        )
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, settings), daemon=True)
        with importing_safely():
            self._process.start()
        theirs.close()
        try:
            self._gpus = self._connected()
        except BaseException:
            self._process.kill()
            self._clean()
            raise
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def submit(self, unit: Unit) -> Future[WorkerExit]:
        """Queue a unit."""
        future: Future[WorkerExit] = Future()
        gpus = self._options.num_gpus
        if gpus is None:
            gpus = float(unit.device == "cuda" or (unit.device == "auto" and self._gpus > 0))
        sent = RayUnit(
            key=unit.key,
            text=unit.to_json(),
            folder=unit.folder,
            needs=Needs(
                self._options.num_cpus or unit.threads,
                gpus if unit.network else 0.0,
                self._options.memory,
                self._options.resources,
            ),
            files=tuple(filter(None, (unit.data.volumes, unit.weights))),
            plugins=tuple(unit.plugins),
        )
        with self._lock:
            if self._error is not None:
                future.set_exception(self._error)
            elif self._cancelled or self._stopped:
                future.cancel()
            else:
                self._jobs[unit.key] = future
                self._send("submit", sent)
        return future

    def cancel(self) -> None:
        """Cancel units that have not started; running ones continue."""
        with self._lock:
            self._cancelled = True
            self._send("cancel")
        while self._thread.is_alive() and not self._has_cancelled.wait(TICK):
            pass

    def kill(self) -> None:
        """Stop running units and start no more; their futures return how each ended."""
        # Called by a signal handler, whose thread may already hold the lock.
        self._stopped = True

    def shutdown(self) -> None:
        """Stop everything, and end the cluster if it was started here."""
        self.kill()
        self._thread.join()
        self._clean()
        with suppress(OSError):
            # This fails if the directory is not empty.
            self._work.rmdir()

    def _connected(self) -> float:
        """Wait until the process is connected to Ray; return the number of GPUs of the cluster."""
        address = self._options.address
        self._say(
            f"Connecting to the Ray cluster at {address} ..."
            if address
            else "Starting Ray on this machine ..."
        )
        problem = f"it did not answer within {START_SECONDS:g} seconds"
        if self._pipe.poll(START_SECONDS):
            try:
                kind, content = self._pipe.recv()
            except EOFError:
                kind, content = "refused", self._last_words()
            if kind == "ready":
                return float(content)
            problem = content
        if address:
            raise UserError(
                f"bench cannot use the Ray cluster at {address}: {problem}. Run bench on a node of "
                "this cluster, with the versions of Ray and Python that the cluster has."
            )
        raise UserError(f"Ray does not start on this machine: {problem}. Use --executor local.")

    # -------------------------------------------------------------- listening

    def _listen(self) -> None:
        """Act on the messages of the process until it ends."""
        asked = 0.0
        while True:
            if self._stopped and not asked:
                asked = time.monotonic()
                with self._lock:
                    self._send("stop")
            if asked and time.monotonic() - asked > SHUTDOWN:
                self._process.kill()
            try:
                if self._pipe.poll(TICK):
                    self._act(*self._pipe.recv())
            except (EOFError, OSError):
                break
        with self._lock:
            if not self._stopped and self._error is None:
                self._error = UserError(
                    f"The connection to Ray was lost: {self._last_words()}. Run the same command "
                    "again to resume."
                )
            now = datetime.now(UTC)
            for future in self._jobs.values():
                if self._error is not None:
                    future.set_exception(self._error)
                else:
                    # Units that had not started.
                    future.set_result(WorkerExit(uuid.uuid4().hex, now, now, -signal.SIGKILL))
            self._jobs.clear()

    def _act(self, kind: str, *content: Any) -> None:
        """Act on one message."""
        if kind == "progress":
            self._on_progress(*content)
        elif kind == "say":
            self._say(*content)
        elif kind == "failed":
            self._error = UserError(*content)
        elif kind == "cancelled":
            for key in content[0]:
                self._jobs.pop(key).cancel()
            self._has_cancelled.set()
        elif kind == "ended":
            key, ended = content
            self._jobs.pop(key).set_result(ended)

    def _send(self, *message: Any) -> None:
        # If the process has ended, the listening thread completes all futures.
        with suppress(OSError):
            self._pipe.send(message)

    def _last_words(self) -> str:
        """Return the first sentence of the last line that Ray has written."""
        words = self._log.read_text(errors="replace").strip() if self._log.exists() else ""
        last = re.sub(r"^\[.*?\] (\S+:\d+: )?", "", words.rpartition("\n")[2].strip())
        return last.partition(". ")[0].rstrip(".") or "it ended without a message"

    def _clean(self) -> None:
        """Remove the process and the files of this executor."""
        self._process.join()
        self._pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _short_folder() -> str:
    """Return the directory for temporary files, or ``/tmp`` if its path is long."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) <= LONGEST_FOLDER else "/tmp"


def _gpus(text: str) -> float:
    """Return a number of GPUs, which is whole or less than one.

    Raises
    ------
    UserError
        If it is not.
    """
    with suppress(ValueError):
        number = float(text)
        if 0 <= number < 1 or (number.is_integer() and number > 0):
            return number
    raise UserError(
        f"--ray num_gpus must be a whole number or a share of one GPU such as 0.25, got {text!r}."
    )


def _bytes(text: str) -> int:
    """Return a number of bytes, given with a unit such as GB.

    Raises
    ------
    UserError
        If it is not one.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UserError(f"--ray memory must be a number of bytes or such as 8GB, got {text!r}.")
    return int(float(match.group(1)) * UNITS[match.group(2).upper()])


def _quantity(name: str, text: Any) -> float:
    """Return a quantity of a resource.

    Raises
    ------
    UserError
        If it is not a positive number.
    """
    with suppress(ValueError):
        number = float(text)
        if 0 < number < math.inf:
            return number
    raise UserError(f"--ray resources must be such as a100=1,ssd=0.5, got {name!r}={text!r}.")
