"""The progress of units that run on other machines, as seen in the working directory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bench.execute.remote import PROGRESS, read_json
from bench.execute.unit import OUTCOME
from bench.plan_file import PlanFile


@dataclass(frozen=True)
class JobCounts:
    """The units of a plan by their progress."""

    stored: int
    finished: int
    """Units with an outcome that has not been stored yet."""
    running: tuple[str, ...]
    """Descriptions of the units that have begun, with their latest progress."""
    waiting: int

    @property
    def left(self) -> int:
        """The number of units that are not finished."""
        return len(self.running) + self.waiting


def count_jobs(plan: PlanFile, work: Path, stored: Collection[str]) -> JobCounts:
    """Count the units of a plan.

    Parameters
    ----------
    plan : PlanFile
        A plan whose units run on other machines.
    work : pathlib.Path
        Their working directory.
    stored : collection of str
        Keys of the trials and studies that are stored.
    """
    labels = {**plan.studies, **{trial["key"]: trial["label"] for trial in plan.trials}}
    left = [key for key in labels if key not in stored]
    finished = {key for key in left if (work / key / OUTCOME).is_dir()}
    running = []
    for key in left:
        progress = read_json(work / key / PROGRESS)
        if progress is not None and key not in finished:
            running.append(f"{labels[key]}, {progress['words']}")
    return JobCounts(
        stored=len(labels) - len(left),
        finished=len(finished),
        running=tuple(running),
        waiting=len(left) - len(finished) - len(running),
    )
