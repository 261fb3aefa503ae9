"""Choice of scans by withdrawal, image, visit and diagnosis."""

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
from registry.core import counted
from registry.errors import UserError

NOT_CHOSEN = "another image of the same visit is used"
WITHDRAWN = "withdrawn"

REPLACED = "; the next image of the visit is used"
"""Added to the reason why an image cannot be used if another image replaces it."""

OTHER_SPACE = "the first image of the visit cannot be used, and this one is in another space"

MONTH = 365.25 / 12
"""Length of a month in days."""


def choose(scans: pd.DataFrame, options: Mapping[str, Value]) -> pd.DataFrame:
    """Set the ``reason`` of scans that are excluded by a choice, and form the classes.

    The choices are made in this order: withdrawn subjects are excluded; of several images of a
    visit, the one of lowest ``rank`` is chosen; visits are chosen; diagnoses are chosen.

    Parameters
    ----------
    scans : DataFrame
        A tidy manifest (`bench.data.manifest.tidy`). If the cohort has exams, ``attrs["exams"]``
        has their ``subject_id``, ``day`` and ``diagnosis``.
    options : mapping
        ``visits``, ``classes``, ``horizon``, ``withdrawals``.

    Returns
    -------
    DataFrame
        The same scans with new ``reason`` and, if classes are formed, new ``diagnosis``.

    Raises
    ------
    UserError
        If a choice cannot be made: because a diagnosis is unknown, because sMCI is requested
        without exams, because the order of visits is unknown, or because no subject matches the
        list of withdrawals.
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
    """Set the reason for excluding scans, unless they already have one."""
    where = where & (scans["reason"] == "")
    scans.loc[where, "reason"] = reason if isinstance(reason, str) else reason[where]


def _join_spellings(scans: pd.DataFrame) -> None:
    """Replace spellings of a diagnosis that differ in case or spaces by the commonest one."""
    words = scans["diagnosis"].str.split().str.join(" ")
    words = words.where(~words.str.lower().isin(MISSING), "")
    counts = words.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    best: dict[str, str] = {}
    for word in counts.index:
        best.setdefault(word.casefold(), word)
    scans["diagnosis"] = words.str.casefold().map(best)


def substitutes(scans: pd.DataFrame, target: str) -> dict[int, list[int]]:
    """Return the images that may replace each chosen image if it turns out to be unusable.

    They belong to the same visit, have a label, and are declared to be in the same space: an
    unregistered image never replaces a registered one.

    Parameters
    ----------
    scans : DataFrame
        The result of `choose`.
    target : str
        The label that a scan must have.

    Returns
    -------
    dict
        Indices into `scans` in order of preference, by the index of the chosen scan.
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
    """Replace unusable images by the next usable image of the same visit.

    Parameters
    ----------
    scans : DataFrame
        The result of `choose`.
    target : str
        See `substitutes`.
    unusable : mapping
        The reason why a scan that was read cannot be used, by index.

    Returns
    -------
    scans : DataFrame
        The same scans with the reasons of unusable images. Chosen images without a substitute
        remain chosen here; their facts contain the reason.
    taken : dict
        The index of the substitute by the index of the image that it replaces.
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
    people, message = read_withdrawn(Path(name).expanduser(), scans["subject_id"])
    leave_out(scans, scans["subject_id"].isin(people), WITHDRAWN)
    scans.attrs["warnings"] = [*scans.attrs.get("warnings", ()), message]


def _choose_images(scans: pd.DataFrame) -> None:
    """Choose one image per visit where the adapter ranks them; other visits have one image."""
    candidates = scans[(scans["reason"] == "") & (scans["rank"] != "")]
    best = _by_rank(candidates).drop_duplicates(["subject_id", "session_id"])
    leave_out(scans, scans.index.isin(candidates.index.difference(best.index)), NOT_CHOSEN)


def _by_rank(scans: pd.DataFrame) -> pd.DataFrame:
    return scans.sort_values(["rank", "path"], key=lambda texts: texts.map(natural))


def _choose_visits(scans: pd.DataFrame, visits: str) -> None:
    """Choose the first or last visit of each subject: by day, else by age, else by number."""
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
            f"--visits {visits}: the order of the visits is unknown for "
            f"{counted(len(unknown), 'subject')}, for example {subject!r} with {listed(names)}, "
            "because their dates and ages are missing or equal and their names are not numbered "
            "in one way; add the age or acq_time of each visit to the table "
            "(sub-*_sessions.tsv in BIDS), or use --visits all."
        )
    used = used.assign(order=order).sort_values(["subject_id", "order"], kind="stable")
    keep = used.drop_duplicates("subject_id", keep="first" if visits == "baseline" else "last")
    words = {"baseline": "not the subject's first visit", "last": "not the subject's last visit"}
    leave_out(scans, ~scans.index.isin(keep.index), words[visits])


def _order_of_visits(rows: pd.DataFrame) -> pd.Series | None:
    """Return the values by which a subject's scans are sorted, None if their order is unknown."""
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
    # Scans that are already excluded may have unknown diagnoses, which are no error.
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
    """Separate MCI that progresses to AD within the horizon (pMCI) from stable MCI (sMCI)."""
    exams = scans.attrs.get("exams")
    if exams is None:
        raise UserError(
            "sMCI and pMCI need exams after the scan, but this dataset has none; use --classes "
            "with CN, MCI and AD, or add a column with sMCI and pMCI to a table and use --data "
            "table."
        )
    exams = exams.assign(diagnosis=normalise(exams["diagnosis"], "The table of exams"))
    exams = exams[exams["diagnosis"] != ""]
    of_subject = {
        subject: (rows["day"].to_numpy(dtype=float), rows["diagnosis"].to_numpy(dtype=str))
        for subject, rows in exams.groupby("subject_id")
    }
    none = np.array([]), np.array([], dtype=str)
    why = pd.Series("", index=scans.index)
    # Images that may replace a chosen one belong to the same visit and get the same class.
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
