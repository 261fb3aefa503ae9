"""Jobs on a Slurm cluster, submitted as job arrays with submitit.

The driver and the jobs communicate only by files in directories that both see, so jobs survive the
driver. The next driver recognises them by the names of their arrays.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from bench.execute.base import OnProgress, WorkerExit
from bench.execute.remote import PROGRESS, latest_attempt, read_json, write_json
from bench.execute.slurm_job import ENDED, SEEN, Probe, UnitJob, exit_from_plain
from bench.execute.unit import OUTCOME
from bench.processes import SAFE_PATH
from bench.unit import Unit
from registry.errors import UserError

JOBS = "slurm"
"""Subdirectory of the working directory with one directory per job array."""
KEYS = "keys.json"
"""File of a job array with the keys of its units, in the order of its tasks."""

TIME = 240
"""Time limit of a job in minutes, unless the user sets one."""
PROBE_TIME = 5
"""Time limit in minutes of the job that checks the directories."""
REQUEUES = 50
"""Number of times that a job may reach its time limit and be resumed."""
LARGEST_ARRAY = 1001
"""Slurm's default of MaxArraySize."""
TICK = 1.0
"""Seconds between looking for files of running jobs."""
QUEUE_TICK = 5.0
"""Seconds between requests to Slurm."""
PATIENCE = 10.0
"""Seconds to wait for the files of a job that has left the queue, for network file systems."""
QUIET = 0.5
"""Seconds without a new unit after which the waiting ones are submitted."""
SHUTDOWN = 60.0
"""Seconds to wait for cancelled jobs to end."""

VANISHED = "left the queue without an outcome"
ENDED_STATES = {
    "": (VANISHED, "lost"),
    "BOOT_FAIL": ("ended because its node failed", "lost"),
    "CANCELLED": ("was cancelled", "cancelled"),
    "COMPLETED": (VANISHED, "lost"),
    "DEADLINE": ("reached its deadline", ""),
    "FAILED": (VANISHED, "lost"),
    "NODE_FAIL": ("ended because its node failed", "lost"),
    "OUT_OF_MEMORY": ("ran out of memory; request more with --slurm mem=...", "memory"),
    "PREEMPTED": ("was preempted and not requeued; the same command resumes it", "lost"),
    "TIMEOUT": ("reached its time limit; the same command resumes from the last checkpoint", ""),
}
"""States of jobs that have ended: what they mean, and `WorkerExit.cause`.

The empty state is that of jobs that Slurm has forgotten.
"""
OURS = ("array", "chdir", "error", "job-name", "open-mode", "output", "signal")
"""Options of sbatch that the executor sets."""
NO_ANSWER = ("Unable to contact slurm controller", "Socket timed out", "temporarily unable")
"""Parts of messages of sbatch if the controller does not answer at the moment."""


