"""Reading scans of all supported formats: voxels as they are stored, and their affine.

A path may point into an archive, such as ``FILE.zip!/T1/T1.nii.gz``, which is read in place. A pair
of ``.img`` and ``.hdr`` may be given by either file, a DICOM series by its folder.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import isal_zlib
from nibabel.freesurfer.mghformat import MGHHeader
from numpy.typing import NDArray

from registry.errors import UserError

SUFFIXES = (".nii", ".img", ".hdr", ".mgh", ".mgz")
"""Suffixes of supported files, optionally followed by ``.gz``; folders are DICOM series."""

ARCHIVE = re.compile(r"(.*?\.zip)!/(.*)", re.IGNORECASE | re.DOTALL)

MORE = 1 << 20
"""Number of bytes that may follow the voxels, because some programs append a footer."""

HEADER = 1 << 12
"""Number of bytes that contain any header."""

A_FOLDER = "a folder, not a file"
BROKEN_LINK = "a link to a file that is not there"
NOT_FETCHED = "its content was not fetched (git-annex or Git LFS)"

POINTERS = (b"/annex/objects/", b"version https://git-lfs.github.com/spec/")
"""Beginnings of the files by which git-annex and Git LFS replace content."""


READERS = ("nibabel.global", "pydicom", "dicom2nifti")
"""The loggers of the libraries that read headers."""


class ScanError(Exception):
    """A scan that cannot be used. The message is the reason, by which scans are counted."""


@dataclass(frozen=True)
class Stored:
    """A scan as stored in its file.

    Parameters
    ----------
    voxels : ndarray, (X, Y, Z)
        The voxels with the stored type and order of axes.
    slope, intercept : float
        The values of the scan are ``voxels * slope + intercept``.
    affine : ndarray, (4, 4)
        Matrix from voxel indices to mm.
    shape : tuple of int
        The stored shape, including trailing axes of length 1.
    oriented : bool
        False if the header gives no orientation.
    remarks : tuple of str
        Warnings of the libraries that read the file.
    """

    voxels: NDArray[Any]
    slope: float
    intercept: float
    affine: NDArray[np.float64]
    shape: tuple[int, ...]
    oriented: bool
    remarks: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """The hash of the voxels, which does not depend on file name and compression."""
        # Fortran order is that of most files, which are then not copied.
        order = np.asfortranarray(self.voxels)
        about = [self.voxels.shape, order.dtype.str, float(self.slope), float(self.intercept)]
        found = hashlib.sha256(repr(about).encode())
        found.update(np.ascontiguousarray(order.T).data)
        return found.hexdigest()


def stamp(path: Path) -> tuple[int, int]:
    """Return the total size in bytes and the latest modification time (ns) of a scan's files.

    The size is -1 if the scan does not exist.
    """
    try:
        states = [os.stat(file) for file in files_of(path)]
    except (OSError, ScanError):
        return -1, 0
    if not states:
        return -1, 0
    return sum(s.st_size for s in states), max(s.st_mtime_ns for s in states)


def files_of(path: Path) -> list[Path]:
    """Return the files of a scan."""
    archive, _ = _member(path)
    if archive is not None:
        return [archive]
    if os.path.isdir(path):
        slices = (file for file in path.iterdir() if not file.name.startswith("."))
        return sorted(file for file in slices if os.path.isfile(file))
    return [path, partner] if (partner := _partner(path)) is not None else [path]


def why_absent(path: str | os.PathLike[str]) -> str:
    """Return why there is no file at a path, or an empty string if there is one or unknown."""
    if os.path.isdir(path):
        return A_FOLDER
    if os.path.exists(path):
        return ""
    try:
        leads = os.readlink(path)
    except FileNotFoundError:
        return "file not found"
    except OSError:
        return ""
    # In a data set under version control, files that were not fetched are broken links.
    return NOT_FETCHED if "/annex/objects/" in leads else BROKEN_LINK


def read(path: Path) -> Stored:
    """Read all voxels of a scan.

    Warnings of the libraries that read the file are returned with the scan instead of being
    printed, because they do not contain the name of the file.

    Raises
    ------
    ScanError
        If the file cannot be used, with the reason.
    UserError
        If reading the file needs a library that is not installed.
    """
    with _collected_remarks() as remarks:
        stored = _read(path)
    return replace(stored, remarks=tuple(dict.fromkeys(remarks)))


@contextmanager
def _collected_remarks() -> Iterator[list[str]]:
    """Collect warnings and log messages of the libraries that read scans, instead of printing."""
    remarks: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: remarks.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in READERS]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
        try:
            yield remarks
        finally:
            for logger, (handlers, propagate) in zip(loggers, before, strict=True):
                logger.handlers, logger.propagate = handlers, propagate
            remarks += [str(warning.message) for warning in caught]


def _read(path: Path) -> Stored:
    name = path.name.lower().removesuffix(".gz")
    # Unlike Path.is_dir, this is False rather than an error if a parent folder cannot be entered.
    if _member(path)[0] is None and os.path.isdir(path):
        if name.endswith(SUFFIXES):
            raise ScanError(A_FOLDER)
        return _read_dicom(path)
    if not name.endswith(SUFFIXES):
        raise ScanError("not a file of a known format (.nii, .img, .hdr, .mgh, .mgz, each .gz)")
    if name.endswith((".img", ".hdr")):
        return _read_pair(path)
    content = _open(path)
    kind = MGHHeader if name.endswith((".mgh", ".mgz")) else _nifti(content.start)
    return _read_voxels(kind, content.start, content)


class _Content:
    """The bytes of a file, which are decompressed only as far as needed."""

    def __init__(self, raw: bytes, compressed: bool) -> None:
        self._raw = raw
        self._compressed = compressed
        if compressed and raw[:2] != b"\x1f\x8b":
            raise ScanError("named .gz but not a gzip file")
        self.start = self._inflate(HEADER)[0] if compressed else raw[:HEADER]

    def get(self, size: int) -> bytes:
        """Return at least `size` bytes, if there are so many, after verifying the checksum."""
        if not self._compressed:
            return self._raw
        content, ended = self._inflate(size + MORE)
        if not ended:
            raise ScanError("the file holds far more than its header promises")
        return content

    def _inflate(self, most: int) -> tuple[bytes, bool]:
        """Return at most `most` bytes, and whether the file ended there."""
        parts, rest, left = [], self._raw, most
        try:
            # A file may consist of several gzip streams.
            while rest[:2] == b"\x1f\x8b" and left > 0:
                stream = isal_zlib.decompressobj(31)
                parts.append(stream.decompress(rest, left))
                left -= len(parts[-1])
                if not stream.eof and left > 0:
                    raise ScanError("the gzip file is truncated")
                if not stream.eof:
                    return b"".join(parts), False
                rest = stream.unused_data
        except (isal_zlib.error, zlib.error):  # type: ignore[misc]
            raise ScanError("the gzip file is damaged") from None
        return (parts[0] if len(parts) == 1 else b"".join(parts)), True


def _open(path: Path) -> _Content:
    raw = _bytes(path)
    if not raw:
        raise ScanError("the file is empty")
    if raw.startswith(POINTERS):
        raise ScanError(NOT_FETCHED)
    return _Content(raw, path.name.lower().endswith((".gz", ".mgz")))


def _bytes(path: Path) -> bytes:
    archive, member = _member(path)
    try:
        if archive is not None:
            return _member_bytes(archive, member)
        return path.read_bytes()
    except FileNotFoundError:
        raise ScanError(why_absent(archive or path) or "file not found") from None
    except OSError as error:
        raise ScanError(f"cannot be read: {error.strerror}") from None


def _member(path: Path) -> tuple[Path | None, str]:
    """Return the archive (None for an ordinary file) and the member given by a path."""
    found = ARCHIVE.match(str(path))
    return (Path(found[1]), found[2]) if found else (None, "")


def _member_bytes(archive: Path, member: str) -> bytes:
    try:
        with zipfile.ZipFile(archive) as content:
            if any(leaves_folder(name) for name in content.namelist()):
                raise ScanError("its archive has names that lead out of its folder")
            info = content.getinfo(member)
            if info.file_size > 100 * max(info.compress_size, MORE):
                raise ScanError("its archive inflates to far more than a scan")
            return content.read(info)
    except KeyError:
        raise ScanError("not in its archive") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        raise ScanError("its archive is damaged") from None
    except RuntimeError:
        raise ScanError("its archive is encrypted") from None


def leaves_folder(name: str) -> bool:
    """Tell whether a name in an archive points outside the folder that it is unpacked to."""
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]


def _partner(path: Path) -> Path | None:
    """Return the other file of a pair, None for formats with a single file."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    for mine, other in ((".img", ".hdr"), (".hdr", ".img")):
        if name.lower().endswith(mine):
            ends = (other, f"{other}.gz", other.upper(), f"{other}.gz".upper())
            options = [path.with_name(name[: -len(mine)] + end) for end in ends]
            return next((file for file in options if os.path.exists(file)), options[0])
    return None


