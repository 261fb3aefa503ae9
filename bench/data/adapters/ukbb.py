"""UK Biobank: T1 images of the bulk field 20252, as folders, flat files or zip archives."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.adapters.reading import (
    by_id,
    listed,
    parse_ages,
    parse_sexes,
    readable_columns,
    refuse_disjoint,
    tables_of,
)
from bench.data.adapters.visits import NOT_LISTED
from bench.data.adapters.walk import Walk, natural
from bench.data.adapters.wide import read_columns
from bench.data.formats import why_absent
from registry.cards import Value
from registry.datasets import UKBB_IMAGES
from registry.errors import UserError

IMAGES = (".nii", ".nii.gz")
SEX, AGE, CENTRE = 31, 21003, 54
SEXES = {"0": "F", "1": "M"}
FIRST_IMAGING = "2"
UNUSABLE = "unusable by UK Biobank"

_BULK = re.compile(r"^(\d+)_20252_(\d)_\d+$")
_FLAT = re.compile(r"^(\d+)(?:_20252_(\d)_\d+)?_(T1\w*)$")
_FIELD = re.compile(
    r"^(?:participant\.)?(?:f[._]?|.*_f|x|p|[nst]s?_)?(\d+)(?:[-._]i?(\d+))?(?:[._]a?(\d+))?$",
    re.IGNORECASE,
)
_EID = re.compile(r"^(?:.*\.)?(?:[fnsx]_?)?eid$|^participant id$", re.IGNORECASE)
_TITLE = re.compile(r"^(.+?)(?: instance (\d+))?(?: array (\d+))?$")
_TITLES = {
    "sex": SEX,
    "age when attended assessment centre": AGE,
    "uk biobank assessment centre": CENTRE,
}
"""Titles of the fields in the Showcase, also used by the Research Analysis Platform."""


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the T1 scans of UK Biobank; see `bench.data.manifest.tidy`.

    There is one scan per imaging visit (2 is the first, 3 the repeat) of a participant; its age is
    field 21003 at that visit. The tables may have any number of columns, with names of fields as
    written by ukbconv, R, Stata or the Research Analysis Platform.

    Parameters
    ----------
    root : Path
        The directory that contains ``<eid>_20252_2_0.zip``, ``<eid>_20252_2_0/T1/``, ``<eid>/T1/``
        or files ``<eid>_T1_brain_to_MNI.nii.gz``, at any depth.
    options : mapping
        ``table``, and ``image``: the file of a scan that is used.

    Raises
    ------
    UserError
        If there are no scans, or no table with ``eid`` and the fields 21003 or 31.
    """
    image = str(options["image"])
    scans = _scans(root, image)
    people = _people(root, options)
    refuse_disjoint(scans["subject_id"], people.index, root, "the tables")
    known = scans["subject_id"].isin(people.index)
    scans.loc[~known & (scans["reason"] == ""), "reason"] = NOT_LISTED

    def value(field: int, instance: str) -> pd.Series:
        column = f"{field}-{instance}"
        if column not in people.columns:
            return pd.Series("", index=scans.index)
        return scans["subject_id"].map(people[column]).fillna("")

    scans["sex"] = parse_sexes(value(SEX, "0").rename("31"), Path("The UK Biobank table"), SEXES)
    scans["age"], scans["site"], scans["source"] = np.nan, "", ""
    for instance in sorted(scans["session_id"].unique()):
        here = scans["session_id"] == instance
        texts = value(AGE, instance).rename(f"{AGE}-{instance}.0")
        scans.loc[here, "age"] = parse_ages(texts, Path("The UK Biobank table"))[here]
        scans.loc[here, "site"] = value(CENTRE, instance).str.removesuffix(".0")[here]
        scans.loc[here, "source"] = f"field {AGE} at instance {instance}"
    scans["space"] = "mni" if image.endswith("_to_MNI") else ""
    warnings = list(scans.attrs["warnings"])
    at = [name.removeprefix(f"{AGE}-") for name in people.columns if name.startswith(f"{AGE}-")]
    if scans["age"].isna().all() and at:
        warnings.append(
            f"The tables have the age (field {AGE}) at instance {', '.join(sorted(at))}, but not "
            f"at instance {', '.join(sorted(scans['session_id'].unique()))}, at which the scans "
            "were made."
        )
    elif scans["age"].isna().all():
        warnings.append(
            f"The tables have no field {AGE} (age at the visit), so no scan has an age."
        )
    if image == "T1_brain_to_MNI":
        warnings.append(
            "T1_brain_to_MNI is registered to MNI space non-linearly, while the published models "
            "used linear registration; --data-set image=T1_brain with --register affine is closer "
            "to that."
        )
    scans.attrs = {"columns": list(people.columns), "warnings": warnings}
    return scans


def _scans(root: Path, image: str) -> pd.DataFrame:
    """Return the image of each scan and form on disk (zipped or not), or why there is none."""
    rows, names = [], Counter[str]()
    walk = Walk(root)
    for (subject, instance, packed), files in _images(walk).items():
        usable = [file for file in files if "/unusable/" not in f"/{file[1]}"]
        names.update({name for name, *_ in usable})
        wanted = [file for file in usable if file[0] == image]
        # If several files have that name, files are preferred to broken links and folders.
        _, path, reason = min(wanted or files, key=lambda file: (file[2] != "", natural(file[1])))
        if not usable:
            reason = UNUSABLE
        elif not wanted and not reason:
            reason = f"no {image} among its files"
        rows.append((subject, instance, path, str(int(packed)), reason))
    if not rows:
        raise walk.nothing(
            f"There is no T1 scan of UK Biobank in {root}: no <eid>_20252_2_0.zip, no folder "
            "<eid>_20252_2_0/T1 or <eid>/T1, and no file <eid>_T1_brain_to_MNI.nii.gz; check "
            "--root."
        )
    scans = pd.DataFrame(rows, columns=["subject_id", "session_id", "path", "rank", "reason"])
    if not (scans["reason"] == "").any():
        _refuse_other_images(names, len(scans), image)
    scans.attrs["warnings"] = walk.warnings
    return scans


