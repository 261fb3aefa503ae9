"""A small copy of Clinica: BIDS written by ``adni-to-bids``, and CAPS of ``t1-linear``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.data.trees.scans import expect, write_scan

COURSES = (("CN", "CN", "CN"), ("MCI", "AD", "AD"), ("AD", "Dementia", "AD"), ("CN", "n/a", "MCI"))
"""Diagnoses at months 0, 12 and 24; the last visit has no scan."""

AT_START = {"CN": "CN", "AD": "AD", "MCI": "LMCI"}
"""``diagnosis_sc``."""

MONTHS = (0, 12, 24)
CLASSES = {"CN": "CN", "AD": "AD", "Dementia": "AD"}
MNI = "_space-MNI152NLin2009cSym"


def write_bids(root: Path, n_subjects: int = 24, old: bool = False) -> pd.DataFrame:
    """Write the BIDS directory; return its manifest with default options.

    The first subject's first visit has a second run and the second subject no row for its second
    visit; the last subject is in no table. `old` writes months in two digits.
    """
    rows, seed = [], 0
    for i in range(1, n_subjects + 1):
        name = _name(i)
        for month in MONTHS[:2]:
            folder = _session(month, old)
            stem = f"{name}/{folder}/anat/{name}_{folder}"
            files = [f"{stem}_T1w.nii.gz"]
            if i == 1 and month == 0:
                files.append(f"{stem}_run-02_T1w.nii.gz")
            for file in files:
                seed += 1
                write_scan(root / file, seed)
                row = _row(i, month, n_subjects, file)
                if "run-02" in file:
                    row["reason"] = "another image of the same visit is used"
                rows.append(row)
    write_tables(root, n_subjects, old)
    return expect(rows)


def write_caps(root: Path, n_subjects: int = 24, old: bool = False) -> pd.DataFrame:
    """Write a CAPS folder, its tables being those of `write_tables`; return its manifest.

    All visits have the crop, those of odd subjects the whole volume too; tensors are no images.
    `old` names files as Clinica did before.
    """
    rows, seed = [], 0
    for i in range(1, n_subjects + 1):
        name = _name(i)
        for month in MONTHS[:2]:
            folder = _session(month, old)
            place = (
                f"subjects/{name}/{folder}/t1_linear/{name}_{folder}{'_T1w' if old else ''}{MNI}"
            )
            crop = f"{place}_desc-Crop_res-1x1x1_T1w.nii.gz"
            whole = f"{place}_res-1x1x1_T1w.nii.gz"
            (root / place).parent.mkdir(parents=True)
            (root / f"{place}_desc-Crop_res-1x1x1_T1w.pt").touch()
            (root / f"{place}_res-1x1x1_affine.mat").touch()
            for file in [crop, whole][: 1 + i % 2]:
                seed += 1
                write_scan(root / file, seed)
                row = _row(i, month, n_subjects, file)
                if file == crop and i % 2 and i < n_subjects:
                    row["reason"] = "another image of the same visit is used"
                rows.append(row)
    return expect(rows)


def write_tables(root: Path, n_subjects: int = 24, old: bool = False) -> None:
    """Write ``participants.tsv`` and a ``sessions.tsv`` for each participant."""
    lines = ["participant_id\talternative_id_1\tsex\tage_bl\tdiagnosis_sc\tsite"]
    for i in range(1, n_subjects):
        sex, age, start = "FM"[i // 2 % 2], _age(i, 0), AT_START[COURSES[i % 4][0]]
        lines.append(f"{_name(i)}\t{_subject(i)}\t{sex}\t{age}\t{start}\t{2 + i % 2}")
        visits = ["session_id\tage\tdiagnosis\tMMS"]
        for month, diagnosis in zip(MONTHS, COURSES[i % 4], strict=True):
            if (i, month) != (2, 12):
                # The age of the first visit is often missing.
                years = "n/a" if month == 0 and i % 3 == 0 else _age(i, month)
                visits.append(f"{_session(month, old)}\t{years}\t{diagnosis}\tn/a")
        file = root / _name(i) / f"{_name(i)}_sessions.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(visits) + "\n")
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")


def merged(n_subjects: int = 24) -> str:
    """Return the text of one table of all visits that have a scan."""
    lines = ["participant_id\tsession_id\tsex\tsite\tage\tdiagnosis"]
    for i in range(1, n_subjects):
        for month, diagnosis in zip(MONTHS[:2], COURSES[i % 4], strict=False):
            if (i, month) != (2, 12):
                cells = (_name(i), _session(month, False), "FM"[i // 2 % 2], str(2 + i % 2))
                lines.append("\t".join((*cells, str(_age(i, month)), diagnosis)))
    return "\n".join(lines) + "\n"


def _row(i: int, month: int, n_subjects: int, path: str) -> dict:
    """Return what is expected of a scan that is chosen."""
    row = {"subject_id": _subject(i), "session_id": f"M{month:03d}", "path": path}
    if i == n_subjects:
        return {**row, "reason": "subject not in the table"}
    row |= {"sex": "FM"[i // 2 % 2], "site": str(2 + i % 2)}
    if (i, month) == (2, 12):
        return {**row, "source": "visit not in sessions.tsv", "reason": "no diagnosis"}
    diagnosis = COURSES[i % 4][MONTHS.index(month)]
    row["age"] = _age(i, month)
    if diagnosis == "n/a":
        return {**row, "source": "no diagnosis in sessions.tsv", "reason": "no diagnosis"}
    row["source"] = f"sessions.tsv diagnosis '{diagnosis}'"
    if diagnosis in CLASSES:
        return {**row, "diagnosis": CLASSES[diagnosis]}
    return {**row, "reason": f"diagnosis {diagnosis}, not among the classes"}


def _name(i: int) -> str:
    return f"sub-ADNI{2 + i % 2:03d}S{290 + i:04d}"


def _subject(i: int) -> str:
    return f"{2 + i % 2:03d}_S_{290 + i:04d}"


def _session(month: int, old: bool) -> str:
    return f"ses-M{month:0{2 if old else 3}d}"


def _age(i: int, month: int) -> float:
    return 60.5 + i % 25 + month / 12
