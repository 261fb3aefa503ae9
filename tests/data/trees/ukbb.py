"""A small copy of UK Biobank: scans in every form on disk, and tables in every style."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pandas as pd

from tests.data.trees.scans import expect, write_scan

FORMS = ("unzipped", "short", "flat", "zipped")
STYLES = ("dash", "dotted", "underscore", "platform", "dx", "r", "stata", "title")
EIDS = {"dotted": "f.eid", "dx": "participant.eid", "stata": "n_eid", "title": "Participant ID"}
SEXES = {"dx": ("Female", "Male"), "r": ("0.0", "1.0"), "title": ("female", "male")}
TITLES = {
    31: "Sex",
    21003: "Age when attended assessment centre",
    54: "UK Biobank assessment centre",
}
IMAGES = ("T1", "T1_brain", "T1_brain_to_MNI")
UNUSABLE = "unusable by UK Biobank"
MISSING = "no T1_brain_to_MNI among its files"


def eid(i: int) -> str:
    return f"{1000010 + i}"


def column(field: int, instance: int, style: str) -> str:
    return {
        "dash": f"{field}-{instance}.0",
        "dotted": f"f.{field}.{instance}.0",
        "underscore": f"some_long_name_f{field}_{instance}_0"
        if field == 31
        else f"{field}_{instance}_0",
        "platform": f"p{field}_i{instance}" if field != 31 else "p31",
        "dx": f"participant.p{field}_i{instance}" if field != 31 else "participant.p31",
        "r": f"X{field}.{instance}.0",
        "stata": f" n_{field}_{instance}_0",
        "title": TITLES[field] + (f" | Instance {instance}" if field != 31 else ""),
    }[style]


def write(
    root: Path, n_subjects: int = 24, style: str = "dash", suffix: str = "csv"
) -> pd.DataFrame:
    """Write the cohort; return its manifest with default options.

    The forms on disk alternate. The first subject came twice; of the last five one is unusable, one
    has no registered image, one is in no table, one has no age, one has a torn archive.
    """
    table, rows = [], []
    for i in range(n_subjects):
        trap = i - (n_subjects - 5)
        form = "zipped" if trap in (0, 4) else FORMS[i % 4]
        subject = eid(i)
        ages = {2: f"{45 + i}", 3: f"{48 + i}"}
        if trap == 3:
            ages = {2: "", 3: ""}
        if trap != 2:
            table.append(
                {
                    EIDS.get(style, "eid"): f"{subject}.0" if style == "r" else subject,
                    column(31, 0, style): SEXES.get(style, "01")[i % 2],
                    column(21003, 0, style): "40",
                    column(21003, 2, style): ages[2],
                    column(21003, 3, style): ages[3],
                    column(54, 2, style): "11025" if i % 3 else "11026",
                    column(54, 3, style): "11027",
                    "20002-0.0": "free text, with a comma\nand a line break",
                }
            )
        for instance in (2, 3) if i == 0 else (2,):
            images = ("T1", "T1_brain") if trap == 1 else IMAGES
            place = _write_scan_of(root, subject, instance, form, images, seed=10 * i + instance)
            reason = ""
            if trap == 0:
                place, reason = _only_unusable(root, subject), UNUSABLE
            elif trap == 1:
                place, reason = place.replace("T1_brain_to_MNI", "T1"), MISSING
            elif trap == 2:
                reason = "subject not in the table"
            elif trap == 4:
                (root / f"{subject}_20252_2_0.zip").write_bytes(b"PK\x03\x04 torn")
                place, reason = f"{subject}_20252_2_0.zip!/T1/T1.nii.gz", MISSING
            rows.append(
                {
                    "subject_id": subject,
                    "session_id": str(instance),
                    "path": place,
                    "age": float(ages[instance]) if ages[instance] and trap != 2 else float("nan"),
                    "sex": "" if trap == 2 else "FM"[i % 2],
                    "site": ""
                    if trap == 2
                    else "11027"
                    if instance == 3
                    else ("11025" if i % 3 else "11026"),
                    "source": f"field 21003 at instance {instance}",
                    "reason": reason,
                }
            )
    frame = pd.DataFrame(table)
    if suffix == "parquet":
        frame.to_parquet(root / "ukb.parquet")
    else:
        frame.to_csv(root / f"ukb.{suffix}", index=False, sep="," if suffix == "csv" else "\t")
    return expect(rows)


def _write_scan_of(
    root: Path, subject: str, instance: int, form: str, images: tuple[str, ...], seed: int
) -> str:
    """Write the images of a visit and return the path of the registered one."""
    bulk = f"{subject}_20252_{instance}_0"
    folder = {
        "unzipped": f"{bulk}/T1",
        "short": f"{subject}/T1",
        "flat": "",
        "zipped": f"{bulk}/T1",
    }[form]
    places = []
    for number, image in enumerate(images):
        name = f"{subject}_{image}.nii.gz" if form == "flat" else f"{image}.nii.gz"
        places.append(Path(folder) / name)
        write_scan(root / places[-1], seed=100 * seed + number)
    wanted = (Path(folder) / places[0].name.replace("T1.", "T1_brain_to_MNI.")).as_posix()
    if form != "zipped":
        return wanted
    with zipfile.ZipFile(root / f"{bulk}.zip", "w") as archive:
        for place in places:
            archive.write(root / place, f"T1/{place.name}")
            (root / place).unlink()
        archive.writestr("T1/transforms/T1_to_MNI_linear.mat", "1 0 0 0")
    (root / folder).rmdir()
    (root / bulk).rmdir()
    return f"{bulk}.zip!/T1/T1_brain_to_MNI.nii.gz"


def _only_unusable(root: Path, subject: str) -> str:
    file = root / f"{subject}_20252_2_0.zip"
    with zipfile.ZipFile(file) as archive:
        content = archive.read("T1/T1.nii.gz")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("T1/unusable/T1.nii.gz", content)
    return f"{file.name}!/T1/unusable/T1.nii.gz"
