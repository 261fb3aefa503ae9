"""Copies of an image under another id, in any format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.freesurfer import MGHImage
from nibabel.orientations import axcodes2ornt

from bench.data.copies import same_images
from bench.data.volume import load

AFFINE = np.diag([2.0, 2.5, 3.0, 1.0])


def image(seed: int = 0) -> nib.Nifti1Image:
    data = np.random.default_rng(seed).gamma(2, 100, (23, 26, 21)).astype(np.int16)
    return nib.Nifti1Image(data, AFFINE)


def scaled(one: nib.Nifti1Image) -> nib.Nifti1Image:
    """Return an image whose header has the slope by which its voxels are multiplied."""
    found = nib.Nifti1Image((one.get_fdata() * 2).astype(np.int16), AFFINE)
    found.header.set_slope_inter(0.5, 0)
    return found


AGAIN: dict[str, Callable[[nib.Nifti1Image], nib.spatialimages.SpatialImage]] = {
    "a.nii.gz": lambda one: nib.Nifti1Image(one.get_fdata(dtype=np.float32), AFFINE),
    "b.nii": lambda one: nib.Nifti1Image(one.get_fdata(), AFFINE),
    "c.nii.gz": lambda one: one.as_reoriented(axcodes2ornt("LPS")),
    "d.nii.gz": lambda one: one.as_reoriented(axcodes2ornt("SAL")),
    "e.nii": lambda one: nib.Nifti2Image(one.get_fdata(), AFFINE),
    "f.mgz": lambda one: MGHImage(one.get_fdata(dtype=np.float32), AFFINE),
    "g.img": lambda one: nib.AnalyzeImage(np.asarray(one.dataobj), None),
    "h.nii": scaled,
}


@pytest.mark.parametrize("name", AGAIN)
def test_a_copy_is_found_however_it_was_saved(name: str, tmp_path: Path) -> None:
    nib.save(image(), tmp_path / "one.nii.gz")
    nib.save(AGAIN[name](image()), tmp_path / name)
    nib.save(image(1), tmp_path / "other.nii")
    infos = [load(tmp_path / file).info for file in ("one.nii.gz", "other.nii", name)]
    scans = pd.DataFrame([vars(info) for info in infos], index=[3, 5, 8])
    assert same_images(scans).tolist() == [3, 5, 3]


def test_a_brighter_image_and_a_mirrored_half_are_no_copies(tmp_path: Path) -> None:
    data = image().get_fdata()
    half = data.copy()
    half[:11] = half[:11][::-1]
    for number, values in enumerate((data, data * 1.01, data + 1, half)):
        nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / f"{number}.nii")
    infos = [load(tmp_path / f"{number}.nii").info for number in range(4)]
    assert same_images(pd.DataFrame([vars(info) for info in infos])).tolist() == [0, 1, 2, 3]
