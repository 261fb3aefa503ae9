"""Selection of the usable scans and assignment to training, validation and test sets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.data import check, manifest
from bench.data.adapters.reading import listed
from bench.data.choices import REPLACED, leave_out
from bench.data.copies import same_images
from bench.data.listing import Listing
from bench.data.split import PATTERN, PATTERN_WITHOUT_TEST, SIDES, split, strata
from registry.cards import Task
from registry.core import counted
from registry.errors import UserError

SPLIT_SEED = 0

OFFICIAL = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}
"""Names of the sets in official splits, in lower case."""

OTHER_TEST = "test side of the training cohort"


@dataclass(frozen=True)
class SelectedScans:
    """The scans that are used, and the set that each of them belongs to.

    Parameters
    ----------
    scans : DataFrame
        All scans found: the listing's columns and, for scans that were read, the facts. The
        ``reason`` for excluding a scan is final.
    used : DataFrame
        The scans without a ``reason``, with three more columns: ``y`` (years or class), ``group``
        (equal for subjects that must stay in one set) and ``side`` (the set).
    task : Task
        What is predicted.
    flow : list of (str, int)
        Numbers of scans found, excluded for each reason, and used.
    warnings : list of str
        Messages for the user about scans that are used nevertheless.
    """

    scans: pd.DataFrame
    used: pd.DataFrame
    task: Task
    flow: list[tuple[str, int]]
    warnings: list[str]

    @property
    def subjects(self) -> pd.DataFrame:
        """The first used scan of every subject."""
        return self.used.drop_duplicates("subject_id")


def select_scans(
    listing: Listing, facts: pd.DataFrame, stored: pd.Series | None = None
) -> SelectedScans:
    """Exclude scans that could not be read and copies, and split the others by subject.

    Subjects of one family and subjects who share an image stay in the same set.

    Parameters
    ----------
    listing : Listing
        The chosen scans, as returned by `Listing.after_reading`.
    facts : DataFrame
        The facts of each chosen scan, with the same index: ``sha256`` of its voxels, ``reason`` if
        it cannot be used, and the other columns of `bench.data.facts.FACTS`.
    stored : Series of str, optional
        The set of each subject in an earlier split, by subject id.

    Returns
    -------
    SelectedScans

    Raises
    ------
    UserError
        If no scan is left, if there are too few subjects, or if a given split would leak.
    """
    request = listing.request
    task = listing.task
    scans, shared, warnings = after_reading(listing, facts)
    if len(facts) and facts["reason"].ne("").all():
        first = facts.index[0]
        raise UserError(
            f"None of the {len(facts)} scans of {request.name} can be used, for example "
            f"{scans.loc[first, 'path']}: {scans.loc[first, 'reason']}."
        )
    site = str(request.options["hold_out_site"])
    _refuse_shared_images(shared, scans)
    if site:
        _hold_out(scans, site)
    used = scans[scans["reason"] == ""].copy()
    used["y"] = manifest.encode(used, task)
    used["group"] = used["subject_id"].map(_groups(scans, shared))
    manifest.check_sizes(used[~used["external"]], task)
    given = _given_sides(used, site)
    used["side"] = used["group"].map(_sides(used, task, given, stored))
    if used["external"].any():
        leave_out(scans, scans.index.isin(_own_test(used)), OTHER_TEST)
        used = used.drop(index=_own_test(used))
    check.refuse_shared_subjects(used)
    check.refuse_empty_sides(used.drop_duplicates("subject_id"), task)
    return SelectedScans(scans, used, task, flow_of(scans), warnings)


def after_reading(
    listing: Listing, facts: pd.DataFrame
) -> tuple[pd.DataFrame, list[tuple[str, ...]], list[str]]:
    """Judge every scan by what reading said of it, before anything is split.

    Parameters
    ----------
    listing, facts
        See `select_scans`.

    Returns
    -------
    scans : DataFrame
        Every scan found, with its facts and ``reason``.
    shared : list of tuple of str
        The subjects of each image that more than one subject has.
    warnings : list of str
        What a user should know of.
    """
    scans = with_facts(listing, facts)
    warnings = [str(words) for words in scans.attrs.get("warnings", ())]
    warnings += _substitute_warnings(scans)
    warnings += _reader_warnings(scans)
    shared = _leave_out_copies(scans, listing.request.target, warnings)
    return scans, shared, warnings


def with_facts(listing: Listing, facts: pd.DataFrame) -> pd.DataFrame:
    """Return all scans found with the facts of those that were read; exclude unlabelled scans.

    Parameters
    ----------
    listing, facts
        See `select_scans`; `facts` may lack scans that were not read.
    """
    scans = listing.scans.copy()
    for name in facts.columns:
        if name == "reason":
            scans.loc[facts.index, name] = facts[name]
        else:
            fill = "" if name in ("sha256", "blocks", "remarks") else None
            scans[name] = facts[name].reindex(scans.index, fill_value=fill)
    unlabelled = ~manifest.labelled(scans, listing.request.target)
    leave_out(scans, unlabelled, f"no {listing.request.target}")
    return scans


def flow_of(scans: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the numbers of scans found, excluded for each reason, and used, and of subjects."""
    used = scans[scans["reason"] == ""]
    return [
        ("scans found", len(scans)),
        *((f"left out: {reason}", n) for reason, n in manifest.count_flow(scans["reason"])),
        ("scans used", len(used)),
        ("subjects used", used["subject_id"].nunique()),
    ]


