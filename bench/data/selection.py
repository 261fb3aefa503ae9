"""From what the files said to who trains, validates and tests: nothing that failed, no leak."""

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
"""What official splits call their sides, in lower case."""

OTHER_TEST = "test side of the training cohort"


@dataclass(frozen=True)
class SelectedScans:
    """A dataset whose files were read: which scans are used, and on which side.

    Parameters
    ----------
    scans : DataFrame
        Every scan found: the listing's columns and, for those read, the facts; ``reason`` is final.
    used : DataFrame
        Those without a reason: also ``y`` (years or class), ``group`` (subjects that belong
        together have the same) and ``side``.
    task : Task
        What is predicted.
    flow : list of (str, int)
        What was found, left out by reason, and used.
    warnings : list of str
        What a user should know of; nothing of it was left out for that.
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
    """Leave out what could not be read, find copies, and split by subject.

    Subjects of one family and subjects who share an image are one unit of the split.

    Parameters
    ----------
    listing : Listing
        The scans that were chosen, `Listing.after_reading`.
    facts : DataFrame
        What reading said of each chosen scan, indexed as they are: ``sha256`` of its voxels,
        ``reason`` if it cannot be used, and more.
    stored : Series of str, optional
        Sides by subject id of an earlier split.

    Returns
    -------
    SelectedScans

    Raises
    ------
    UserError
        When no scan is left, there are too few subjects, or sides that are given would leak.
    """
    request = listing.request
    task = listing.task
    scans, shared, warnings = after_reading(listing, facts)
    if len(facts) and facts["reason"].ne("").all():
        first = facts.index[0]
        raise UserError(
            f"None of the {len(facts)} scans of {request.name} can be read; the first is "
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
    """Return every scan found with what reading the chosen ones said, and who has no label.

    Parameters
    ----------
    listing, facts
        See `select_scans`; scans that were not read may be missing in the facts.
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
    """Return how many scans were found, left out for which reason, and used, and of how many."""
    used = scans[scans["reason"] == ""]
    return [
        ("scans found", len(scans)),
        *((f"left out: {reason}", n) for reason, n in manifest.count_flow(scans["reason"])),
        ("scans used", len(used)),
        ("subjects used", used["subject_id"].nunique()),
    ]


def _substitute_warnings(scans: pd.DataFrame) -> list[str]:
    """Say which images stand in for others that cannot be used."""
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
        f"In {n} visit{'s' * (n > 1)} another image stands in for one that cannot be used; the "
        f"first is {first['path']} ({why}), for which {used} stands in."
    ]


def _reader_warnings(scans: pd.DataFrame) -> list[str]:
    """Say which used scans made the libraries warn that read them."""
    if "remarks" not in scans:
        return []
    odd = scans[(scans["reason"] == "") & (scans["remarks"] != "")]
    if odd.empty:
        return []
    first = odd.iloc[0]
    return [
        f"Reading {len(odd)} used scan{'s' * (len(odd) > 1)} gave warnings; the first is "
        f"{first['path']}: {first['remarks']}."
    ]


def _leave_out_copies(
    scans: pd.DataFrame, target: str, warnings: list[str]
) -> list[tuple[str, ...]]:
    """Use every image once, and return which subjects shared one.

    An image that has two labels is not used at all: nobody knows which is right.
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
            f"{len(shared)} images stand under more than one subject, the first under {one!r} and "
            f"{other!r}: each is used once, and such subjects stay on one side of the split."
        )
    return shared


def _refuse_shared_images(shared: Iterable[tuple[str, ...]], scans: pd.DataFrame) -> None:
    """Raise UserError when an image is in the training cohort and in the test cohort."""
    external = set(scans.loc[scans["external"], "subject_id"])
    across = [people for people in shared if 0 < len(external.intersection(people)) < len(people)]
    if across:
        raise UserError(
            f"{len(across)} images are in the cohort that is trained on and in the test cohort, "
            f"the first under {listed(across[0])}, so the test would leak; use another test cohort."
        )


def _hold_out(scans: pd.DataFrame, site: str) -> None:
    """Leave out what subjects of the held-out site have from other sites."""
    used = scans["reason"] == ""
    sites = sorted(set(scans.loc[used, "site"]) - {""})
    if site not in sites:
        raise UserError(
            f"--hold-out-site {site}: no used scan is of that site; there are {listed(sites)}."
        )
    people = scans.loc[used & (scans["site"] == site), "subject_id"]
    elsewhere = scans["subject_id"].isin(people) & (scans["site"] != site)
    leave_out(scans, elsewhere, "another site's scan of a held-out subject")


def _groups(scans: pd.DataFrame, shared: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """Return the group of each subject: the first subject of all who belong together."""
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
    """Return the sides that were given from outside, by subject id; a subject has one."""
    words = used["split"].str.lower()
    unknown = sorted(set(words) - set(OFFICIAL) - {""})
    if unknown:
        raise UserError(
            f"The official split has sides that are not known: {listed(unknown)}; they are "
            f"{listed(OFFICIAL)}."
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
    """Return the side of each group: given, else stored, else dealt."""
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
        # Official training subjects are then all that there is to validate on.
        fixed = fixed.iloc[:0]
    if stored is not None:
        kept = _by_group(stored, groups)
        fixed = pd.concat([fixed, kept[~kept.index.isin([*fixed.index, *outside.index])]])
    fine = strata(people, task)["fine"].drop(outside.index)
    return pd.concat([split(fine, SPLIT_SEED, fixed, pattern), outside])


def _by_group(sides: pd.Series, groups: pd.Series) -> pd.Series:
    """Return the side of each group that has a member with one."""
    here = sides[sides.index.isin(groups.index)]
    table = pd.DataFrame({"group": groups[here.index].to_numpy(), "side": here.to_numpy()})
    table = table.drop_duplicates()
    torn = table[table.duplicated("group", keep=False)]
    if len(torn):
        group = torn["group"].iloc[0]
        people = here.index[groups[here.index] == group]
        raise UserError(
            f"The subjects {listed(people)} belong together (one family, or one image under "
            "several ids), and the split that is given puts them on several sides; put them on one "
            "side there, or use --new-split if it is a stored one."
        )
    return table.set_index("group")["side"]


def _own_test(used: pd.DataFrame) -> pd.Index:
    return used.index[~used["external"] & (used["side"] == "test")]


def balance(used: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Count subjects by side and test whether sides differ.

    Parameters
    ----------
    used : DataFrame
        ``SelectedScans.used``; the first scan of each subject counts.
    task : Task
        What is predicted.

    Returns
    -------
    DataFrame
        One row a value of a covariate: ``what`` (class, age, sex, site), ``value``, the counts
        ``train``, ``validation``, ``test``, and ``p`` of the chi-squared test of the covariate
        (NaN where it has one value), by permutation where a count of less than 5 is expected.
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