class SlurmExecutor:
    """Runs each unit as a job of a Slurm cluster.

    Parameters
    ----------
    workers : int
        Maximum number of jobs of an array that run in parallel; 0 for no maximum.
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
        given = _normalised(options)
        for name in OURS:
            if name in given:
                raise UserError(f"--slurm {name} is set by bench; remove it.")
        _minutes(str(given.get("time", TIME)))
        cls.threads(options)
        partitions = _ask("sinfo", "--noheader", "--format=%R")
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
        text = str(_normalised(options).get("cpus-per-task", 1))
        if not text.isdecimal() or int(text) < 1:
            raise UserError(f"--slurm cpus-per-task must be a positive integer, got {text!r}.")
        return int(text)

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
        self._options = _normalised(options)
        self._workers = workers
        self._on_progress = on_progress
        self._say = say
        self._folder = work.resolve() / JOBS
        self._folder.mkdir(parents=True, exist_ok=True)
        self._largest = _largest_array()
        self._arrays: dict[str, list[str]] = {
            file.parent.name: read_json(file) for file in self._folder.glob(f"*/{KEYS}")
        }
        """Keys of the units of each array, including those of earlier drivers."""
        self._silent = False
        self._probe(cache.resolve())
        self._waiting: list[_Job] = []
        self._jobs: list[_Job] = []
        self._finished: set[str] = set()
        """Keys of the units whose jobs have ended."""
        self._latest = 0.0
        self._cancelled = self._stopped = self._detached = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def submit(self, unit: Unit) -> Future[WorkerExit]:
        """Queue a unit; units that are queued together become one job array."""
        job = _Job(unit)
        with self._lock:
            if self._cancelled or self._stopped or self._detached:
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
            _scancel([job.id for job in pending], "--state=PENDING")
            queue = self._queue()
            if queue is None:
                return
            for job in pending:
                job.state = queue[job.id].state if job.id in queue else "CANCELLED"
                if job.state == "CANCELLED" and not (job.folder / ENDED).exists():
                    job.future.cancel()
                    self._jobs.remove(job)

    def kill(self) -> None:
        """Cancel all jobs, including running ones, and submit no more."""
        # Called by a signal handler, whose thread may already hold the lock.
        self._stopped = True
        jobs = [job.id for job in tuple(self._jobs)]
        if jobs:
            # Without SIGKILL, Slurm would wait for the processes to end.
            _scancel(jobs, "--state=PENDING")
            _scancel(jobs, "--signal=KILL")
            _scancel(jobs)

    def detach(self) -> None:
        """Submit the waiting units, and leave all jobs to the next command."""
        while not (self._stopped or self._detached):
            with self._lock:
                queue = self._queue() if self._waiting else None
                if queue is not None:
                    self._submit_waiting(queue)
                if not self._waiting:
                    self._detached = True
                    for job in self._jobs:
                        job.future.cancel()
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
            queued = {job.array for job in queue.values() if job.state not in ENDED_STATES}
            for array, keys in self._arrays.items():
                # Jobs of another command may still need their files.
                if array not in queued or self._finished.issuperset(keys):
                    shutil.rmtree(self._folder / array, ignore_errors=True)
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
                    submitting = bool(self._waiting) and now - self._latest > QUIET
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

    def _look(self, job: _Job, queue: Mapping[str, _Queued] | None) -> None:
        """Complete the future of a job that has ended; otherwise report its progress."""
        if queue is not None:
            job.state = queue[job.id].state if job.id in queue else ""
            if job.state not in ENDED_STATES:
                job.gone = None
            elif job.gone is None:
                job.gone = time.monotonic()
        if job.state == "PENDING":
            return
        ended = read_json(job.folder / ENDED)
        if ended is not None:
            self._complete(job, exit_from_plain(ended))
        elif job.gone is not None and (self._stopped or time.monotonic() - job.gone > PATIENCE):
            self._complete(job, self._end_of(job))
        elif (progress := read_json(job.folder / PROGRESS)) not in (None, job.progress):
            job.progress = progress
            self._on_progress(job.unit.key, progress["words"], progress["share"])

    def _complete(self, job: _Job, ended: WorkerExit) -> None:
        self._jobs.remove(job)
        self._finished.add(job.unit.key)
        if not job.future.done():
            job.future.set_result(ended)

    def _end_of(self, job: _Job) -> WorkerExit:
        """Describe the end of a job that did not write how its unit ended."""
        attempt = latest_attempt(job.folder)
        stderr = job.stderr.read_text(errors="replace") if job.stderr.exists() else ""
        now = datetime.now(UTC)
        if self._stopped:
            return WorkerExit(attempt, job.submitted, now, -signal.SIGKILL, stderr)
        words, cause = ENDED_STATES[job.state]
        last = stderr.strip().rpartition("\n")[2]
        if last and words == VANISHED:
            words += f": {last.strip()}"
        reason = f"the Slurm job {job.id} {words}"
        return WorkerExit(attempt, job.submitted, now, 1, stderr, reason, cause)

    def _queue(self) -> dict[str, _Queued] | None:
        """Return the jobs of all arrays by id, or None if Slurm does not answer."""
        user = f"--user={os.getuid()}"
        listed = _ask("squeue", "--noheader", "--array", "--states=all", user, "--format=%i|%j|%T")
        if listed is None:
            if not self._silent:
                self._say("Slurm does not answer at the moment; bench keeps asking.")
            self._silent = True
            return None
        self._silent = False
        lines = (line.strip().split("|") for line in listed.splitlines())
        return {line[0]: _Queued(line[1], line[-1]) for line in lines if line[1] in self._arrays}

    # ------------------------------------------------------------ submitting

    def _submit_waiting(self, queue: Mapping[str, _Queued]) -> None:
        """Submit the waiting units, except those that an earlier driver submitted."""
        queued = {
            self._arrays[found.array][int(job.partition("_")[2] or 0)]: (job, found)
            for job, found in queue.items()
            if found.state not in ENDED_STATES
        }
        for job in self._waiting:
            if (job.folder / OUTCOME).is_dir():
                # The job of an earlier driver ended after this one had looked for outcomes.
                now = datetime.now(UTC)
                job.future.set_result(WorkerExit(uuid.uuid4().hex, now, now, 0))
            elif job.unit.key in queued:
                job.id, found = queued[job.unit.key]
                job.state = found.state
                job.stderr = self._folder / found.array / f"{job.id}_0_log.err"
                self._jobs.append(job)
        self._waiting = [job for job in self._waiting if not job.id and not job.future.done()]
        groups: dict[int, list[_Job]] = defaultdict(list)
        for job in self._waiting:
            groups[job.unit.threads].append(job)
        for threads, jobs in groups.items():
            while jobs and not self._stopped:
                chunk, jobs = jobs[: self._largest], jobs[self._largest :]
                if not self._submit_array(chunk, threads):
                    break
                self._waiting = [job for job in self._waiting if not job.id]
        if self._stopped:
            # Cancels arrays that were submitted while kill() was called.
            self.kill()

    def _submit_array(self, jobs: list[_Job], threads: int) -> bool:
        """Submit units as one array; return False if this has to be tried again."""
        from submitit.core.utils import FailedJobError

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
        executor = self._submitit(folder, {"cpus-per-task": threads, **self._options}, threads)
        try:
            with redirect_stderr(StringIO()), executor.batch():
                found = [executor.submit(UnitJob(job.unit.to_json())) for job in jobs]
        except FailedJobError as error:
            if any(part in str(error) for part in NO_ANSWER):
                return False
            if "limit" in str(error) and (len(jobs) > 1 or self._jobs):
                # The user may submit fewer jobs at a time, or must wait for others to end.
                self._largest = max(1, len(jobs) // 2)
                return False
            raise _refused(error) from None
        for job, submitted in zip(jobs, found, strict=True):
            job.id = submitted.job_id
            job.stderr = submitted.paths.stderr
            job.submitted = datetime.now(UTC)
        self._jobs += jobs
        return True

    def _submitit(self, folder: Path, options: Mapping[str, Any], threads: int) -> Any:
        """Return an executor of submitit."""
        import submitit

        executor = submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES)
        options = {"requeue": True, **options}
        minutes = _minutes(str(options.pop("time", TIME)))
        executor.update_parameters(
            job_name=folder.name,
            time=minutes,
            # Time to write a checkpoint; Slurm may send the signal up to a minute early.
            signal_delay_s=min(90, 15 * minutes),
            array_parallelism=self._workers or LARGEST_ARRAY**2,
            additional_parameters={k: v for k, v in options.items() if v is not False},
            setup=[
                # Files of the working directory must not shadow libraries.
                f"export {SAFE_PATH}=1",
                # Since Slurm 22.05, srun does not take the number of CPUs from the job.
                f"export SRUN_CPUS_PER_TASK=${{SLURM_CPUS_PER_TASK:-{threads}}}",
            ],
        )
        return executor

    def _probe(self, cache: Path) -> None:
        """Check with a small job that compute nodes see the directories.

        A successful check is remembered in the cache.
        """
        from submitit.core.utils import FailedJobError

        work = self._folder.parent
        place = repr([str(work.parent), sys.executable, sorted(map(str, self._options.items()))])
        known = cache / JOBS / hashlib.sha256(place.encode()).hexdigest()[:16]
        if known.exists():
            return
        known.parent.mkdir(parents=True, exist_ok=True)
        array = f"bench-probe-{uuid.uuid4().hex}"
        folder = self._folder / array
        folder.mkdir()
        token = known.parent / array
        token.touch()
        self._arrays[array] = []
        executor = self._submitit(folder, {**self._options, "time": PROBE_TIME}, 1)
        job = ""
        try:
            with redirect_stderr(StringIO()):
                job = executor.submit(Probe(str(folder), [str(token)])).job_id
            self._say(f"Waiting for the Slurm job {job}, which checks access to {work.parent} ...")
            missing = self._answer_of(job, folder)["missing"]
        except FailedJobError as error:
            raise _refused(error) from None
        except BaseException:
            if job:
                _scancel([job])
            raise
        finally:
            del self._arrays[array]
            token.unlink()
            shutil.rmtree(folder, ignore_errors=True)
        if missing:
            raise UserError(
                f"Compute nodes do not see the cache {cache}; set BENCH_CACHE to a directory that "
                "all nodes share."
            )
        known.touch()

    def _answer_of(self, job: str, folder: Path) -> Any:
        """Wait for the answer of a probe."""
        gone = None
        while True:
            time.sleep(TICK)
            answer = read_json(folder / SEEN)
            if answer is not None:
                return answer
            queue = self._queue()
            if queue is None or (job in queue and queue[job].state not in ENDED_STATES):
                gone = None
            elif gone is None:
                gone = time.monotonic()
            elif time.monotonic() - gone > PATIENCE:
                break
        stderr = folder / f"{job}_0_log.err"
        last = stderr.read_text(errors="replace").strip() if stderr.exists() else ""
        if last:
            raise UserError(
                f"bench does not run on compute nodes: {last.rpartition(chr(10))[2].strip()}. "
                f"Install it where they see {sys.executable}."
            )
        raise UserError(
            f"The Slurm job {job} could not write to {folder.parent.parent.parent}; use --db with "
            "a file in a directory that compute nodes share with this machine."
        )


class _Queued(NamedTuple):
    """An entry of the queue."""

    array: str
    state: str


@dataclass(eq=False)
class _Job:
    """A unit and its job."""

    unit: Unit
    future: Future[WorkerExit] = field(default_factory=Future)
    id: str = ""
    """Id of the job; empty while it has not been submitted."""
    state: str = "PENDING"
    stderr: Path = Path()
    submitted: datetime = field(default_factory=lambda: datetime.now(UTC))
    gone: float | None = None
    """When the job was first found to have ended, on the monotonic clock."""
    progress: Any = None

    @property
    def folder(self) -> Path:
        return Path(self.unit.folder)


def _normalised(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options named as by sbatch; ``true`` and ``false`` set flags."""
    words = {"true": True, "false": False}
    return {
        name.strip("-").replace("_", "-"): words.get(str(value).lower(), value)
        for name, value in options.items()
    }


