from __future__ import annotations

import gzip
import itertools
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.data.volume import GRIDS, Grid, ScanError, conform, load, zscore

SMALL = Grid((10, 12, 11), 4.0, (-18.0, -20.0, -22.0))


def image(shape=(6, 7, 8), dtype=np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def header_edited(file: Path, **fields) -> Path:
    """Change header fields of a .nii in place, as nibabel itself would not write them."""
    content = bytearray(file.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    file.write_bytes(bytes(content))
    return file


# --- Files that must be excluded ----------------------------------------------------------------


def damage(content: bytes) -> dict[str, tuple[str, bytes, str]]:
    packed = gzip.compress(content)
    flipped = bytearray(packed)
    flipped[-6] ^= 0xFF  # the checksum
    return {
        "zero bytes": ("a.nii.gz", b"", "empty"),
        "truncated gzip": ("a.nii.gz", packed[: len(packed) // 2], "truncated"),
        "bad checksum": ("a.nii.gz", bytes(flipped), "damaged"),
        "not gzip": ("a.nii.gz", content, "not a gzip"),
        "wrong magic": ("a.nii", b"\0" * 400, "not a NIfTI"),
        "a text file": ("a.nii", b"subject,age\n" * 100, "not a NIfTI"),
        "short of voxels": ("a.nii", content[:-10], "more voxels"),
        "header alone": ("a.nii", content[:352], "more voxels"),
        "cut in the header": ("a.nii", content[:200], "not a NIfTI"),
        "another format": ("a.png", content, "known format"),
    }


@pytest.mark.parametrize("trap", damage(b"").keys())
def test_a_damaged_file_is_refused_with_its_reason(trap: str, tmp_path: Path) -> None:
    good = tmp_path / "good.nii"
    nib.save(nib.Nifti1Image(image(), np.eye(4)), good)
    name, content, reason = damage(good.read_bytes())[trap]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScanError, match=reason):
        load(tmp_path / name)


def test_a_missing_file_and_a_broken_link_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="not found"):
        load(tmp_path / "none.nii")
    (tmp_path / "link.nii").symlink_to(tmp_path / "none.nii")
    with pytest.raises(ScanError, match="link"):
        load(tmp_path / "link.nii")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.full((4, 4, 4), 7, np.int16), "equal"),
        (np.full((4, 4, 4), np.nan, np.float32), "equal"),
        (image((4, 4, 4, 2)), "three-dimensional"),
        (image((4, 4)), "three-dimensional"),
        (image((4, 4, 1)), "three-dimensional"),
        (image((4, 4, 4), np.complex64), "real numbers"),
    ],
)
def test_what_is_no_volume_is_refused(data: np.ndarray, reason: str, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ScanError, match=reason):
        load(tmp_path / "a.nii")


def test_a_singular_affine_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(image(), np.eye(4)), file)
    header_edited(file, sform_code=1, srow_x=[0, 0, 0, 0])
    with pytest.raises(ScanError, match="affine"):
        load(file)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=12))
def test_any_header_gives_a_volume_or_a_reason(edits: list[tuple[int, int]]) -> None:
    content = bytearray(nib.Nifti1Image(image(), np.eye(4)).to_bytes())
    for position, value in edits:
        content[position] = value
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.nii"
        file.write_bytes(content)
        try:
            volume = load(file)
        except ScanError:
            return
    assert np.isfinite(volume.data).all()
    assert volume.data.min() < volume.data.max()


# --- Files that are read --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_reads_what_nibabel_reads(kind: type, suffix: str, tmp_path: Path) -> None:
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    header = kind.header_class()
    header.set_slope_inter(0.5, -3)
    header.set_data_dtype(np.int16)
    nib.save(kind(image() * 0.5 - 3, affine, header), tmp_path / f"a{suffix}")
    volume = load(tmp_path / f"a{suffix}")
    expected = nib.load(tmp_path / f"a{suffix}").get_fdata(dtype=np.float32)
    np.testing.assert_allclose(volume.data, expected, rtol=1e-6)
    np.testing.assert_array_equal(volume.affine, affine)
    assert volume.info.voxel_mm == (2.0, 3.0, 4.0)


def test_big_endian_files_are_read(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(image(), np.eye(4), header), tmp_path / "a.nii")
    np.testing.assert_array_equal(load(tmp_path / "a.nii").data, image())


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_a_slope_of_zero_or_nan_means_no_scaling(slope: float, tmp_path: Path) -> None:
    file = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(image(), np.eye(4)), file)
    header_edited(file, scl_slope=slope, scl_inter=5)
    np.testing.assert_array_equal(load(file).data, image())


def test_a_last_axis_of_one_is_dropped(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(image((6, 7, 8, 1)), np.eye(4)), tmp_path / "a.nii")
    volume = load(tmp_path / "a.nii")
    assert volume.data.shape == (6, 7, 8)
    assert volume.info.shape == (6, 7, 8, 1)