def _substitute_warnings(scans: pd.DataFrame) -> list[str]:
    """Report visits where another image replaces one that cannot be used."""
    torn = scans[scans["reason"].str.endswith(REPLACED)]
    if torn.empty:
        return []
    first = torn.iloc[0]
    visit = (scans["subject_id"] == first["subject_id"]) & (
        scans["session_id"] == first["session_id"]
    )
    used = scans.loc[visit & (scans["reason"] == ""), "path"].iloc[0]
    n = len(torn.drop_duplicates(["subject_id", "session_id"]))
    why = first["reason"].removesuffix(REPLACED)
    return [
        f"In {counted(n, 'visit')} another image replaces one that cannot be used, for example "
        f"{used} replaces {first['path']} ({why})."
    ]


def _reader_warnings(scans: pd.DataFrame) -> list[str]:
    """Say which used scans made the libraries warn that read them."""
    odd = scans[(scans["reason"] == "") & (scans["remarks"] != "")]
    if odd.empty:
        return []
    first = odd.iloc[0]
    return [
        f"Reading {counted(len(odd), 'used scan')} gave warnings; the first is "
        f"{first['path']}: {first['remarks']}."
    ]


def _leave_out_copies(
    scans: pd.DataFrame, target: str, warnings: list[str]
) -> list[tuple[str, ...]]:
    """Use each image once, and return the groups of subjects that share an image.

    An image with two different labels is excluded, because it is not known which one is right.
    """
    read = scans[(scans["reason"] == "") & (scans["sha256"] != "")]
    first = same_images(read)
    copies = read[first.duplicated(keep=False)]
    shared = []
    for _, same in copies.groupby(first, sort=True):
        if same[target].nunique() > 1 and same["subject_id"].nunique() > 1:
            leave_out(scans, scans.index.isin(same.index), f"one image, two labels of {target}")
        else:
            leave_out(scans, scans.index.isin(same.index[1:]), "copy of another scan")
        people = tuple(same["subject_id"].unique())
        if len(people) > 1:
            shared.append(people)
    if shared:
        one, other = shared[0][:2]
        warnings.append(
            f"Images that more than one subject has: {len(shared)}, for example one of {one!r} "
            f"and {other!r}. Each is used once, and these subjects stay in the same set."
        )
    return shared


def _refuse_shared_images(shared: Iterable[tuple[str, ...]], scans: pd.DataFrame) -> None:
    """Raise UserError if the training cohort and the test cohort share an image."""
    external = set(scans.loc[scans["external"], "subject_id"])
    across = [people for people in shared if 0 < len(external.intersection(people)) < len(people)]
    if across:
        raise UserError(
            f"The training cohort and the test cohort share "
            f"{counted(len(across), 'image')}, for example that of {listed(across[0])}, so "
            "training data would leak into the test set; use another test cohort."
        )


def _hold_out(scans: pd.DataFrame, site: str) -> None:
    """Exclude scans of subjects of the held-out site that were made at other sites."""
    used = scans["reason"] == ""
    sites = sorted(set(scans.loc[used, "site"]) - {""})
    if site not in sites:
        raise UserError(
            f"--hold-out-site {site}: no usable scan is from this site; choose one of "
            f"{listed(sites)}."
        )
    people = scans.loc[used & (scans["site"] == site), "subject_id"]
    elsewhere = scans["subject_id"].isin(people) & (scans["site"] != site)
    leave_out(scans, elsewhere, "another site's scan of a held-out subject")