def _minutes(text: str) -> int:
    """Return a time limit in minutes, given in one of the formats of sbatch.

    Raises
    ------
    UserError
        If it is in none of them, or less than a minute.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    minutes = 0
    if match:
        days, *rest = match.groups()
        numbers = [int(number) for number in rest if number is not None]
        if days is not None or len(numbers) == 3:
            hours, more, seconds = (*numbers, 0, 0)[:3]
        else:
            hours, more, seconds = 0, *(*numbers, 0)[:2]
        minutes = 1440 * int(days or 0) + 60 * hours + more + (seconds > 0)
    if not minutes:
        raise UserError(
            f"--slurm time must be minutes, hours:minutes:seconds or days-hours, got {text!r}."
        )
    return minutes


def _largest_array() -> int:
    """Return the largest number of tasks of a job array."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config") or "", re.M)
    return max(1, int(found.group(1))) if found else LARGEST_ARRAY


def _ask(*words: str) -> str | None:
    """Return the output of a command of Slurm, or None if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _scancel(jobs: Sequence[str], *options: str) -> None:
    _ask("scancel", "--quiet", *options, *jobs)


def _refused(error: Exception) -> UserError:
    """Return a message about options that sbatch does not accept."""
    lines = [line.removeprefix("sbatch: error: ") for line in str(error).strip().splitlines()]
    return UserError(
        f"Slurm refused the job: {lines[-1] if lines else 'sbatch failed'}. Change --slurm or "
        "[slurm] in bench.toml."
    )
