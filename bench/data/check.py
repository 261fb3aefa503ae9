"""Checks of a split before training."""

from __future__ import annotations

import pandas as pd

from registry.cards import Task
from registry.core import counted
from registry.errors import UserError


def refuse_shared_subjects(scans: pd.DataFrame) -> None:
    """Raise UserError if the scans of a subject are in more than one set.

    Parameters
    ----------
    scans : DataFrame
        ``subject_id`` and ``side`` (the set) of each scan.
    """
    sides = scans.groupby("subject_id")["side"].nunique()
    shared = sides.index[sides > 1]
    if len(shared):
        raise UserError(
            f"The split has {counted(len(shared), 'subject')} in more than one set, for example "
            f"{shared[0]!r}; correct the split so that each subject is in one set, or use "
            "--new-split."
        )


def refuse_empty_sides(scans: pd.DataFrame, task: Task) -> None:
    """Raise UserError if a set is empty or lacks a class.

    Parameters
    ----------
    scans : DataFrame
        ``side`` (the set) and ``y`` of the first scan of each subject.
    task : Task
        What is predicted.
    """
    for side in ("train", "validation", "test"):
        present = scans.loc[scans["side"] == side, "y"]
        if present.empty:
            raise UserError(
                f"The stored split has no {side} subject left; use --new-split to make a new split "
                "of the current subjects."
            )
        for index, name in enumerate(task.classes):
            if not (present == index).any():
                raise UserError(
                    f"No {side} subject has the class {name!r}; use --new-split, or add subjects "
                    "of this class."
                )
