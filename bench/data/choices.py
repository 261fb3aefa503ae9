"""Which of the scans found are used: by visit, by withdrawal, by diagnosis. All by stated rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.data import manifest
from bench.data.adapters.reading import MISSING, listed
from bench.data.adapters.walk import natural
from bench.data.diagnosis import FOLLOWED, normalise, parse_classes, spelled
from bench.data.manifest import FIRST_VISITS, visit_key
from bench.data.withdrawals import read_withdrawn
from registry.cards import Value
from registry.errors import UserError

NOT_CHOSEN = "another image of the same visit is used"
WITHDRAWN = "withdrawn"

REPLACED = "; the next image of the visit is used"
"""After why an image cannot be used, where another one stands in for it."""

OTHER_SPACE = "the first image of the visit cannot be used, and this one is in another space"

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
        When a choice cannot be made: an unknown diagnosis, sMCI without exams, visits in no known
        order, a list of withdrawals that names nobody.
    """
    scans = scans.copy()
    _join_spellings(scans)
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


def _join_spellings(scans: pd.DataFrame) -> None:
    """Write diagnoses that differ in case and spaces as the commonest of them is written."""
    words = scans["diagnosis"].str.split().str.join(" ")
    words = words.where(~words.str.lower().isin(MISSING), "")
    counts = words.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    best: dict[str, str] = {}
    for word in counts.index:
        best.setdefault(word.casefold(), word)
    scans["diagnosis"] = words.str.casefold().map(best)


def substitutes(scans: pd.DataFrame, target: str) -> dict[int, list[int]]:
    """Return which images stand in for a chosen one that turns out to be unusable, in order.

    They are of the same visit, have a label, and are said to be in the same space: an image that is
    not registered never stands in for one that is.

    Parameters
    ----------
    scans : DataFrame
        As `choose` left them.
    target : str
        What must be known of a scan.

    Returns
    -------
    dict
        Indices of `scans` by the index of a chosen scan, for those that have any.
    """

    def visits(rows: pd.DataFrame) -> Iterator[tuple[int, tuple[str, ...]]]:
        columns = (rows[name] for name in ("subject_id", "session_id", "space"))
        return zip(rows.index, zip(*columns, strict=True), strict=True)

    chosen = {visit: index for index, visit in visits(scans[scans["reason"] == ""])}
    others = scans[(scans["reason"] == NOT_CHOSEN) & manifest.labelled(scans, target)]
    found: dict[int, list[int]] = {}
    for index, visit in visits(_by_rank(others)):
        if visit in chosen:
            found.setdefault(chosen[visit], []).append(index)
    return found


def replace(
    scans: pd.DataFrame, target: str, unusable: Mapping[int, str]
) -> tuple[pd.DataFrame, dict[int, int]]:
    """Return the scans with the next usable image of a visit chosen where the first is not usable.

    Parameters
    ----------
    scans : DataFrame
        As `choose` left them.
    target : str
        See `substitutes`.
    unusable : mapping
        Why scans that were read cannot be used, by index.

    Returns
    -------
    scans : DataFrame
        Every image that was read in vain has its reason, but for chosen ones without a substitute:
        those stay chosen, for what reading them said gives them one.
    taken : dict
        The index of the substitute by that of the image that it stands in for.
    """
    scans = scans.copy()
    in_order, lost, taken = substitutes(scans, target), [], {}
    for one in scans.index[(scans["reason"] == "") & scans.index.isin(list(unusable))]:
        others = in_order.get(one, [])
        good = next((other for other in others if other not in unusable), None)
        if good is None:
            lost.append(one)
        else:
            scans.loc[one, "reason"] = unusable[one] + REPLACED
            scans.loc[good, "reason"] = ""
            taken[int(one)] = good
        for other in others:
            if other in unusable:
                scans.loc[other, "reason"] = unusable[other] + ("" if good is None else REPLACED)
    visits = pd.MultiIndex.from_frame(scans[["subject_id", "session_id"]])
    stranded = visits.isin(visits[scans.index.isin(lost)]) & (scans["reason"] == NOT_CHOSEN)
    labelled = manifest.labelled(scans, target)
    scans.loc[stranded & labelled, "reason"] = OTHER_SPACE
    scans.loc[stranded & ~labelled, "reason"] = f"no {target}"
    return scans, taken


