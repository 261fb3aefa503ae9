"""Writing a synthetic cohort as a BIDS directory."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bench.data.synthetic.anatomy import VARIABILITY
from bench.data.synthetic.grid import ORIGIN
from bench.data.synthetic.image import head_voxels, volume
from bench.data.synthetic.people import COHORTS, Spec, image_traits, labels
from bench.data.synthetic.template import template
from bench.lock import locked
from registry.errors import UserError

VERSION = 1
"""Increased whenever the images or labels of a cohort change."""

SPACE = "MNI152NLin2009aSym"
PARTICIPANTS = {
    "participant_id": "Identifier of the subject.",
    "age": "Age at the scan in years.",
    "sex": "F or M.",
    "diagnosis": "CN (cognitively normal) or AD (Alzheimer's disease).",
    "site": "Simulated scanner.",
}
NOTICE = """\
These images are synthetic. They were made from the ICBM 152 nonlinear symmetric 2009a templates
(Fonov et al. 2009, NeuroImage 47 S102; Fonov et al. 2011, NeuroImage 54:313) as distributed with
nilearn. Those templates are copyright Louis Collins, McConnell Brain Imaging Centre, Montreal
Neurological Institute, McGill University, who ask that this notice appears in all copies and make
no warranty; see the terms published with the templates.
No subject of this folder is a person.
"""


def materialise(
    name: str, cache_dir: Path, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Return the BIDS directory of a synthetic cohort, generating it at first use.

    A second process waits for the first. The directory is either complete or absent, even if
    processes are killed.

    Parameters
    ----------
    name : str
        A key of `COHORTS`.
    cache_dir : Path
        The cache folder.
    progress : callable, optional
        Called as ``progress(done, total)`` after each subject.

    Returns
    -------
    Path
        ``cache_dir/synthetic/<name>-<digest of all that determines it>``.

    Raises
    ------
    UserError
        If there is no such cohort, or if the files cannot be written.
    """
    if name not in COHORTS:
        raise UserError(
            f"There is no synthetic cohort {name!r}; choose one of {', '.join(sorted(COHORTS))}."
        )
    folder = write_cohort(COHORTS[name], cache_dir, progress)
    for prepared in (template, head_voxels):
        prepared.cache_clear()  # up to 400 MB that are not needed any more
    return folder


def write_cohort(
    spec: Spec, cache_dir: Path, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Return the BIDS directory of any synthetic cohort; see `materialise`.

    Parameters
    ----------
    spec : Spec
        The cohort.
    cache_dir : Path
        The cache folder.
    progress : callable, optional
        Called as ``progress(done, total)`` after each subject.

    Returns
    -------
    Path

    Raises
    ------
    UserError
        If the files cannot be written.
    """
    content = json.dumps([VERSION, VARIABILITY, asdict(spec)], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    folder = cache_dir / "synthetic" / f"{spec.name}-{digest}"
    if folder.is_dir():
        return folder
    try:
        with locked(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                # With the lock held, any partial folder was left by a process that was killed.
                for left in folder.parent.glob(f".{folder.name}.partial-*"):
                    shutil.rmtree(left)
                _write_folder(spec, folder, progress)
    except OSError as error:
        raise UserError(
            f"The synthetic cohort cannot be written to {folder.parent} "
            f"({error.strerror or error}); free space there or set BENCH_CACHE to another folder."
        ) from None
    return folder


def _write_folder(spec: Spec, folder: Path, progress: Callable[[int, int], None] | None) -> None:
    partial = folder.with_name(f".{folder.name}.partial-{uuid.uuid4().hex}")
    try:
        partial.mkdir()
        description = {
            "Name": spec.name,
            "BIDSVersion": "1.9.0",
            "DatasetType": "derivative",
            "License": "See LICENSE",
            "GeneratedBy": [{"Name": "slicebench", "Version": f"synthetic {VERSION}"}],
        }
        columns = {name: {"Description": text} for name, text in PARTICIPANTS.items()}
        _write_json(partial / "dataset_description.json", description)
        _write_json(partial / "participants.json", columns)
        (partial / "LICENSE").write_text(NOTICE, encoding="utf-8")
        (partial / "participants.tsv").write_text(_participants(spec), encoding="utf-8")
        for subject in range(spec.n_subjects):
            traits = image_traits(spec, subject)
            file = partial / _scan_path(subject)
            file.parent.mkdir(parents=True)
            file.write_bytes(_nifti(volume(spec, subject, traits), spec.voxel_mm))
            if progress is not None:
                progress(subject + 1, spec.n_subjects)
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _participants(spec: Spec) -> str:
    lines = ["\t".join(PARTICIPANTS)]
    for subject in range(spec.n_subjects):
        who = labels(spec, subject)
        row = (_participant(subject), f"{who.age:.1f}", who.sex, who.diagnosis, who.site)
        lines.append("\t".join(row))
    return "\n".join(lines) + "\n"


def _participant(subject: int) -> str:
    return f"sub-{subject + 1:04d}"


def _scan_path(subject: int) -> Path:
    name = _participant(subject)
    return Path(name, "anat", f"{name}_space-{SPACE}_T1w.nii.gz")


def _write_json(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _nifti(counts: NDArray[np.uint8], voxel_mm: int) -> bytes:
    """Return the content of a .nii.gz file, which depends only on the voxels."""
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = ORIGIN
    image = nib.Nifti1Image(counts, affine)
    for set_form in (image.set_sform, image.set_qform):
        set_form(affine, code="mni")
    image.header.set_xyzt_units("mm")
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=6, mtime=0) as file:
        file.write(image.to_bytes())
    return packed.getvalue()
