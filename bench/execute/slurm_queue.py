"""Slurm's commands: the options of jobs, their submission and their state in the queue."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from bench.execute.unit import TIME_LIMIT_EXIT
from bench.processes import SAFE_PATH
from registry.errors import UserError

TIME = 240
"""Time limit of a job in minutes, unless the user sets one."""
REQUEUES = 50
"""Number of times that a job may reach its time limit and be resumed."""
LARGEST_ARRAY = 1001
"""Slurm's default of MaxArraySize."""
PATIENCE = 10.0
"""Seconds to wait for the files of a job that has left the queue, for network file systems."""

OURS = ("array", "chdir", "error", "job-name", "open-mode", "output", "signal")
"""Options of sbatch that the executor sets."""
NO_ANSWER = ("Unable to contact slurm controller", "Socket timed out")
"""Parts of messages of sbatch if the controller does not answer at the moment."""
NO_ROOM = ("job submit limit", "Resource temporarily unavailable")
"""Parts of messages of sbatch if the user or the cluster has too many jobs.

The first is that of every limit of accounting, so it may also mean that a job is too large.
"""

VANISHED = "left the queue without an outcome"


class End(NamedTuple):
    """What the state of a job that has ended says about its unit."""

    words: str
    cause: str
    """As `WorkerExit.cause`."""
    exit_code: int = 1


ENDED_STATES = {
    "": End(VANISHED, "lost"),
    "BOOT_FAIL": End("ended because its node failed", "lost"),
    "CANCELLED": End("was cancelled", "cancelled"),
    "COMPLETED": End(VANISHED, "lost"),
    "DEADLINE": End("reached its deadline", ""),
    "FAILED": End(VANISHED, "lost"),
    "NODE_FAIL": End("ended because its node failed", "lost"),
    "OUT_OF_MEMORY": End("ran out of memory; request more with --slurm mem=...", "memory"),
    "PREEMPTED": End("was preempted and not requeued; the same command resumes it", "lost"),
    "TIMEOUT": End(
        "reached its time limit; the same command resumes from the last checkpoint",
        "",
        TIME_LIMIT_EXIT,
    ),
}
"""States of jobs that have ended; empty for jobs that Slurm has forgotten."""
MEMORY = re.compile(r"exceeded (job )?memory limit|oom.kill", re.IGNORECASE)
"""What Slurm writes into the log of a job whose processes it killed, whatever the state says."""


def end_of(state: str, log: str) -> End:
    """Return what the state and the log of a job that has ended say about its unit."""
    return ENDED_STATES["OUT_OF_MEMORY" if MEMORY.search(log) else state]


class NoAnswer(Exception):
    """The controller of Slurm does not answer at the moment."""


class NoRoom(Exception):
    """Slurm accepts no more jobs at the moment."""

    @property
    def of_user(self) -> bool:
        """Whether it is a limit of the user, or of a job, rather than of the cluster."""
        return NO_ROOM[0] in str(self)


class Entry(NamedTuple):
    """An entry of the queue."""

    name: str
    state: str
    reason: str
    """Why it is in this state, as far as Slurm says so."""

    @property
    def ended(self) -> bool:
        """Whether the job has ended; Slurm lists such jobs for some minutes."""
        return self.state in ENDED_STATES


Queue = Mapping[str, Entry]
"""The jobs of the user by id."""


@dataclass(eq=False, kw_only=True)
class QueuedJob:
    """A job and its state."""

    id: str = ""
    """Empty while it has not been submitted."""
    state: str = "PENDING"
    held: str = ""
    """Why Slurm does not start it before somebody releases it; empty if it does."""
    _ended_at: float | None = None

    def update(self, queue: Queue) -> None:
        """Take the state from the queue."""
        entry = queue.get(self.id)
        self.state = "" if entry is None else entry.state
        self.held = entry.reason if entry and re.search("held", entry.reason, re.I) else ""
        if self.state not in ENDED_STATES:
            # Also if it had ended before and was requeued.
            self._ended_at = None
        elif self._ended_at is None:
            self._ended_at = time.monotonic()

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self._ended_at is not None

    @property
    def long_ended(self) -> bool:
        """Whether the job ended so long ago that all its files must be visible."""
        return self._ended_at is not None and time.monotonic() - self._ended_at > PATIENCE


