"""Facts of scans and quality checks, tested with the template."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from bench.data import formats
from bench.data.facts import FACTS, measured, template_file, thumbnail
from bench.data.quality import concerns
from bench.data.scanning import read_scan
from bench.data.volume import BRAIN_BOX, GRIDS, Conform, Volume, conform, cropped, to_ras

GRID = GRIDS["mni-4mm"]


@pytest.fixture(scope="module")
def template() -> Volume:
    return to_ras(formats.read(template_file()))


def facts_of(scan: Volume, grid=GRID) -> dict[str, float]:
    return {
        name: float(str(value))
        for name, value in measured(conform(scan, grid, "mni"), grid).items()
    }


def shifted(scan: Volume, mm: float) -> Volume:
    step = np.eye(4)
    step[1, 3] = mm
    return replace(scan, affine=step @ scan.affine)


def with_skull(scan: Volume) -> Volume:
    data = np.asarray(scan.data, dtype=np.float32)
    near = ndimage.binary_dilation(data > 0.2 * data.max(), iterations=6)
    shell = ndimage.binary_dilation(near, iterations=16) & ~near
    return replace(scan, data=data + 0.7 * data.max() * shell)


def frame(*rows: dict[str, float]) -> pd.DataFrame:
    plain = {"orientation": "RAS", "n_nonfinite": 0, "mean": 50.0, "sd": 80.0}
    return pd.DataFrame([{**plain, **row} for row in rows])


def found(used: pd.DataFrame, space: str = "mni") -> dict[str, list[int]]:
    return {each.what: list(each.scans) for each in concerns(used, space) if len(each.scans)}


@pytest.mark.parametrize("grid", GRIDS.values())
def test_the_template_is_like_itself_on_every_grid(template: Volume, grid) -> None:
    facts = facts_of(template, grid)
    assert facts["likeness"] > 0.999
    assert facts["overlap"] > 0.9
    assert facts["outside"] < 0.01


def test_what_is_moved_or_has_a_skull_is_looked_at(template: Volume) -> None:
    rows = [template, shifted(template, 30), shifted(template, 60), with_skull(template)]
    words = found(frame(*map(facts_of, rows)))
    assert words["looks unregistered"] == [1, 2]
    assert 3 in words["looks not skull-stripped"]
    assert 0 not in [index for indices in words.values() for index in indices]


def test_native_scans_are_not_judged_by_the_template(template: Volume) -> None:
    assert found(frame(facts_of(shifted(template, 60))), "native") == {}


def test_outliers_of_intensity_and_headers_are_looked_at() -> None:
    good = {"likeness": 0.9, "outside": 0.0}
    rows = [{**good, "mean": 50.0 + i, "sd": 80.0 + i} for i in range(20)]
    rows[3]["mean"] = 5000.0
    used = frame(*rows, {**good, "orientation": "unknown"}, {**good, "n_nonfinite": 4})
    assert found(used) == {
        "left and right unknown": [20],
        "voxels that are not numbers": [21],
        "unusual intensities": [3],
    }


def test_equal_scans_are_no_outliers() -> None:
    assert found(frame(*[{"likeness": 0.9, "outside": 0.0}] * 5)) == {}


def test_a_scan_that_is_read_has_every_fact(tmp_path, template: Volume) -> None:
    file = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(template.data, np.float32), template.affine), file)
    data, row, picture = read_scan(file, Conform("mni-4mm", "whole", "mni"), picture=True)
    assert set(row) == set(FACTS)
    assert row["reason"] == ""
    assert abs(data.astype(float).mean()) < 0.01
    assert picture is not None
    assert picture.shape[0] <= 64
    assert picture.max() == 255


def test_a_thumbnail_shows_the_middle_planes_the_right_way_up() -> None:
    data = np.zeros((60, 50, 40), np.float32)
    data[25:35, 20:30, 30:] = 1
    picture = thumbnail(data)
    assert picture.shape == (60, 180)
    assert picture[:30].sum() > 0
    assert picture[35:, :120].sum() == 0


def test_the_crop_holds_the_brain_and_lies_on_every_grid() -> None:
    from nilearn.datasets import load_mni152_brain_mask

    mask = load_mni152_brain_mask(resolution=1)
    voxels = np.argwhere(np.asarray(mask.dataobj) > 0)
    places = nib.affines.apply_affine(mask.affine, voxels)
    for axis, (low, high) in enumerate(BRAIN_BOX):
        assert low <= places[:, axis].min()
        assert places[:, axis].max() <= high
    for grid in GRIDS.values():
        part = cropped(grid)
        steps = (np.array(part.origin) - grid.origin) / grid.voxel_mm
        np.testing.assert_array_equal(steps, np.round(steps))
        last = np.array(part.origin) + part.voxel_mm * (np.array(part.shape) - 1)
        np.testing.assert_array_equal([part.origin, last], np.array(BRAIN_BOX).T)
    assert cropped(GRIDS["mni-2mm"]).shape == (75, 93, 79)


def test_cropped_volumes_are_the_middle_of_whole_ones(template: Volume) -> None:
    whole = conform(template, GRID, "mni")
    part = conform(template, cropped(GRID), "mni")
    np.testing.assert_allclose(part, whole[4:42, 4:51, 0:40], rtol=1e-4, atol=1e-3 * whole.max())
