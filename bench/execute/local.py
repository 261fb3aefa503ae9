"""Workers on this machine, forked from a server process that has already imported torch."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import queue
import signal
import tempfile
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from multiprocessing.process import BaseProcess
from typing import IO

from bench.execute.base import OnProgress, WorkerExit
from bench.execute.unit import work
from bench.memory import killed_for_memory
from bench.processes import choose_short_socket_folder, importing_safely
from bench.unit import Unit

OUT_OF_MEMORY = "killed by the system because memory ran out"


class LocalExecutor:
    """Runs at most `workers` processes in parallel, one per unit.

    Parameters
    ----------
    workers : int
        Maximum number of parallel processes.
    gpus : int
        Number of GPUs, to which workers are assigned in turn; 0 for none.
    preload : sequence of str
        Modules to import in the fork server, which saves seconds per unit.
    on_progress : callable
        Called with the progress of each unit.
    """

    def __init__(
        self, workers: int, *, gpus: int, preload: Sequence[str], on_progress: OnProgress
    ) -> None:
        self._context = multiprocessing.get_context("forkserver")
        # Preloading prevents a package `baselines` in a plugin's directory from shadowing ours.
        # Each worker executes the script `bench` again, which imports the command line.
        ours = ["bench.execute.unit", "baselines", "bench.cli"]
        self._context.set_forkserver_preload([*ours, *preload])
        _start_fork_server()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="slot")
        self._gpus: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # The fork server may have been started with other visible GPUs than this process has now.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(number) for number in range(gpus)]
        for worker in range(workers):
            self._gpus.put(names[worker % gpus] if gpus else None)
        self._on_progress = on_progress
        self._running: set[BaseProcess] = set()
        self._lock = threading.Lock()
        self._stopped = False
        self._killed_for_memory = killed_for_memory()

    def submit(self, unit: Unit) -> Future[WorkerExit]:
        """Queue a unit."""
        return self._pool.submit(self._run, unit)

    def cancel(self) -> None:
        """Cancel queued units; running ones continue."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def kill(self) -> None:
        """Stop running units and start no more; their futures return how each ended."""
        # Called by a signal handler, whose thread may already hold the lock.
        self._stopped = True
        for process in tuple(self._running):
            process.kill()

    def shutdown(self) -> None:
        """Stop everything and release resources."""
        self.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, unit: Unit) -> WorkerExit:
        gpu = self._gpus.get()
        try:
            return self._run_on(unit, gpu)
        finally:
            self._gpus.put(gpu)

    def _run_on(self, unit: Unit, gpu: str | None) -> WorkerExit:
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
                # The fork server has died; it may have written the reason to standard error.
                stderr = _stderr_after(0) or f"{type(error).__name__}: {error}"
                return WorkerExit(attempt, started, datetime.now(UTC), 1, stderr)
            self._running.add(process)
        if self._stopped:
            process.kill()
        # Close our copy of the worker's end, so that the stream ends when the worker does.
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
        ended = WorkerExit(attempt, started, datetime.now(UTC), exit_code, stderr)
        if self._out_of_memory(exit_code):
            return replace(ended, cause="memory", reason=OUT_OF_MEMORY)
        return ended

    def _out_of_memory(self, exit_code: int) -> bool:
        """Return whether the system killed a worker because memory ran out."""
        with self._lock:
            if exit_code != -signal.SIGKILL or killed_for_memory() <= self._killed_for_memory:
                return False
            # Each kill is that of one worker.
            self._killed_for_memory += 1
            return True


@cache
def _errors() -> IO[bytes]:
    """Return the file for the standard error of processes that have no log yet."""
    return tempfile.TemporaryFile()


def _stderr_after(place: int) -> str:
    file = _errors().fileno()
    size = os.fstat(file).st_size
    return os.pread(file, size - place, place).decode(errors="replace")


def _start_fork_server() -> None:
    """Start the fork server unless it is running, with its standard error in a file."""
    choose_short_socket_folder()
    terminal = os.dup(2)
    os.dup2(_errors().fileno(), 2)
    try:
        with importing_safely():
            multiprocessing.forkserver.ensure_running()
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
