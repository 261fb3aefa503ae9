"""Jobs on a Slurm cluster, submitted as job arrays with submitit.

The driver and the jobs communicate only by files in directories that both see, so jobs survive the
driver. The next driver recognises them by the names of their arrays.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.execute.base import OnProgress, WorkerExit
from bench.execute.remote import PROGRESS, latest_attempt, read_json, write_json
from bench.execute.slurm_job import ENDED, UnitJob, exit_from_plain
from bench.execute.slurm_probe import check_directories
from bench.execute.slurm_queue import (
    LARGEST_ARRAY,
    OURS,
    TIME,
    VANISHED,
    NoAnswer,
    NoRoom,
    Queue,
    QueuedJob,
    ask,
    batch_script,
    cancel_jobs,
    end_of,
    largest_array,
    minutes_of,
    normalised,
    read_queue,
    refused,
    submit,
    submitter,
    without_gpus,
)
from bench.execute.unit import OUTCOME
from bench.unit import Unit
from registry.core import counted
from registry.errors import UserError

JOBS = "slurm"
"""Subdirectory of the working directory with one directory per job array."""
KEYS = "keys.json"
"""File of a job array with the keys of its units, in the order of its tasks."""

TICK = 1.0
"""Seconds between looking for files of running jobs."""
QUEUE_TICK = 5.0
"""Seconds between requests to Slurm."""
QUIET = 0.5
"""Seconds without a new unit after which the waiting ones are submitted."""
FULL_TICK = 60.0
"""Seconds until more jobs are tried than Slurm last accepted."""
SHUTDOWN = 60.0
"""Seconds to wait for cancelled jobs to end."""
UNLIMITED = LARGEST_ARRAY**2
"""More jobs than any cluster accepts."""


class SlurmExecutor:
    """Runs each unit as a job of a Slurm cluster.

    Parameters
    ----------
    workers : int
        Maximum number of jobs that run in parallel; 0 for no maximum.
    gpus, preload
        Not used: jobs use the GPUs that Slurm assigns to them.
    on_progress : callable
        Called with the progress of each unit.
    options : mapping
        Options of sbatch by name, such as ``partition``.
    work : pathlib.Path
        The working directory of the units.
    cache : pathlib.Path
        The cache directory.
    say : callable
        Called with messages to the user.

    Raises
    ------
    UserError
        If Slurm refuses a job, or compute nodes do not see the directories.
    """

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """Check that Slurm and submitit are available and accept the options.

        Parameters
        ----------
        options : mapping
            Options of sbatch by name.

        Raises
        ------
        UserError
            If something is missing, or an option cannot be used.
        """
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise UserError(
                "--executor slurm requires submitit; install it with "
                "`pip install 'slicebench[slurm]'`."
            ) from None
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise UserError(
                "--executor slurm requires Slurm, but there is no command sbatch; run bench on a "
                "login node of the cluster."
            )
        given = normalised(options)
        for name in OURS:
            if name in given:
                raise UserError(f"--slurm {name} is set by bench; remove it.")
        minutes_of(str(given.get("time", TIME)))
        cls.threads(options)
        partitions = ask("sinfo", "--noheader", "--format=%R")
        if partitions is None:
            raise UserError(
                "Slurm does not answer to sinfo; try again when the cluster is available."
            )
        known = list(dict.fromkeys(partitions.split()))
        for name in str(given.get("partition", "")).split(","):
            if name and name not in known:
                raise UserError(
                    f"Slurm has no partition {name!r}; set --slurm partition=NAME or partition in "
                    f"[slurm] of bench.toml to one of {', '.join(known)}."
                )

    @classmethod
    def threads(cls, options: Mapping[str, Any]) -> int:
        """Return the number of threads per unit that the options request, 1 by default.

        Raises
        ------
        UserError
            If it is not a positive integer.
        """
        text = str(normalised(options).get("cpus-per-task", 1))
        if not text.isdecimal() or int(text) < 1:
            raise UserError(f"--slurm cpus-per-task must be a positive integer, got {text!r}.")
        return int(text)

    @classmethod
    def scripts(
        cls,
        options: Mapping[str, Any],
        work: Path,
        *,
        workers: int,
        threads: int,
        units: Mapping[bool, int],
    ) -> Iterator[tuple[str, str]]:
        """Yield a title and the text of the batch script of the first array of each kind."""
        cls.check(options)
        folder = work.resolve() / JOBS / "bench-..."
        for network, number in sorted(units.items(), reverse=True):
            kind = "networks" if network else "estimators"
            needs = _Needs(threads, network)
            executor = _submitter(folder, normalised(options), needs, workers or UNLIMITED)
            yield (
                f"Batch script of the first {counted(number, 'unit')} of {kind}",
                batch_script(executor, min(number, largest_array())),
            )

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
        self._options = normalised(options)
        self._workers = workers or UNLIMITED
        self._on_progress = on_progress
        self._say = say
        self._folder = work.resolve() / JOBS
        self._folder.mkdir(parents=True, exist_ok=True)
        self._largest = largest_array()
        self._limit = UNLIMITED
        """Number of jobs that Slurm accepts, as far as is known."""
        self._limit_until = 0.0
        """When more are tried, on the monotonic clock."""
        self._full = False
        """Whether Slurm did not even accept one more job."""
        self._arrays: dict[str, list[str]] = {
            file.parent.name: read_json(file) for file in self._folder.glob(f"*/{KEYS}")
        }
        """Keys of the units of each array, including those of earlier drivers."""
        self._parallel: dict[str, int] = {}
        """How many jobs of each array may run at the same time."""
        self._silent = False
        check_directories(self._folder, cache.resolve() / JOBS, self._options, say)
        self._waiting: list[_Job] = []
        self._jobs: list[_Job] = []
        self._finished: set[str] = set()
        """Keys of the units whose jobs have ended."""
        self._latest = 0.0
        self._cancelled = self._stopped = self._leaving = self._detached = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def submit(self, unit: Unit) -> Future[WorkerExit]:
        """Queue a unit; units that are queued together become one job array."""
        job = _Job(unit)
        with self._lock:
            if self._cancelled or self._stopped or self._leaving:
                job.future.cancel()
            else:
                self._waiting.append(job)
                self._latest = time.monotonic()
        return job.future

    def cancel(self) -> None:
        """Cancel jobs that have not started; running ones continue."""
        with self._lock:
            self._cancelled = True
            for job in self._waiting:
                job.future.cancel()
            self._waiting.clear()
            pending = [job for job in self._jobs if job.state == "PENDING"]
            if not pending:
                return
            cancel_jobs([job.id for job in pending], "--state=PENDING")
            queue = self._queue()
            if queue is None:
                return
            for job in pending:
                job.update(queue)
                if job.state in ("", "CANCELLED") and not (job.folder / ENDED).exists():
                    job.future.cancel()
                    self._jobs.remove(job)

    def kill(self) -> None:
        """Cancel all jobs, including running ones, and submit no more."""
        # Called by a signal handler, whose thread may already hold the lock.
        self._stopped = True
        jobs = [job.id for job in tuple(self._jobs)]
        # Without SIGKILL, Slurm would wait for the processes to end.
        cancel_jobs(jobs, "--state=PENDING")
        cancel_jobs(jobs, "--signal=KILL")
        cancel_jobs(jobs)

    def detach(self) -> None:
        """Submit the waiting units, and leave all jobs to the next command.

        Units that Slurm does not accept at the moment are left to the next command as well.
        """
        self._leaving = True
        while not (self._stopped or self._detached):
            with self._lock:
                queue = self._queue() if self._waiting else None
                if queue is not None:
                    if self._room()[0] <= 0:
                        # More are tried at once.
                        self._limit_until = 0.0
                    self._submit_waiting(queue)
                if not self._waiting or self._full:
                    self._detached = True
                    for job in [*self._waiting, *self._jobs]:
                        job.future.cancel()
                    if self._waiting:
                        self._say(
                            f"{counted(len(self._waiting), 'unit')} could not be submitted; run "
                            "the same command again later."
                        )
                    self._waiting.clear()
                    self._jobs.clear()
                    return
            time.sleep(TICK)

    def shutdown(self) -> None:
        """Cancel all jobs, wait until they have ended, and remove the files of the arrays.

        After `detach`, the jobs and their files remain.
        """
        if self._detached:
            self._closed.set()
            self._thread.join()
            return
        self.kill()
        deadline = time.monotonic() + SHUTDOWN
        while self._jobs and time.monotonic() < deadline:
            time.sleep(0.1)
        self._closed.set()
        self._thread.join()
        if self._jobs:
            ids = " ".join(job.id for job in self._jobs)
            self._say(f"Slurm did not confirm that all jobs have ended; to end them: scancel {ids}")
            return
        queue = self._queue()
        if queue is not None:
            queued = {entry.name for entry in queue.values() if not entry.ended}
            for folder in self._folder.glob("bench-*"):
                # Jobs of another command may still need their files.
                keys = self._arrays.get(folder.name)
                if folder.name not in queued or (keys and self._finished.issuperset(keys)):
                    shutil.rmtree(folder, ignore_errors=True)
        for folder in (self._folder, self._folder.parent):
            with suppress(OSError):
                # This fails if the directory is not empty.
                folder.rmdir()

    # -------------------------------------------------------------- watching

    def _watch(self) -> None:
        """Submit waiting units and complete the futures of jobs that have ended."""
        asked = float("-inf")
        while not self._closed.wait(TICK):
            with self._lock:
                try:
                    now = time.monotonic()
                    if self._stopped:
                        for job in self._waiting:
                            job.future.cancel()
                        self._waiting.clear()
                    submitting = (
                        bool(self._waiting) and now - self._latest > QUIET and self._room()[0] > 0
                    )
                    queue = None
                    if submitting or (self._jobs and (self._stopped or now - asked > QUEUE_TICK)):
                        asked, queue = now, self._queue()
                    # Without an answer, jobs of an earlier driver might be submitted again.
                    if submitting and queue is not None:
                        self._submit_waiting(queue)
                        queue = None
                    for job in tuple(self._jobs):
                        self._look(job, queue)
                except Exception as error:
                    for job in [*self._waiting, *self._jobs]:
                        if not job.future.done():
                            job.future.set_exception(error)
                    self._waiting.clear()

    def _look(self, job: _Job, queue: Queue | None) -> None:
        """Complete the future of a job that has ended; otherwise report its progress."""
        if queue is not None:
            job.update(queue)
        if job.state == "PENDING":
            if job.held and not job.told:
                self._say(
                    f"The Slurm job {job.id} is held ({job.held}); to start it: scontrol release "
                    f"{job.id}"
                )
            job.told = bool(job.held)
            return
        values = read_json(job.folder / ENDED)
        ended = None if values is None else exit_from_plain(values)
        if ended is not None and (job.folder / OUTCOME).is_dir():
            self._complete(job, ended)
        elif job.long_ended or (job.ended and (self._stopped or ended is not None)):
            # Only if Slurm says so, because the end of a worker that is requeued does not count.
            self._complete(job, self._end_of(job, ended))
        elif (progress := read_json(job.folder / PROGRESS)) not in (None, job.progress):
            job.progress = progress
            self._on_progress(job.unit.key, progress["words"], progress["share"])

    def _complete(self, job: _Job, ended: WorkerExit) -> None:
        self._jobs.remove(job)
        self._finished.add(job.unit.key)
        if not job.future.done():
            job.future.set_result(ended)

    def _end_of(self, job: _Job, worker: WorkerExit | None) -> WorkerExit:
        """Describe the end of a job without an outcome.

        Parameters
        ----------
        job : _Job
            The job.
        worker : WorkerExit, optional
            The end of its worker, unless the job ended before it could write that.
        """
        stderr = job.stderr.read_text(errors="replace") if job.stderr.exists() else ""
        ended = worker or WorkerExit(
            latest_attempt(job.folder), job.submitted, datetime.now(UTC), 1, stderr
        )
        if self._stopped:
            return replace(ended, exit_code=-signal.SIGKILL)
        words, cause, exit_code = end_of(job.state, stderr)
        if words == VANISHED and worker is not None:
            return worker
        last = stderr.strip().rpartition("\n")[2].strip()
        if words == VANISHED and last:
            words += f": {last}"
        reason = f"the Slurm job {job.id} {words}"
        return replace(ended, exit_code=exit_code, reason=reason, cause=cause)

    def _queue(self) -> Queue | None:
        """Return the jobs of the user, or None if Slurm does not answer."""
        queue = read_queue()
        if queue is None and not self._silent:
            self._say("Slurm does not answer at the moment; bench keeps asking.")
        self._silent = queue is None
        return queue

    # ------------------------------------------------------------ submitting

    def _submit_waiting(self, queue: Queue) -> None:
        """Submit the waiting units, except those that an earlier driver submitted."""
        self._adopt(queue)
        self._waiting = [job for job in self._waiting if not job.id and not job.future.done()]
        chunk: list[_Job] = []
        self._full = False
        try:
            while self._waiting and not self._stopped:
                number, parallel = self._room()
                alike = [job for job in self._waiting if job.needs == self._waiting[0].needs]
                chunk = alike[: max(0, min(number, self._largest))]
                if not chunk:
                    break
                self._submit_array(chunk, parallel)
                self._waiting = [job for job in self._waiting if not job.id]
        except NoAnswer:
            pass
        except NoRoom as error:
            alone = all(entry.ended for entry in queue.values()) and not self._jobs
            if alone and len(chunk) == 1 and error.of_user:
                raise refused(str(error)) from None
            if self._limit == UNLIMITED:
                self._say(f"Slurm accepts no more jobs at the moment ({error}); the others wait.")
            self._full = len(chunk) == 1
            self._limit = len(self._jobs) + len(chunk) // 2
            self._limit_until = time.monotonic() + FULL_TICK
        if self._stopped:
            # Cancels arrays that were submitted while kill() was called.
            self.kill()

    def _adopt(self, queue: Queue) -> None:
        """Take over the jobs of an earlier driver that run waiting units."""
        from submitit.core.utils import JobPaths

        waiting = {}
        for job in self._waiting:
            if (job.folder / OUTCOME).is_dir():
                # Such a job ended after the driver had looked for outcomes.
                now = datetime.now(UTC)
                job.future.set_result(WorkerExit(uuid.uuid4().hex, now, now, 0))
            else:
                waiting[job.unit.key] = job
        for name, entry in queue.items():
            if entry.ended or entry.name not in self._arrays:
                continue
            found = waiting.get(self._arrays[entry.name][int(name.partition("_")[2] or 0)])
            if found is None or found.id:
                continue
            paths = JobPaths(self._folder / entry.name, name)
            if not paths.submitted_pickle.exists():
                # The driver died while it submitted the array, and the job waits for this file.
                cancel_jobs([name])
                continue
            found.id, found.array, found.stderr = name, entry.name, paths.stderr
            found.update(queue)
            found.folder.mkdir(parents=True, exist_ok=True)
            self._jobs.append(found)

    def _room(self) -> tuple[int, int]:
        """Return how many more units may be submitted, and how many of them may run in parallel."""
        if self._limit < UNLIMITED and time.monotonic() > self._limit_until:
            self._limit += self._limit // 2 + 1
            self._limit_until = time.monotonic() + FULL_TICK
        room = self._limit - len(self._jobs)
        if self._leaving or not self._jobs:
            return room, self._workers
        left = Counter(job.array for job in self._jobs)
        free = self._workers - sum(
            min(n, self._parallel.get(array, n)) for array, n in left.items()
        )
        # Never more units than may start at once: the number of parallel jobs of an array is fixed,
        # and this one may later have the workers of the others.
        return min(room, free), free

    def _submit_array(self, jobs: list[_Job], parallel: int) -> None:
        """Submit units that need the same resources as one array."""
        array = f"bench-{uuid.uuid4().hex}"
        folder = self._folder / array
        folder.mkdir()
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            for name in (ENDED, PROGRESS):
                (job.folder / name).unlink(missing_ok=True)
        # Written first, so that the jobs are recognised even if this process ends at once.
        self._arrays[array] = [job.unit.key for job in jobs]
        write_json(folder / KEYS, self._arrays[array])
        executor = _submitter(folder, self._options, jobs[0].needs, parallel)
        try:
            found = submit(executor, [UnitJob(job.unit.to_json()) for job in jobs])
        except (NoRoom, UserError):
            del self._arrays[array]
            shutil.rmtree(folder)
            raise
        for job, submitted in zip(jobs, found, strict=True):
            job.id = submitted.job_id
            job.array = array
            job.stderr = submitted.paths.stderr
            job.submitted = datetime.now(UTC)
        self._parallel[array] = parallel
        self._jobs += jobs


@dataclass(eq=False)
class _Job(QueuedJob):
    """A unit and its job."""

    unit: Unit
    array: str = ""
    """Name of its array; empty, like the id, while it has not been submitted."""
    future: Future[WorkerExit] = field(default_factory=Future)
    stderr: Path = Path()
    submitted: datetime = field(default_factory=lambda: datetime.now(UTC))
    progress: Any = None
    told: bool = False
    """Whether the user was told that it is held."""

    @property
    def folder(self) -> Path:
        return Path(self.unit.folder)

    @property
    def needs(self) -> _Needs:
        return _Needs(self.unit.threads, self.unit.network)


class _Needs(NamedTuple):
    """What the jobs of an array need."""

    threads: int
    network: bool
    """Whether they may use a GPU."""


def _submitter(folder: Path, options: Mapping[str, Any], needs: _Needs, parallel: int) -> Any:
    own = options if needs.network else without_gpus(options)
    return submitter(folder, own, threads=needs.threads, parallel=parallel)