def _read_pair(path: Path) -> Stored:
    partner = _partner(path)
    assert partner is not None
    named_header = path.name.lower().removesuffix(".gz").endswith(".hdr")
    header_file, image_file = (path, partner) if named_header else (partner, path)
    try:
        header = _open(header_file).start
    except ScanError as error:
        raise ScanError(f"its .hdr: {error}") from None
    kind: Any = nib.AnalyzeHeader
    if header[344:348] == b"ni1\0":
        kind = nib.Nifti1Pair.header_class
    elif header[4:12] == b"ni2\0\r\n\x1a\n":
        kind = nib.Nifti2Pair.header_class
    return _read_voxels(kind, header, _open(image_file))


def _nifti(start: bytes) -> Any:
    """Return nibabel's header class for the magic bytes of a single-file NIfTI."""
    if start[344:348] == b"n+1\0":
        return nib.Nifti1Header
    if start[4:12] == b"n+2\0\r\n\x1a\n":
        return nib.Nifti2Header
    raise ScanError("not a NIfTI file")


def _read_voxels(kind: Any, start: bytes, content: _Content) -> Stored:
    """Return the voxels described by a header, which may be in a separate file."""
    single = content.start is start
    try:
        header = _header(kind, start)
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype = header.get_data_dtype()
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        offset = int(header.get_data_offset())
        oriented = _oriented(header)
        slope, intercept = _scaling(header)
    except Exception as error:
        # nibabel raises many types of exceptions for invalid headers.
        raise ScanError("the header is invalid") from error
    if dtype.kind not in "iufb":
        raise ScanError("its voxels are not real numbers")
    if min(shape, default=0) < 1 or offset < (getattr(kind, "sizeof_hdr", 0) if single else 0):
        raise ScanError("the header is invalid")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise ScanError("its affine is not invertible")
    if np.isnan(nib.io_orientation(affine)).any():
        raise ScanError("its affine is not invertible")
    count = int(np.prod([int(n) for n in shape], dtype=object))
    if count > 1 << 34:
        raise ScanError("the header promises more voxels than the file holds")
    found = content.get(offset + count * dtype.itemsize)
    if len(found) < offset + count * dtype.itemsize:
        raise ScanError("the header promises more voxels than the file holds")
    voxels = np.frombuffer(found, dtype, count, offset).reshape(shape, order="F")
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3 or min(voxels.shape) < 2:
        raise ScanError("it is not one three-dimensional image")
    return Stored(voxels, slope, intercept, affine, shape, oriented)


