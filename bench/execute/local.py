"""Workers on this machine: one process a unit, from a fork server with torch already imported."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import queue
import tempfile
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from multiprocessing.process import BaseProcess
from typing import IO

from bench.execute.base import OnProgress, WorkerExit
from bench.execute.unit import work
from bench.processes import choose_short_socket_folder, importing_safely
from bench.unit import Unit


class LocalExecutor:
    """At most `workers` processes side by side.

    Parameters
    ----------
    workers : int
        How many.
    gpus : int
        Over how many GPUs the workers are spread, one after the other; 0 for none.
    preload : sequence of str
        Modules that the fork server imports: seconds once instead of seconds a unit.
    on_progress : callable
        Told what each unit is doing.
    """

    def __init__(
        self, workers: int, *, gpus: int, preload: Sequence[str], on_progress: OnProgress
    ) -> None:
        self._context = multiprocessing.get_context("forkserver")
        # The built-in models are ours also where a plugin's folder has a `baselines`.
        self._context.set_forkserver_preload(["bench.execute.unit", "baselines", *preload])
        _start_fork_server()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="slot")
        self._gpus: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        for worker in range(workers):
            self._gpus.put(worker % gpus if gpus else None)
        self._on_progress = on_progress
        self._running: set[BaseProcess] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def submit(self, unit: Unit) -> Future[WorkerExit]:
        """Queue a unit."""
        return self._pool.submit(self._run, unit)

    def cancel(self) -> None:
        """Drop what is queued; what runs goes on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def kill(self) -> None:
        """End what runs and start nothing more; the futures tell how each ended."""
        # Called by a signal handler, whose thread may hold the lock: so no lock is taken.
        self._stopped = True
        for process in tuple(self._running):
            process.kill()

    def shutdown(self) -> None:
        """End everything at once and free the slots."""
        self.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, unit: Unit) -> WorkerExit:
        gpu = self._gpus.get()
        try:
            return self._run_on(unit, gpu)
        finally:
            self._gpus.put(gpu)

    def _run_on(self, unit: Unit, gpu: int | None) -> WorkerExit:
        attempt = uuid.uuid4().hex
        started = datetime.now(UTC)
        silent_until = _errors().seek(0, os.SEEK_END)
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(unit.to_json(), attempt, theirs, gpu))
        with self._lock:
            if self._stopped:
                return WorkerExit(attempt, started, started, -9)
            try:
                process.start()
            except (EOFError, OSError) as error:
                # The fork server has died; it may have stderr of what.
                stderr = _stderr_after(0) or f"{type(error).__name__}: {error}"
                return WorkerExit(attempt, started, datetime.now(UTC), 1, stderr)
            self._running.add(process)
        if self._stopped:
            process.kill()
        # Our copy of the worker's end: only when it is closed does the worker's end end the stream.
        theirs.close()
        self._on_progress(unit.key, "starting", 0.0)
        while True:
            try:
                words, share = ours.recv()
            except (EOFError, OSError):
                break
            self._on_progress(unit.key, words, share)
        process.join()
        ours.close()
        with self._lock:
            self._running.discard(process)
        exit_code = process.exitcode if process.exitcode is not None else -9
        stderr = _stderr_after(silent_until)
        return WorkerExit(attempt, started, datetime.now(UTC), exit_code, stderr)


@cache
def _errors() -> IO[bytes]:
    """Return the file that holds what processes say before they have a log."""
    return tempfile.TemporaryFile()


def _stderr_after(place: int) -> str:
    file = _errors().fileno()
    size = os.fstat(file).st_size
    return os.pread(file, size - place, place).decode(errors="replace")


def _start_fork_server() -> None:
    """Start the fork server of this process, unless it runs, with its own standard error."""
    choose_short_socket_folder()
    terminal = os.dup(2)
    os.dup2(_errors().fileno(), 2)
    try:
        with importing_safely():
            multiprocessing.forkserver.ensure_running()
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
