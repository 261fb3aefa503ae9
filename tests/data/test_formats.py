"""Scans of all formats as real files, including special cases."""

from __future__ import annotations

import gzip
import shutil
import struct
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.freesurfer import MGHImage
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from bench.data.formats import ScanError, files_of, leaves_folder, stamp
from bench.data.volume import load

AFFINE = np.array([[-2.0, 0, 0, 20], [0, 0, 3, -30], [0, 2.5, 0, -10], [0, 0, 0, 1]])


def image(shape: tuple[int, ...] = (7, 6, 5), dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 900, shape).astype(dtype)


def assert_is(file: Path, data: np.ndarray, oriented: bool = True) -> None:
    """Assert that a scan equals an image of this data read by nibabel, with axes in RAS order."""
    expected = nib.as_closest_canonical(nib.Nifti1Image(data, AFFINE))
    found = load(file)
    np.testing.assert_array_equal(np.asarray(found.data), expected.get_fdata())
    assert found.info.oriented == oriented


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (nib.Nifti1Image, "a.nii"),
        (nib.Nifti2Image, "a.nii.gz"),
        (nib.Nifti1Pair, "a.img"),
        (nib.Nifti2Pair, "a.img"),
        (MGHImage, "a.mgh"),
        (MGHImage, "a.mgz"),
    ],
)
def test_every_format_is_read_as_nibabel_reads_it(kind: type, name: str, tmp_path: Path) -> None:
    nib.save(kind(image(), AFFINE), tmp_path / name)
    assert_is(tmp_path / name, image())


def test_warnings_of_nibabel_come_with_the_scan_and_are_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nib.save(nib.Nifti1Image(image(), AFFINE), tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[80:84] = struct.pack("<f", -2.0)
    (tmp_path / "b.nii").write_bytes(content)
    remarks = "pixdim[1,2,3] should be positive; setting to abs of pixdim values"
    assert load(tmp_path / "b.nii").info.remarks == remarks
    assert load(tmp_path / "a.nii").info.remarks == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("sizes", [(5000,), (1, 9000, 70_000), (3_000_000,)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_header_extensions_of_any_length_are_passed_over(
    kind: type, name: str, sizes: tuple[int, ...], order: str, tmp_path: Path
) -> None:
    one = kind(image(), AFFINE, kind.header_class(endianness=order))
    assert one.header.endianness == order
    for number, size in enumerate(sizes):
        one.header.extensions.append(nib.nifti1.Nifti1Extension(4 + 2 * number, b"x" * size))
    nib.save(one, tmp_path / name)
    assert_is(tmp_path / name, image())


def test_what_an_extension_says_does_not_matter(tmp_path: Path) -> None:
    one = nib.Nifti1Image(image(), AFFINE)
    one.header.extensions.append(nib.nifti1.Nifti1Extension("afni", b"x" * 9000))
    content = bytearray(one.to_bytes())
    # The extension declares a length of 0, but the voxels begin at the offset in the header.
    content[352:356] = bytes(4)
    (tmp_path / "a.nii").write_bytes(content)
    assert_is(tmp_path / "a.nii", image())


def test_an_extension_in_the_header_of_a_pair_is_passed_over(tmp_path: Path) -> None:
    one = nib.Nifti1Pair(image(), AFFINE)
    one.header.extensions.append(nib.nifti1.Nifti1Extension("afni", b"x" * 9000))
    nib.save(one, tmp_path / "a.img")
    assert (tmp_path / "a.hdr").stat().st_size > 9000
    assert_is(tmp_path / "a.img", image())


def test_a_pair_is_named_by_either_file_and_may_be_compressed(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(image(), AFFINE), tmp_path / "a.img")
    assert_is(tmp_path / "a.hdr", image())
    for name in ("a.img", "a.hdr"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        (tmp_path / name).unlink()
    assert_is(tmp_path / "a.img.gz", image())
    assert_is(tmp_path / "a.hdr.gz", image())


@pytest.mark.parametrize("name", ["a.NII", "a.NII.GZ", "a.Nii.gz", "a.nii.GZ"])
def test_endings_in_capitals_are_read(name: str, tmp_path: Path) -> None:
    content = nib.Nifti1Image(image(), AFFINE).to_bytes()
    packed = name.lower().endswith(".gz")
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    assert_is(tmp_path / name, image())


def test_a_pair_in_capitals_is_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(image(), AFFINE), tmp_path / "a.img")
    (tmp_path / "a.img").rename(tmp_path / "A.IMG")
    (tmp_path / "a.hdr").rename(tmp_path / "A.HDR")
    assert_is(tmp_path / "A.IMG", image())
    assert_is(tmp_path / "A.HDR", image())


def test_a_folder_with_the_name_of_a_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "a_T1w.nii.gz").mkdir()
    with pytest.raises(ScanError, match="a folder, not a file"):
        load(tmp_path / "a_T1w.nii.gz")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"/annex/objects/MD5E-s100--a.nii.gz\n", "its content was not fetched"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "was not fetched"),
    ],
)
def test_a_pointer_to_content_elsewhere_is_called_so(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(ScanError, match=reason):
        load(tmp_path / "a.nii.gz")


def test_a_link_without_its_file_says_which_kind_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.nii").symlink_to("gone.nii")
    with pytest.raises(ScanError, match="a link to a file that is not there"):
        load(tmp_path / "a.nii")
    (tmp_path / "b.nii").symlink_to("../.git/annex/objects/x/y/MD5E-s1--b.nii/MD5E-s1--b.nii")
    with pytest.raises(ScanError, match="git-annex"):
        load(tmp_path / "b.nii")


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(image(), AFFINE), tmp_path / "a.img")
    (tmp_path / "a.hdr").unlink()
    with pytest.raises(ScanError, match=r"its \.hdr: file not found"):
        load(tmp_path / "a.img")