def _refuse_other_images(names: Counter[str], n_scans: int, image: str) -> None:
    """Raise UserError if no scan has the requested image although there are others."""
    if not names:
        return
    others = [name for name in UKBB_IMAGES if name in names]
    counts = ", ".join(f"{name} ({n})" for name, n in names.most_common())
    remedy = "None of these can be used."
    if others:
        remedy = f"Choose one of them, for example with --data-set image={others[0]}."
    raise UserError(
        f"None of the {n_scans} scans of UK Biobank has a file {image}; their files are {counts}. "
        f"{remedy}"
    )


def _images(walk: Walk) -> dict[tuple[str, str, bool], list[tuple[str, str, str]]]:
    """Return the images (name, path, reason) by participant, visit, and whether they are zipped."""
    found: dict[tuple[str, str, bool], list[tuple[str, str, str]]] = {}
    for path, name, reason in walk:
        stem, end = _parted(name)
        if end == ".zip":
            match = _BULK.match(stem)
            if match:
                key = (match[1], match[2], True)
                found.setdefault(key, []).extend(_members(walk.root, path))
        elif end in IMAGES:
            match = _FLAT.match(stem)
            if match:
                key = (match[1], match[2] or FIRST_IMAGING, False)
                found.setdefault(key, []).append((match[3], path, reason))
            elif stem.startswith("T1") and (owner := _owner(path)) is not None:
                found.setdefault((*owner, False), []).append((stem, path, reason))
    return found


def _parted(name: str) -> tuple[str, str]:
    """Split a name into its stem and its ending in lower case."""
    end = next((end for end in (*IMAGES, ".zip") if name.lower().endswith(end)), "")
    return name.removesuffix(name[len(name) - len(end) :]), end


def _owner(path: str) -> tuple[str, str] | None:
    """Return participant and visit of a file in ``<eid>[_20252_2_0]/T1``."""
    for part in reversed(path.split("/")[:-1]):
        match = _BULK.match(part)
        if match:
            return match[1], match[2]
        if part.isdecimal():
            return part, FIRST_IMAGING
    return None


def _members(root: Path, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield the images in an archive.

    If the archive cannot be opened, yield one image, so that the scan is listed as unusable.
    """
    reason = ""
    try:
        with zipfile.ZipFile(root / path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        names = ["T1/T1.nii.gz"]
    except OSError as error:
        names = ["T1/T1.nii.gz"]
        reason = why_absent(root / path) or f"cannot be read: {error.strerror}"
    for name in names:
        stem, end = _parted(name.rpartition("/")[2])
        if end in IMAGES and stem.startswith("T1"):
            yield stem, f"{path}!/{name}", reason


def _people(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """Return the fields needed from all tables by participant, with columns such as ``21003-2``."""
    parts = []
    tables = tables_of(root, options)
    for file in tables:
        columns = readable_columns(file)
        who = next((name for name in columns if _EID.match(name)), None)
        fields = _fields(columns)
        if who is None or not fields:
            continue
        table = read_columns(file, {who, *fields}.__contains__)
        table[who] = table[who].str.removesuffix(".0")
        rows = by_id(table, who, list(fields), file).replace("", np.nan)
        parts.append(rows.rename(columns=fields))
    if not parts:
        raise UserError(
            "UK Biobank needs a table with eid and the fields 21003 (age) and 31 (sex), in columns "
            "such as 21003-2.0, f.21003.2.0, 21003_2_0 or p21003_i2; name it with --table FILE. "
            f"Tables found: {listed(file.name for file in tables)}.{_nearest(tables)}"
        )
    people = parts[0]
    for more in parts[1:]:
        people = people.combine_first(more)
    return people.astype(object).fillna("").astype(str)


def _nearest(tables: Sequence[Path]) -> str:
    """Report the columns of the first table that can be read, if there is one."""
    for file in tables:
        if columns := readable_columns(file):
            return f" The columns of {file.name} are {listed(columns)}."
    return ""


def _fields(columns: Sequence[str]) -> dict[str, str]:
    """Return the columns that contain needed fields (array index 0), with names as ``21003-2``.

    A column named by the number of a field takes precedence over one named by its title.
    """
    coded = {name: match for name in columns if (match := _FIELD.match(name))}
    titled = {}
    for name in columns:
        plain = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
        match = _TITLE.match(plain)
        if match and match[1] in _TITLES:
            titled[name] = match
    found: dict[str, str] = {}
    for name, match in (*coded.items(), *titled.items()):
        field = _TITLES.get(match[1]) or (int(match[1]) if match[1].isdecimal() else 0)
        if field in (SEX, AGE, CENTRE) and not int(match[3] or 0):
            meaning = f"{field}-{int(match[2] or 0)}"
            if meaning not in found.values():
                found[name] = meaning
    return found