def _groups(scans: pd.DataFrame, shared: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """Return the group of each subject: the first of all subjects that must stay together."""
    head = {subject: subject for subject in scans["subject_id"]}

    def root(subject: str) -> str:
        while head[subject] != subject:
            subject = head[subject]
        return subject

    families = scans[scans["family"] != ""].groupby("family")["subject_id"].unique()
    for people in [*map(tuple, families), *shared]:
        first = min(root(subject) for subject in people)
        for subject in people:
            head[root(subject)] = first
    return {subject: root(subject) for subject in head}


def _given_sides(used: pd.DataFrame, site: str) -> pd.Series:
    """Return the set of each subject for whom it is given, by subject id.

    It is given by the official split, by the held-out site, or by being in the test cohort.
    """
    words = used["split"].str.lower()
    unknown = sorted(set(words) - set(OFFICIAL) - {""})
    if unknown:
        raise UserError(
            f"The official split has unknown values: {listed(unknown)}; use one of "
            f"{listed(OFFICIAL)}, or leave the value empty."
        )
    sides = words.map(OFFICIAL).fillna("")
    if site:
        sides = (used["site"] == site).map({True: "test", False: ""})
    sides = sides.where(~used["external"], "test")
    table = pd.DataFrame({"subject_id": used["subject_id"], "side": sides})
    table = table[table["side"] != ""].drop_duplicates()
    check.refuse_shared_subjects(table)
    return table.set_index("subject_id")["side"]


def _sides(used: pd.DataFrame, task: Task, given: pd.Series, stored: pd.Series | None) -> pd.Series:
    """Return the set of each group: as given, else as stored, else newly assigned."""
    groups = used.drop_duplicates("subject_id").set_index("subject_id")["group"]
    people = used.drop_duplicates("group").set_index("group")
    fixed = _by_group(given, groups)
    outside = fixed[people.loc[fixed.index, "external"]]
    fixed = fixed.drop(outside.index)
    pattern = PATTERN
    if (fixed == "test").any():
        pattern = PATTERN_WITHOUT_TEST
        outside = pd.concat([outside, fixed[fixed == "test"]])
        fixed = fixed.drop(outside.index, errors="ignore")
    if not (fixed == "validation").any():
        # The validation set must then be taken from the official training subjects.
        fixed = fixed.iloc[:0]
    if stored is not None:
        kept = _by_group(stored, groups)
        fixed = pd.concat([fixed, kept[~kept.index.isin([*fixed.index, *outside.index])]])
    fine = strata(people, task)["fine"].drop(outside.index)
    return pd.concat([split(fine, SPLIT_SEED, fixed, pattern), outside])


def _by_group(sides: pd.Series, groups: pd.Series) -> pd.Series:
    """Return the set of each group of which at least one member has a set."""
    here = sides[sides.index.isin(groups.index)]
    table = pd.DataFrame({"group": groups[here.index].to_numpy(), "side": here.to_numpy()})
    table = table.drop_duplicates()
    torn = table[table.duplicated("group", keep=False)]
    if len(torn):
        group = torn["group"].iloc[0]
        people = here.index[groups[here.index] == group]
        raise UserError(
            f"The subjects {listed(people)} must be in the same set (they are one family, or one "
            "image is stored under several ids), but the given split separates them; put them in "
            "the same set, or use --new-split if it is a stored split."
        )
    return table.set_index("group")["side"]


def _own_test(used: pd.DataFrame) -> pd.Index:
    return used.index[~used["external"] & (used["side"] == "test")]


def balance(used: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Count the subjects of each set and test whether the sets differ.

    Parameters
    ----------
    used : DataFrame
        ``SelectedScans.used``; only the first scan of each subject is counted.
    task : Task
        What is predicted.

    Returns
    -------
    DataFrame
        One row per value of a covariate: ``what`` (class, age, sex, site), ``value``, the counts
        ``train``, ``validation``, ``test``, and ``p`` of the chi-squared test of the covariate
        (NaN if it has only one value), by permutation if an expected count is below 5.
    """
    from scipy import stats

    people = used.drop_duplicates("subject")
    age = people["age"]
    columns = {
        "class": people["y"].map(dict(enumerate(task.classes))) if task.classes else None,
        "age": pd.qcut(age.rank(method="first"), 4, labels=_quarters(age)) if age.any() else None,
        "sex": people["sex"].replace("", "unknown"),
        "site": people["site"].replace("", "unknown"),
    }
    rows = []
    for what, values in columns.items():
        if values is None:
            continue
        counts = pd.crosstab(values, people["side"]).reindex(columns=list(SIDES), fill_value=0)
        p = float("nan")
        if len(counts) > 1:
            table = counts.loc[:, counts.sum() > 0].to_numpy()
            few = stats.contingency.expected_freq(table).min() < 5
            method = stats.PermutationMethod(n_resamples=999, rng=np.random.default_rng(0))
            test = stats.chi2_contingency(table, correction=False, method=method if few else None)
            p = float(test.pvalue)
        for value, count in counts.iterrows():
            rows.append({"what": what, "value": str(value), **count.to_dict(), "p": p})
    return pd.DataFrame(rows)


def _quarters(age: pd.Series) -> list[str]:
    cuts = age.quantile([0, 0.25, 0.5, 0.75, 1]).round(1).tolist()
    return [f"{i + 1}: {low:g}-{high:g}" for i, (low, high) in enumerate(itertools.pairwise(cuts))]
