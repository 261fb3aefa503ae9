"""Which of the scans found are used: by visit, by withdrawal, by diagnosis. All by stated rules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.data.adapters.walk import natural
from bench.data.diagnosis import FOLLOWED, normalise, parse_classes, spelled
from registry.cards import Value
from registry.errors import UserError

NOT_CHOSEN = "another image of the same visit is used"
WITHDRAWN = "withdrawn"

MONTH = 365.25 / 12
"""Days."""


def choose(scans: pd.DataFrame, options: Mapping[str, Value]) -> pd.DataFrame:
    """Say of every scan that a choice leaves out why, and name the classes.

    In this order: withdrawn subjects; of several images of a visit the one of lowest ``rank``;
    visits; diagnoses.

    Parameters
    ----------
    scans : DataFrame
        A tidy manifest (`bench.data.manifest.tidy`); ``attrs["exams"]``, if the cohort has exams:
        ``subject_id``, ``day`` and ``diagnosis``.
    options : mapping
        ``visits``, ``classes``, ``horizon``, ``withdrawals``.

    Returns
    -------
    DataFrame
        The same scans with ``reason`` and, where classes are formed, ``diagnosis`` changed.

    Raises
    ------
    UserError
        When a choice cannot be made: an unknown diagnosis, sMCI without exams, no list of
        withdrawals where one was named.
    """
    scans = scans.copy()
    _withdraw(scans, str(options["withdrawals"]))
    _choose_images(scans)
    _choose_visits(scans, str(options["visits"]))
    if options["classes"]:
        _form_classes(scans, str(options["classes"]), float(options["horizon"]))
    return scans


def leave_out(
    scans: pd.DataFrame, where: pd.Series | NDArray[np.bool_], reason: str | pd.Series
) -> None:
    """Give scans a reason, unless they have one."""
    where = where & (scans["reason"] == "")
    scans.loc[where, "reason"] = reason if isinstance(reason, str) else reason[where]


def _withdraw(scans: pd.DataFrame, name: str) -> None:
    if not name:
        return
    file = Path(name).expanduser()
    if not file.is_file():
        raise UserError(f"The list of withdrawals {file} does not exist.")
    lines = file.read_text(encoding="utf-8-sig").replace(",", "\n").splitlines()
    listed = {line.strip().strip('"') for line in lines}
    leave_out(scans, scans["subject_id"].isin(listed - {""}), WITHDRAWN)


def _choose_images(scans: pd.DataFrame) -> None:
    """Use one image a visit where the adapter ranks them; others must be unique by themselves."""
    candidates = scans[(scans["reason"] == "") & (scans["rank"] != "")]
    ranked = candidates.sort_values(["rank", "path"], key=lambda texts: texts.map(natural))
    best = ranked.drop_duplicates(["subject_id", "session_id"])
    leave_out(scans, scans.index.isin(candidates.index.difference(best.index)), NOT_CHOSEN)


def _choose_visits(scans: pd.DataFrame, visits: str) -> None:
    """Scans are in order of visits; those that have a day, by day."""
    if visits == "all":
        return
    used = scans[scans["reason"] == ""].sort_values(["subject_id", "day"], kind="stable")
    keep = used.drop_duplicates("subject_id", keep="first" if visits == "baseline" else "last")
    words = {"baseline": "not the subject's first visit", "last": "not the subject's last visit"}
    leave_out(scans, ~scans.index.isin(keep.index), words[visits])


def _form_classes(scans: pd.DataFrame, text: str, horizon: float) -> None:
    classes = parse_classes(text)
    used = scans["reason"] == ""
    # What is left out already may have words that nobody can be asked about.
    words = scans["diagnosis"].map(lambda word: spelled(word) or "")
    words[used] = normalise(scans.loc[used, "diagnosis"], "The table")
    if set(FOLLOWED) & set(classes):
        _follow_up(scans, words, horizon)
    leave_out(scans, words == "", "no diagnosis")
    outside = ~words.isin(classes)
    leave_out(scans, outside, "diagnosis " + words + ", not among the classes")
    scans["diagnosis"] = words.map(classes).fillna("")
    scans.attrs["classes"] = tuple(dict.fromkeys(classes.values()))


def _follow_up(scans: pd.DataFrame, words: pd.Series, horizon: float) -> None:
    """Tell MCI that becomes AD within the horizon from MCI that is still MCI at its end."""
    exams = scans.attrs.get("exams")
    if exams is None:
        raise UserError(
            "sMCI and pMCI need exams after the scan, and this dataset has none; choose classes of "
            "CN, MCI and AD, or write sMCI and pMCI into a table and name it as the cohort."
        )
    exams = exams.assign(diagnosis=normalise(exams["diagnosis"], "The table of exams"))
    exams = exams[exams["diagnosis"] != ""]
    of_subject = {
        subject: (rows["day"].to_numpy(dtype=float), rows["diagnosis"].to_numpy(dtype=str))
        for subject, rows in exams.groupby("subject_id")
    }
    none = np.array([]), np.array([], dtype=str)
    mci = scans[(words == "MCI") & (scans["reason"] == "")]
    for index, subject, day in zip(mci.index, mci["subject_id"], mci["day"], strict=True):
        days, found = of_subject.get(subject, none)
        since = (days - day) / MONTH
        within = found[(since > 0) & (since <= horizon)]
        if "AD" in within:
            words[index] = "pMCI"
        elif not (since >= horizon).any():
            scans.loc[index, "reason"] = f"MCI followed for less than {horizon:g} months"
        elif {"CN", "SMC"} & set(within):
            scans.loc[index, "reason"] = f"MCI that reverted within {horizon:g} months"
        else:
            words[index] = "sMCI"