def test_analyze_has_no_orientation_and_a_last_axis_of_one(tmp_path: Path) -> None:
    nib.AnalyzeImage(image((7, 6, 5, 1)), None).to_filename(tmp_path / "a.img")
    found = load(tmp_path / "a.img")
    assert not found.info.oriented
    assert found.data.shape == (7, 6, 5)
    assert found.info.shape == (7, 6, 5, 1)


def test_analyze_of_another_byte_order_is_read(tmp_path: Path) -> None:
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.dtype(">i2"))
    nib.AnalyzeImage(image(), None, header).to_filename(tmp_path / "a.img")
    assert struct.unpack(">i", (tmp_path / "a.hdr").read_bytes()[:4]) == (348,)
    found = load(tmp_path / "a.img")
    np.testing.assert_array_equal(
        np.sort(np.asarray(found.data), axis=None), np.sort(image().ravel())
    )


def test_a_member_of_an_archive_is_read_in_place(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(image(), AFFINE), tmp_path / "a.nii.gz")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "a.nii.gz", "T1/a.nii.gz")
    assert_is(Path(f"{tmp_path}/x.zip!/T1/a.nii.gz"), image())
    with pytest.raises(ScanError, match="not in its archive"):
        load(Path(f"{tmp_path}/x.zip!/T1/b.nii.gz"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.nii.gz", "x.zip"]


def test_a_torn_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ScanError, match="its archive is damaged"):
        load(Path(f"{tmp_path}/x.zip!/a.nii.gz"))


@pytest.mark.parametrize("name", ["/a", "../a", "a/../../b", "C:/a", "..\\a", "\\a"])
def test_names_that_lead_out_are_known(name: str) -> None:
    assert leaves_folder(name)


@pytest.mark.parametrize("name", ["a", "a/b.nii", "T1/..nii", "a..b/c"])
def test_names_that_stay_inside_are_known(name: str) -> None:
    assert not leaves_folder(name)


def test_a_file_that_inflates_without_end_is_refused(tmp_path: Path) -> None:
    content = nib.Nifti1Image(image(), AFFINE).to_bytes() + bytes(20_000_000)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ScanError, match="far more than its header promises"):
        load(tmp_path / "a.nii.gz")


def test_several_gzip_streams_are_one_file(tmp_path: Path) -> None:
    content = nib.Nifti1Image(image(), AFFINE).to_bytes()
    halves = gzip.compress(content[:400]) + gzip.compress(content[400:])
    (tmp_path / "a.nii.gz").write_bytes(halves)
    assert_is(tmp_path / "a.nii.gz", image())