def ask(*words: str) -> str | None:
    """Return the output of a command of Slurm, or None if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def read_queue() -> dict[str, Entry] | None:
    """Return the jobs of the user, or None if Slurm does not answer."""
    user = f"--user={os.getuid()}"
    listed = ask("squeue", "--noheader", "--array", "--states=all", user, "--format=%i|%T|%r|%j")
    if listed is None:
        return None
    lines = (line.strip().split("|", 3) for line in listed.splitlines())
    return {job: Entry(name, state, reason) for job, state, reason, name in lines}


def cancel_jobs(jobs: Sequence[str], *options: str) -> None:
    """Cancel jobs, or those of them that options of scancel select."""
    if jobs:
        ask("scancel", "--quiet", *options, *jobs)


def largest_array() -> int:
    """Return the largest number of tasks of a job array."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config") or "", re.M)
    return max(1, int(found.group(1))) if found else LARGEST_ARRAY


# ----------------------------------------------------------------- options


def normalised(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options named as by sbatch; ``true`` and ``false`` set flags."""
    words = {"true": True, "false": False}
    return {
        name.strip("-").replace("_", "-"): words.get(str(value).lower(), value)
        for name, value in options.items()
    }


def without_gpus(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that request no GPU."""
    kept = {}
    for name, value in options.items():
        if name.startswith("gpu") or name.endswith("-per-gpu"):
            continue
        if name == "gres" or name.startswith("tres-per-"):
            parts = str(value).split(",")
            value = ",".join(part for part in parts if not re.match(r"(gres[/:])?gpu\b", part))
            if not value:
                continue
        kept[name] = value
    return kept


def minutes_of(text: str) -> int:
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


# -------------------------------------------------------------- submission


def submitter(folder: Path, options: Mapping[str, Any], *, threads: int, parallel: int) -> Any:
    """Return an executor of submitit.

    Parameters
    ----------
    folder : pathlib.Path
        Directory for the files of the jobs; its name is that of the jobs.
    options : mapping
        Options of sbatch, from `normalised`.
    threads : int
        Number of cores of each job, unless the options contain it.
    parallel : int
        Maximum number of jobs of an array that run at the same time.
    """
    import submitit

    executor = submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES)
    options = {"requeue": True, "cpus-per-task": threads, **options}
    minutes = minutes_of(str(options.pop("time", TIME)))
    executor.update_parameters(
        job_name=folder.name,
        time=minutes,
        # Time to write a checkpoint; Slurm may send the signal up to a minute early.
        signal_delay_s=min(90, 15 * minutes),
        array_parallelism=parallel,
        additional_parameters={k: v for k, v in options.items() if v is not False},
        setup=[
            # Files of the working directory must not shadow libraries.
            f"export {SAFE_PATH}=1",
            # Since Slurm 22.05, srun does not take the number of CPUs from the job.
            f"export SRUN_CPUS_PER_TASK=${{SLURM_CPUS_PER_TASK:-{threads}}}",
        ],
    )
    return executor


def submit(executor: Any, tasks: Sequence[Any]) -> list[Any]:
    """Submit tasks as one job array with an executor of submitit; return its jobs.

    Raises
    ------
    NoAnswer
        If the controller does not answer. The jobs may have been submitted nevertheless.
    NoRoom
        If Slurm accepts no more jobs at the moment, or never; the message does not tell.
    UserError
        If Slurm refuses the jobs.
    """
    from submitit.core.utils import FailedJobError

    try:
        with redirect_stderr(StringIO()), executor.batch():
            return [executor.submit(task) for task in tasks]
    except FailedJobError as error:
        lines = [line.removeprefix("sbatch: error: ") for line in str(error).strip().splitlines()]
        last = lines[-1] if lines else "sbatch failed"
        if any(part in last for part in NO_ANSWER):
            raise NoAnswer(last) from None
        if any(part in last for part in NO_ROOM):
            raise NoRoom(last) from None
        raise refused(last) from None


def batch_script(executor: Any, tasks: int) -> str:
    """Return the batch script that an executor of submitit submits for some tasks."""
    if tasks > 1:
        executor.parameters["map_count"] = tasks
    text: str = executor._make_submission_file_text(executor._submitit_command_str, "")
    return text


def refused(words: str) -> UserError:
    """Return a message about options that sbatch does not accept."""
    return UserError(f"Slurm refused the job: {words}. Change --slurm or [slurm] in bench.toml.")
