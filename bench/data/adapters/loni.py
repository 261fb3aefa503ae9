"""Collections as downloaded from LONI, in any structure of folders."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from bench.data.adapters.contrast import why_not_t1
from bench.data.adapters.reading import listed, space_of
from bench.data.adapters.walk import FoundFile, Walk
from registry.errors import UserError

IMAGES = (".nii", ".nii.gz")
_IMAGE_ID = re.compile(r"_I(\d+)(?=[_.])")
_FOLDER_ID = re.compile(r"^I(\d+)$")
_DATE = re.compile(r"^(\d{4}-\d{2}-\d{2})(_\d{2}_\d{2}_\d{2}\.\d+)?$")
_IN_NAME = re.compile(r"_(?:MRI?|PT|NM|CT)_(.+?)_(?:Br|br_raw|raw)_")
_PROCESSED = re.compile(r"gradwarp|b1_?corr|n3|n4|scaled", re.IGNORECASE)
_REPEAT = re.compile(r"mpr-?r(?![a-z])|repeat|_2$", re.IGNORECASE)


def find_images(root: Path, subject_of: Callable[[str], str], what: str) -> pd.DataFrame:
    """List all images in a directory: NIfTI files and folders of DICOM slices.

    Parameters
    ----------
    root : Path
        One or several downloads, nested or flat.
    subject_of : callable
        Returns the subject in a path relative to the root, ``""`` if there is none.
    what : str
        The cohort, for the error message.

    Returns
    -------
    DataFrame
        ``path``, ``subject_id``, ``image_id`` (str of digits, ``""`` if unknown), ``date``
        (YYYY-MM-DD of the folder, or ``""``), ``description``, ``words`` (the path after the
        subject), ``space``, ``reason``; ``attrs["warnings"]``.

    Raises
    ------
    UserError
        If there is none.
    """
    rows, places = [], set[str]()
    walk = Walk(root)
    for entry in walk:
        path, lower = entry.path, entry.name.lower()
        if lower.endswith(".dcm"):
            path = path.rpartition("/")[0]
        elif not lower.endswith(IMAGES):
            continue
        if path not in places and (subject := subject_of(path)):
            places.add(path)
            about = _about(entry, subject, subject_of)
            rows.append({"path": path, "reason": entry.reason, **about})
    if not rows:
        raise walk.nothing(
            f"There is no image of {what} in {root}: no .nii, .nii.gz or .dcm file has the id of "
            "a subject in its path; --root must be the directory with the unpacked downloads."
        )
    images = pd.DataFrame(rows)
    images.attrs["warnings"] = walk.warnings
    return images


def _about(entry: FoundFile, subject: str, subject_of: Callable[[str], str]) -> dict[str, str]:
    """Return the information in the path of an image, or of the first slice of a series."""
    folders, name = entry.path.split("/")[:-1], entry.name
    found = _IMAGE_ID.search(name)
    ids = [match for part in folders if (match := _FOLDER_ID.match(part))]
    image = found or (ids[-1] if ids else None)
    dates = [(i, match) for i, part in enumerate(folders) if (match := _DATE.match(part))]
    at, date = dates[-1] if dates else (0, None)
    in_name = _IN_NAME.search(name)
    description = in_name.group(1) if in_name else ""
    # LONI nests folders as subject, description, date, image. The folder is taken as description
    # only in this structure, because other folders may have any name.
    if at > 1 and subject_of("/".join(folders[: at - 1]) + "/") == subject:
        description = folders[at - 1]
    return {
        "subject_id": subject,
        "image_id": str(int(image.group(1))) if image else "",
        "date": date.group(1) if date else "",
        "description": description,
        "words": (name if description else entry.path).partition(subject)[2],
        "space": space_of(name),
    }


def leave_out_others(images: pd.DataFrame, root: Path) -> None:
    """Exclude images that are not T1 images according to their description and path.

    Raises
    ------
    UserError
        If none is left.
    """
    pairs = zip(images["description"], images["words"], strict=True)
    reasons = pd.Series([why_not_t1(*pair) for pair in pairs], index=images.index)
    images["reason"] = images["reason"].where(images["reason"] != "", reasons)
    if (reasons != "").all():
        raise UserError(
            f"None of the {len(images)} images in {root} is a T1 image, whose description must "
            "contain MPRAGE, SPGR, spoiled gradient or T1; the descriptions are "
            f"{listed(images['description'].unique())}. Check that --root contains T1 images."
        )


def rank_images(images: pd.DataFrame, prefer: str) -> pd.Series:
    """Return the rank of each image within its visit; the lowest is used.

    Images in MNI space come first, then processed images (or raw ones, depending on `prefer`), then
    originals before repeats, then the lowest image id.
    """
    processed = images["description"].str.contains(_PROCESSED)
    wanted = processed if prefer == "processed" else ~processed
    repeat = images["description"].str.contains(_REPEAT)
    number = images["image_id"].str.zfill(12)
    flags = pd.DataFrame({"space": images["space"] != "mni", "kind": ~wanted, "repeat": repeat})
    return flags.astype(int).astype(str).agg("".join, axis=1) + number