def test_a_wrong_checksum_is_found(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(nib.Nifti1Image(image(), AFFINE).to_bytes()))
    content[-6] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(ScanError, match="damaged"):
        load(tmp_path / "a.nii.gz")


def test_a_copy_has_the_same_hash_however_it_is_stored(tmp_path: Path) -> None:
    one = nib.Nifti1Image(image(), AFFINE)
    nib.save(one, tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes(), 1))
    other = nib.Nifti1Image(image(), AFFINE)
    other.header["descrip"] = b"copied"
    nib.save(other, tmp_path / "c.nii.gz")
    changed = image()
    changed[3, 3, 3] += 1
    nib.save(nib.Nifti1Image(changed, AFFINE), tmp_path / "d.nii")
    digests = [
        load(tmp_path / name).info.sha256 for name in ("a.nii", "b.nii.gz", "c.nii.gz", "d.nii")
    ]
    assert digests[0] == digests[1] == digests[2] != digests[3]


def write_series(folder: Path, slices: int = 12, skip: int | None = None) -> np.ndarray:
    """Write an axial MR series, one file per slice; return voxels by column, row and slice."""
    folder.mkdir(parents=True)
    data = np.random.default_rng(1).integers(0, 500, (16, 20, slices)).astype(np.uint16)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for z in range(slices):
        if z == skip:
            continue
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset(str(folder / f"{z}.dcm"), {}, file_meta=meta, preamble=bytes(128))
        file.SOPClassUID, file.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        file.SeriesInstanceUID, file.StudyInstanceUID, file.FrameOfReferenceUID = (
            series,
            study,
            frame,
        )
        file.Modality, file.Manufacturer, file.InstanceNumber = "MR", "Maker", z + 1
        file.ImagePositionPatient = [-20.0, -16.0, 3.0 * z]
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        file.PixelSpacing, file.SliceThickness = [2.0, 2.0], 3.0
        file.Rows, file.Columns = data.shape[1], data.shape[0]
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
        file.PixelData = data[:, :, z].T.tobytes()
        pydicom.dcmwrite(folder / f"{z}.dcm", file, enforce_file_format=True)
    return data


def test_a_dicom_series_is_a_volume(tmp_path: Path) -> None:
    data = write_series(tmp_path / "series")
    found = load(tmp_path / "series")
    # DICOM axes point to the left and to the back, so both are flipped in RAS order.
    np.testing.assert_array_equal(np.asarray(found.data), data[::-1, ::-1])
    assert found.info.oriented
    assert found.info.voxel_mm in ((2.0, 2.0, 3.0), (2.0, 3.0, 2.0))


def test_hidden_files_beside_the_slices_are_no_slices(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    write_series(folder)
    before, stamped = load(folder), stamp(folder)
    (folder / ".DS_Store").write_bytes(b"x" * 6148)
    for file in sorted(folder.glob("*.dcm")):
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7\0\2\0\0" + bytes(4096))
    assert stamp(folder) == stamped
    np.testing.assert_array_equal(np.asarray(load(folder).data), np.asarray(before.data))


def test_what_is_no_dicom_series_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.dcm").write_bytes(b"x")
    with pytest.raises(ScanError, match="DICOM series cannot be converted"):
        load(tmp_path / "empty")


def test_a_stamp_covers_every_file_of_a_scan(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(image(), AFFINE), tmp_path / "a.img")
    before = stamp(tmp_path / "a.img")
    assert [file.name for file in files_of(tmp_path / "a.img")] == ["a.img", "a.hdr"]
    (tmp_path / "a.hdr").write_bytes((tmp_path / "a.hdr").read_bytes() + b"\0")
    assert stamp(tmp_path / "a.img") != before
    write_series(tmp_path / "series")
    series = stamp(tmp_path / "series")
    next((tmp_path / "series").iterdir()).unlink()
    assert stamp(tmp_path / "series") != series
    shutil.rmtree(tmp_path / "series")
    assert stamp(tmp_path / "series") == (-1, 0)