def _withdraw(scans: pd.DataFrame, name: str) -> None:
    if not name:
        return
    people, said = read_withdrawn(Path(name).expanduser(), scans["subject_id"])
    leave_out(scans, scans["subject_id"].isin(people), WITHDRAWN)
    scans.attrs["warnings"] = [*scans.attrs.get("warnings", ()), said]


def _choose_images(scans: pd.DataFrame) -> None:
    """Use one image a visit where the adapter ranks them; others must be unique by themselves."""
    candidates = scans[(scans["reason"] == "") & (scans["rank"] != "")]
    best = _by_rank(candidates).drop_duplicates(["subject_id", "session_id"])
    leave_out(scans, scans.index.isin(candidates.index.difference(best.index)), NOT_CHOSEN)


def _by_rank(scans: pd.DataFrame) -> pd.DataFrame:
    return scans.sort_values(["rank", "path"], key=lambda texts: texts.map(natural))


def _choose_visits(scans: pd.DataFrame, visits: str) -> None:
    """Use the first or last visit of each subject: by day, else by age, else by number."""
    if visits == "all":
        return
    used = scans[scans["reason"] == ""]
    order = pd.Series(0.0, index=used.index)
    unknown = []
    several = used.groupby("subject_id")["session_id"].transform("nunique") > 1
    for subject, rows in used[several].groupby("subject_id"):
        places = _order_of_visits(rows)
        if places is None:
            unknown.append((subject, rows["session_id"].unique()))
        else:
            order[rows.index] = places
    if unknown:
        subject, names = unknown[0]
        raise UserError(
            f"--visits {visits}: of {len(unknown)} subjects the order of the visits is not known, "
            f"the first is {subject!r} with {listed(names)}: no date or age tells them apart, and "
            "their names are not numbers of one kind; add the age or acq_time of each visit to the "
            "table (in BIDS sub-*_sessions.tsv), or use --visits all."
        )
    used = used.assign(order=order).sort_values(["subject_id", "order"], kind="stable")
    keep = used.drop_duplicates("subject_id", keep="first" if visits == "baseline" else "last")
    words = {"baseline": "not the subject's first visit", "last": "not the subject's last visit"}
    leave_out(scans, ~scans.index.isin(keep.index), words[visits])


def _order_of_visits(rows: pd.DataFrame) -> pd.Series | None:
    """Return what a subject's scans are sorted by, None when nothing tells."""
    each = rows.drop_duplicates("session_id").set_index("session_id")
    for name in ("day", "age"):
        if each[name].notna().all() and each[name].is_unique:
            return rows["session_id"].map(each[name])
    others = [name for name in each.index if name.lower() not in FIRST_VISITS]
    kinds = {re.sub(r"\d+", "0", name) for name in others}
    if not kinds or (len(kinds) == 1 and "0" in kinds.copy().pop()):
        ranked = sorted(each.index, key=visit_key)
        return rows["session_id"].map(ranked.index).astype(float)
    return rows["day"] if rows["day"].notna().all() else None


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
    why = pd.Series("", index=scans.index)
    # Those that may stand in for a chosen image are of the same visit and get its class.
    mci = scans[(words == "MCI") & scans["reason"].isin(["", NOT_CHOSEN])]
    for index, subject, day in zip(mci.index, mci["subject_id"], mci["day"], strict=True):
        days, found = of_subject.get(subject, none)
        since = (days - day) / MONTH
        within = found[(since > 0) & (since <= horizon)]
        if "AD" in within:
            words[index] = "pMCI"
        elif not (since >= horizon).any():
            why[index] = f"MCI followed for less than {horizon:g} months"
        elif {"CN", "SMC"} & set(within):
            why[index] = f"MCI that reverted within {horizon:g} months"
        else:
            words[index] = "sMCI"
    leave_out(scans, why != "", why)
