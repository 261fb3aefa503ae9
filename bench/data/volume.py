"""One scan: from a file of any orientation and voxel size to an array on a stated grid."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray
from scipy import ndimage

VERSION = 1
"""Raised whenever the same file and settings would give other voxels; part of every fingerprint."""

Array = NDArray[np.float32]

SUFFIXES = (".nii", ".nii.gz")


class ScanError(Exception):
    """A scan that cannot be used; the message is the reason, the same for all scans it befalls."""


@dataclass(frozen=True)
class Grid:
    """A regular RAS grid.

    Parameters
    ----------
    shape : tuple of int
        Voxels along x (left to right), y (back to front) and z (bottom to top).
    voxel_mm : float
        Edge of a voxel.
    origin : tuple of float
        World coordinates in mm of the centre of the first voxel.
    """

    shape: tuple[int, int, int]
    voxel_mm: float
    origin: tuple[float, float, float]

    @property
    def affine(self) -> NDArray[np.float64]:
        """The (4, 4) matrix from voxel indices to mm."""
        affine = np.diag([self.voxel_mm] * 3 + [1.0])
        affine[:3, 3] = self.origin
        return affine

    @property
    def centre(self) -> NDArray[np.float64]:
        """World coordinates in mm of the middle of the grid, (3,)."""
        return self.affine[:3, 3] + self.voxel_mm * (np.array(self.shape) - 1) / 2


MNI_ORIGIN = (-90.0, -126.0, -72.0)
GRIDS = {
    "mni-1mm": Grid((182, 218, 182), 1.0, MNI_ORIGIN),
    "mni-2mm": Grid((91, 109, 91), 2.0, MNI_ORIGIN),
    "mni-4mm": Grid((46, 55, 46), 4.0, MNI_ORIGIN),
}


@dataclass(frozen=True)
class Info:
    """What a file said of itself.

    Parameters
    ----------
    shape : tuple of int
        As stored, before any reordering.
    voxel_mm : tuple of float
        Edges of a voxel along the stored axes.
    orientation : str
        Where the stored axes point, e.g. ``"LPI"``.
    oriented : bool
        False when the header gives no orientation: left and right are then a guess.
    n_nonfinite : int
        Voxels that were NaN or infinite and are 0 now.
    """

    shape: tuple[int, ...]
    voxel_mm: tuple[float, ...]
    orientation: str
    oriented: bool
    n_nonfinite: int


@dataclass(frozen=True)
class Volume:
    """A scan in memory: `data` (X, Y, Z) in RAS order, `affine` (4, 4) to mm, and its `info`."""

    data: Array
    affine: NDArray[np.float64]
    info: Info


def read_bytes(path: Path) -> tuple[bytes, str]:
    """Return the bytes of a file and their sha256 in hex.

    Raises
    ------
    ScanError
        When there is no such file or it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        # A data set under version control holds links until its files are fetched.
        broken = "a link to a file that is not there" if path.is_symlink() else "file not found"
        raise ScanError(broken) from None
    except OSError as error:
        raise ScanError(f"cannot be read: {error.strerror}") from None
    return content, hashlib.sha256(content).hexdigest()


def load(path: Path) -> Volume:
    """Read every voxel of a NIfTI-1 or NIfTI-2 file, ``.nii`` or ``.nii.gz``.

    A slope of 0 or NaN means no scaling, trailing axes of length 1 are dropped, axes are put into
    RAS order, and voxels that are not finite become 0.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Volume

    Raises
    ------
    ScanError
        When the file cannot be used, with the reason.
    """
    return parse(read_bytes(path)[0], path.name)


def parse(content: bytes, name: str) -> Volume:
    """Return the volume in the bytes of a file of that name; see `load`."""
    if not name.endswith(SUFFIXES):
        raise ScanError("not a .nii or .nii.gz file")
    if not content:
        raise ScanError("the file is empty")
    if name.endswith(".gz"):
        content = _unzip(content)
    kind = _nifti_class(content)
    try:
        header = kind.header_class.from_fileobj(io.BytesIO(content))
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype = header.get_data_dtype()
        slope, intercept = header.get_slope_inter()
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        offset = int(header.get_data_offset())
    except Exception as error:
        # nibabel answers a stranger's bytes with many kinds of exceptions; all mean the same here.
        raise ScanError("the NIfTI header is invalid") from error
    if dtype.kind not in "iufb":
        raise ScanError("its voxels are not real numbers")
    if min(shape, default=0) < 1:
        raise ScanError("the NIfTI header is invalid")
    count = int(np.prod([int(n) for n in shape], dtype=object))
    if offset < kind.header_class.sizeof_hdr or len(content) < offset + count * dtype.itemsize:
        raise ScanError("the header promises more voxels than the file holds")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise ScanError("its affine is not invertible")

    stored = np.frombuffer(content, dtype, count, offset).reshape(shape, order="F")
    while stored.ndim > 3 and stored.shape[-1] == 1:
        stored = stored[..., 0]
    if stored.ndim != 3 or min(stored.shape) < 2:
        raise ScanError("it is not one three-dimensional image")

    with np.errstate(over="ignore", invalid="ignore"):
        if slope is None or (slope, intercept) == (1, 0):
            data = stored.astype(np.float32)
        else:
            data = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
    finite = np.isfinite(data)
    n_nonfinite = int(data.size - finite.sum())
    if n_nonfinite:
        data[~finite] = 0
    if data.min() == data.max():
        raise ScanError("all its voxels are equal")

    orientation = nib.io_orientation(affine)
    if np.isnan(orientation).any():
        raise ScanError("its affine is not invertible")
    info = Info(
        shape=shape,
        voxel_mm=tuple(round(float(mm), 4) for mm in voxel_sizes(affine)),
        orientation="".join(aff2axcodes(affine)),
        oriented=bool(header["qform_code"] > 0 or header["sform_code"] > 0),
        n_nonfinite=n_nonfinite,
    )
    turned = nib.apply_orientation(data, orientation)
    affine = affine @ nib.orientations.inv_ornt_aff(orientation, data.shape)
    return Volume(np.ascontiguousarray(turned), affine, info)