def test_voxels_that_are_not_finite_become_zero_and_are_counted(tmp_path: Path) -> None:
    data = image(dtype=np.float64)
    data[1, 2, 3], data[0, 0, 1], data[5, 5, 5] = np.nan, np.inf, 1e300  # the last overflows
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii")
    volume = load(tmp_path / "a.nii")
    assert volume.info.n_nonfinite == 3
    assert volume.data[1, 2, 3] == volume.data[0, 0, 1] == volume.data[5, 5, 5] == 0
    assert np.isfinite(volume.data).all()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_every_orientation_comes_out_as_ras(order, signs, tmp_path: Path) -> None:
    """The position in mm of each voxel, identified by its value, must not change."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (row, sign) in enumerate(zip(order, signs, strict=True)):
        affine[row, axis] = sign * (axis + 1)
    data = image((4, 5, 6))
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "a.nii")
    volume = load(tmp_path / "a.nii")
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    value = 77
    before = affine @ [*np.argwhere(data == value)[0], 1]
    after = volume.affine @ [*np.argwhere(volume.data == value)[0], 1]
    np.testing.assert_allclose(after, before)
    assert volume.info.orientation == "".join(nib.aff2axcodes(affine))


def test_a_header_without_orientation_is_read_but_has_no_place_in_mni_space(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(image(), None), tmp_path / "a.nii")
    volume = load(tmp_path / "a.nii")
    assert not volume.info.oriented
    with pytest.raises(ScanError, match="orientation"):
        conform(volume, SMALL, "mni")
    assert conform(volume, SMALL, "native").shape == SMALL.shape


# --- To the grid ----------------------------------------------------------------------------------


def test_the_named_grids_are_those_of_mni_space() -> None:
    assert {name: grid.shape for name, grid in GRIDS.items()} == {
        "mni-1mm": (182, 218, 182),
        "mni-2mm": (91, 109, 91),
        "mni-4mm": (46, 55, 46),
    }
    for grid in GRIDS.values():
        assert tuple(grid.affine[:3, 3]) == (-90, -126, -72)


def test_a_scan_on_the_grid_is_not_interpolated(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=SMALL.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(data, SMALL.affine), tmp_path / "a.nii")
    np.testing.assert_array_equal(conform(load(tmp_path / "a.nii"), SMALL, "mni"), data)


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 1.0), (4.0, 4.0, 4.0), (-2.0, 1.5, 5.0)])
@pytest.mark.parametrize("degrees", [0, 20])
def test_a_ramp_in_mm_stays_the_same_ramp(voxel, degrees: int, tmp_path: Path) -> None:
    """Linear interpolation and a symmetric filter do not change a linear function."""
    turn = np.radians(degrees)
    spin = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = spin @ np.diag(voxel)
    shape = tuple(int(120 / abs(edge)) for edge in voxel)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)

    def ramp(matrix: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        mm = np.tensordot(matrix[:3, :3], np.indices(size), 1) + matrix[:3, 3, None, None, None]
        return 3 * mm[0] - 2 * mm[1] + mm[2] + 500

    nib.save(nib.Nifti1Image(ramp(affine, shape).astype(np.float32), affine), tmp_path / "a.nii")
    found = conform(load(tmp_path / "a.nii"), SMALL, "mni")
    np.testing.assert_allclose(found, ramp(SMALL.affine, SMALL.shape), atol=0.5)


def test_downsampling_averages_noise_instead_of_picking_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, 3] = -30
    noise = rng.normal(size=(60, 60, 60)).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, affine), tmp_path / "a.nii")
    inner = conform(load(tmp_path / "a.nii"), SMALL, "mni")[2:-2, 2:-2, 2:-2]
    assert inner.std() < 0.3


def test_a_native_scan_is_centred_on_its_head(tmp_path: Path) -> None:
    data = np.zeros((40, 40, 40), np.float32)
    data[25:33, 5:13, 20:28] = 100
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (300, -500, 80)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "a.nii")
    volume = load(tmp_path / "a.nii")
    found = conform(volume, SMALL, "native")
    middle = np.array(np.nonzero(found > 20)).mean(axis=1)
    np.testing.assert_allclose(middle, (np.array(SMALL.shape) - 1) / 2, atol=0.3)
    with pytest.raises(ScanError, match="inside the grid"):
        conform(volume, SMALL, "mni")


# --- Standardisation ------------------------------------------------------------------------------


def test_whole_volume_zscore_counts_the_background() -> None:
    data = np.zeros((8, 8, 8), np.float32)
    data[2:6, 2:6, 2:6] = np.random.default_rng(0).uniform(900, 1100, (4, 4, 4))
    whole = zscore(data, "whole")
    assert whole.mean() == pytest.approx(0, abs=1e-5)
    assert whole.std() == pytest.approx(1, abs=1e-5)
    brain = zscore(data, "brain")
    assert brain[data != 0].mean() == pytest.approx(0, abs=1e-5)
    assert brain[data != 0].std() == pytest.approx(1, abs=1e-5)
    assert (brain[data == 0] == 0).all()
    assert zscore(data, "none") is data
    assert whole.dtype == brain.dtype == np.float32


def test_a_mask_has_no_brain_to_standardise() -> None:
    data = np.zeros((8, 8, 8), np.float32)
    data[2:6] = 1
    with pytest.raises(ScanError, match="brain"):
        zscore(data, "brain")