def _header(kind: Any, start: bytes) -> Any:
    """Return the header without the extensions that may follow it."""
    if kind is MGHHeader:
        return kind.from_fileobj(io.BytesIO(start))
    return kind(start[: kind.template_dtype.itemsize])


def _scaling(header: Any) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 or NaN means no scaling."""
    find: Callable[[], tuple[float | None, float | None]] | None
    find = getattr(header, "get_slope_inter", None)
    slope, intercept = find() if find is not None else (None, None)
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0.0))


def _oriented(header: Any) -> bool:
    if isinstance(header, nib.Nifti1Header):
        return bool(header["qform_code"] > 0 or header["sform_code"] > 0)
    return isinstance(header, MGHHeader) and bool(header["goodRASFlag"])


def _read_dicom(folder: Path) -> Stored:
    try:
        import dicom2nifti
        from dicom2nifti import settings
    except ImportError:
        raise UserError(
            "Reading DICOM series needs optional dependencies; install them with pip install "
            "'slicebench[dicom]', or convert the series to NIfTI with dcm2niix."
        ) from None
    settings.disable_validate_slicecount()
    try:
        image = dicom2nifti.dicom_series_to_nifti(str(folder), None, reorient_nifti=False)["NII"]
        voxels = np.asanyarray(image.dataobj)
    except Exception as error:
        # dicom2nifti, pydicom and numpy raise many types of exceptions for an invalid series.
        raise ScanError(f"its DICOM series cannot be converted ({type(error).__name__})") from error
    if voxels.ndim != 3 or min(voxels.shape) < 2:
        raise ScanError("it is not one three-dimensional image")
    return Stored(voxels, 1.0, 0.0, image.affine, voxels.shape, True)