def _unzip(content: bytes) -> bytes:
    if content[:2] != b"\x1f\x8b":
        raise ScanError("named .gz but not a gzip file")
    try:
        return gzip.decompress(content)
    except EOFError:
        raise ScanError("the gzip file is truncated") from None
    except (gzip.BadGzipFile, zlib.error):
        raise ScanError("the gzip file is damaged") from None


def _nifti_class(content: bytes) -> type[nib.Nifti1Image] | type[nib.Nifti2Image]:
    """Return nibabel's class for the magic of a single-file NIfTI."""
    if content[344:348] == b"n+1\0":
        return nib.Nifti1Image
    if content[4:12] == b"n+2\0\r\n\x1a\n":
        return nib.Nifti2Image
    raise ScanError("not a NIfTI file")


def conform(volume: Volume, grid: Grid, space: str) -> Array:
    """Bring a volume to a grid by its affine, linearly interpolated.

    A volume that has the grid already is not interpolated. Along axes where the grid is coarser
    than the scan, a Gaussian of variance ``(k^2 - 1) / (8 ln 2)`` in voxels of the scan comes
    first, k being the ratio of the voxel sizes, so that detail which the grid cannot hold does not
    come back as noise (Cardoso et al. 2015, MICCAI, "Scale factor point spread function matching").
    Outside the scan is 0.

    Parameters
    ----------
    volume : Volume
        The scan.
    grid : Grid
        Where to.
    space : str
        ``"mni"`` when the affine leads to MNI space; ``"native"`` to keep the axes of the scanner
        and move the head's centre of mass (that of voxels above the mean) to the grid's middle.

    Returns
    -------
    ndarray of float32, (X, Y, Z)
        The shape of the grid.

    Raises
    ------
    ScanError
        When nothing of the scan falls into the grid, or its header gives no orientation while
        ``space="mni"`` rests on it.
    """
    affine = volume.affine
    if space == "mni":
        if not volume.info.oriented:
            raise ScanError("its header gives no orientation, so it has no place in MNI space")
        if volume.data.shape == grid.shape and np.allclose(affine, grid.affine, atol=1e-3):
            return volume.data
    else:
        middle = ndimage.center_of_mass(volume.data > volume.data.mean())
        affine = affine.copy()
        affine[:3, 3] += grid.centre - (affine @ [*middle, 1.0])[:3]

    data = volume.data
    ratio = grid.voxel_mm / voxel_sizes(affine)
    sigma = np.sqrt(np.maximum(ratio**2 - 1, 0) / (8 * np.log(2)))
    if (sigma > 0).any():
        data = ndimage.gaussian_filter(data, sigma, mode="nearest")
    matrix = np.linalg.inv(affine) @ grid.affine
    linear, offset = matrix[:3, :3], matrix[:3, 3]
    diagonal = np.diag(np.diag(linear))
    if np.allclose(linear, diagonal, atol=1e-6):
        linear = np.diag(linear)  # parallel axes, for which scipy has a faster way
    moved = ndimage.affine_transform(data, linear, offset, grid.shape, np.float32, order=1)
    if moved.min() == moved.max():
        raise ScanError("nothing of it lies inside the grid")
    return moved


def zscore(data: Array, mode: str) -> Array:
    """Subtract the mean and divide by the standard deviation.

    Parameters
    ----------
    data : ndarray of float32, (X, Y, Z)
        A conformed volume.
    mode : str
        ``"whole"``: statistics of all voxels, as in the papers. ``"brain"``: statistics of the
        voxels that are not 0, the others stay 0. ``"none"``: the values as they are.

    Returns
    -------
    ndarray of float32, (X, Y, Z)

    Raises
    ------
    ScanError
        When the voxels in question are all equal.
    """
    if mode == "none":
        return data
    inside = data != 0 if mode == "brain" else np.ones(data.shape, dtype=bool)
    # float64: a sum over a million voxels of float32 loses digits.
    mean = data.mean(where=inside, dtype=np.float64)
    deviation = data.std(where=inside, dtype=np.float64)
    if not deviation > 0:
        raise ScanError("all voxels of the brain are equal")
    scaled = (data - np.float32(mean)) / np.float32(deviation)
    return np.where(inside, scaled, np.float32(0))
