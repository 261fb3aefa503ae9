"""Collections as downloaded from LONI: one row an image, whatever the folders are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from bench.data.adapters.reading import space_of
from registry.errors import UserError

IMAGES = (".nii", ".nii.gz")
_IMAGE_ID = re.compile(r"_I(\d+)(?=[_.])")
_FOLDER_ID = re.compile(r"^I(\d+)$")
_DATE = re.compile(r"^(\d{4}-\d{2}-\d{2})(_\d{2}_\d{2}_\d{2}\.\d+)?$")
_PROCESSED = re.compile(r"gradwarp|b1_?corr|n3|n4|scaled", re.IGNORECASE)
_REPEAT = re.compile(r"mpr-?r(?![a-z])|repeat|_2$", re.IGNORECASE)


def find_images(root: Path, subject_of: Callable[[str], str], what: str) -> pd.DataFrame:
    """List every image below a folder: NIfTI files, and folders of DICOM slices.

    Parameters
    ----------
    root : Path
        One download, several beside each other, or a flat folder.
    subject_of : callable
        Finds the subject in a path relative to the root, ``""`` when there is none.
    what : str
        The cohort, for the error.

    Returns
    -------
    DataFrame
        ``path``, ``subject_id``, ``image_id`` (str of digits, ``""`` when the names have none),
        ``date`` (YYYY-MM-DD of the folder, or ``""``), ``description``, ``space``.

    Raises
    ------
    UserError
        When there is none.
    """
    rows = []
    for folder, _, names in os.walk(root, followlinks=True):
        place = Path(folder).relative_to(root)
        images = [name for name in names if name.endswith(IMAGES)]
        if any(name.lower().endswith(".dcm") for name in names):
            images.append("")
        for name in images:
            path = (place / name).as_posix() if name else place.as_posix()
            subject = subject_of(path)
            if subject:
                first = name or min(n for n in names if n.lower().endswith(".dcm"))
                rows.append(_row(path, subject, place.parts, first))
    if not rows:
        raise UserError(
            f"There is no image of {what} in {root}: no .nii, .nii.gz or .dcm below it has a "
            "subject's id in its path; --root is the folder that the downloads were unpacked in."
        )
    return pd.DataFrame(rows)


def _row(path: str, subject: str, folders: tuple[str, ...], name: str) -> dict[str, str]:
    found = _IMAGE_ID.search(name)
    ids = [match for part in folders if (match := _FOLDER_ID.match(part))]
    image = found or (ids[-1] if ids else None)
    dates = [(i, match) for i, part in enumerate(folders) if (match := _DATE.match(part))]
    at, date = dates[-1] if dates else (0, None)
    in_name = re.search(r"_MRI?_(.+?)_(?:Br|br_raw|raw)_", name)
    description = folders[at - 1] if date and at else in_name.group(1) if in_name else ""
    return {
        "path": path,
        "subject_id": subject,
        "image_id": str(int(image.group(1))) if image else "",
        "date": date.group(1) if date else "",
        "description": description,
        "space": space_of(name),
    }


def rank_images(images: pd.DataFrame, prefer: str) -> pd.Series:
    """Return the rank of each image within its visit; the lowest is used.

    In MNI space before not; processed before raw, or as `prefer` says; the first before a repeat;
    then the lowest image id.
    """
    processed = images["description"].str.contains(_PROCESSED)
    wanted = processed if prefer == "processed" else ~processed
    repeat = images["description"].str.contains(_REPEAT)
    number = images["image_id"].str.zfill(12)
    flags = pd.DataFrame({"space": images["space"] != "mni", "kind": ~wanted, "repeat": repeat})
    return flags.astype(int).astype(str).agg("".join, axis=1) + number
