"""What must hold before anything is trained: each a refusal in one sentence."""

from __future__ import annotations

import pandas as pd

from registry.cards import Task
from registry.errors import UserError


def refuse_shared_subjects(scans: pd.DataFrame) -> None:
    """Raise UserError when a subject has scans on more than one side.

    Parameters
    ----------
    scans : DataFrame
        ``subject_id`` and ``side`` of every scan.
    """
    sides = scans.groupby("subject_id")["side"].nunique()
    shared = sides.index[sides > 1]
    if len(shared):
        raise UserError(
            f"{len(shared)} subjects are on more than one side of the split, the first is "
            f"{shared[0]!r}; a subject must be on one: repair split.csv or use --new-split."
        )


def refuse_empty_sides(scans: pd.DataFrame, task: Task) -> None:
    """Raise UserError when a side is empty or lacks a class.

    Parameters
    ----------
    scans : DataFrame
        ``side`` and ``y`` of each subject's first scan.
    task : Task
        What is predicted.
    """
    for side in ("train", "validation", "test"):
        present = scans.loc[scans["side"] == side, "y"]
        if present.empty:
            raise UserError(
                f"The split that was kept has no {side} subject left; use --new-split to draw one "
                "for the subjects that there are."
            )
        for index, name in enumerate(task.classes):
            if not (present == index).any():
                raise UserError(
                    f"No {side} subject is of the class {name!r}; use --new-split, or add subjects "
                    "of that class."
                )
