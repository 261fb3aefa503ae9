"""A small job that checks whether the compute nodes of a Slurm cluster see some directories."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.execute.remote import read_json
from bench.execute.slurm_job import SEEN, Probe
from bench.execute.slurm_queue import (
    NoAnswer,
    NoRoom,
    QueuedJob,
    cancel_jobs,
    read_queue,
    submit,
    submitter,
)
from registry.errors import UserError

TIME = 5
"""Time limit of the job in minutes."""
TICK = 1.0
"""Seconds between looking for the answer."""


def check_directories(
    jobs: Path, known: Path, options: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Check that compute nodes see the working directory and the cache.

    A successful check is remembered in the cache.

    Parameters
    ----------
    jobs : pathlib.Path
        A directory for the files of jobs in the working directory.
    known : pathlib.Path
        A directory for successful checks in the cache.
    options : mapping
        Options of sbatch.
    say : callable
        Called with messages to the user.

    Raises
    ------
    UserError
        If compute nodes do not see a directory, or Slurm accepts no job.
    """
    place = jobs.parent.parent
    what = repr([str(place), sys.executable, sorted(map(str, options.items()))])
    checked = known / hashlib.sha256(what.encode()).hexdigest()[:16]
    if checked.exists():
        return
    known.mkdir(parents=True, exist_ok=True)
    folder = jobs / f"bench-probe-{uuid.uuid4().hex}"
    folder.mkdir()
    token = known / folder.name
    token.touch()
    job = QueuedJob()
    try:
        executor = submitter(folder, {**options, "time": TIME}, threads=1, parallel=1)
        (submitted,) = submit(executor, [Probe(str(folder), [str(token)])])
        job.id = submitted.job_id
        say(f"Waiting for the Slurm job {job.id}, which checks access to {place} ...")
        missing = _answer(job, folder, place)["missing"]
    except (NoAnswer, NoRoom) as error:
        raise UserError(
            f"Slurm accepts no job at the moment ({error}); run the same command again later."
        ) from None
    except BaseException:
        cancel_jobs([job.id] if job.id else [])
        raise
    finally:
        token.unlink()
        shutil.rmtree(folder, ignore_errors=True)
    if missing:
        raise UserError(
            f"Compute nodes do not see the cache {known.parent}; set BENCH_CACHE to a directory "
            "that all nodes share."
        )
    checked.touch()


def _answer(job: QueuedJob, folder: Path, place: Path) -> Any:
    """Wait for the answer of the job."""
    while not job.long_ended:
        time.sleep(TICK)
        answer = read_json(folder / SEEN)
        if answer is not None:
            return answer
        queue = read_queue()
        if queue is not None:
            job.update(queue)
    stderr = folder / f"{job.id}_0_log.err"
    last = stderr.read_text(errors="replace").strip() if stderr.exists() else ""
    if last:
        raise UserError(
            f"bench does not run on compute nodes: {last.rpartition(chr(10))[2].strip()}. "
            f"Install it where they see {sys.executable}."
        )
    raise UserError(
        f"The Slurm job {job.id} could not write to {place}; use --db with a file in a directory "
        "that compute nodes share with this machine."
    )
