"""Preparation of one scan: from a file of any orientation and voxel size to a given grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray
from scipy import ndimage

from bench.data import formats
from bench.data.copies import block_means
from bench.data.formats import ScanError, Stored

VERSION = 2
"""Increased whenever the same file and settings give different voxels; part of fingerprints."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """A regular RAS grid.

    Parameters
    ----------
    shape : tuple of int
        Number of voxels along x (left to right), y (back to front) and z (bottom to top).
    voxel_mm : float
        Size of a voxel in mm.
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
        """World coordinates in mm of the centre of the grid, (3,)."""
        return self.affine[:3, 3] + self.voxel_mm * (np.array(self.shape) - 1) / 2


MNI_ORIGIN = (-90.0, -126.0, -72.0)

BRAIN_BOX = ((-74.0, 74.0), (-110.0, 74.0), (-72.0, 84.0))
"""Bounding box of the MNI152 brain along x, y and z in mm, widened to the voxels of all grids
(nilearn's mask extends from -72 to 72, -107 to 73 and -72 to 82)."""

GRIDS = {
    "mni-1mm": Grid((182, 218, 182), 1.0, MNI_ORIGIN),
    "mni-2mm": Grid((91, 109, 91), 2.0, MNI_ORIGIN),
    "mni-4mm": Grid((46, 55, 46), 4.0, MNI_ORIGIN),
}


def cropped(grid: Grid) -> Grid:
    """Return the part of a grid that contains the brain, with the same voxels."""
    first = [
        round((low - start) / grid.voxel_mm)
        for (low, _), start in zip(BRAIN_BOX, grid.origin, strict=True)
    ]
    shape = [round((high - low) / grid.voxel_mm) + 1 for low, high in BRAIN_BOX]
    origin = [start + grid.voxel_mm * step for start, step in zip(grid.origin, first, strict=True)]
    return Grid((shape[0], shape[1], shape[2]), grid.voxel_mm, (origin[0], origin[1], origin[2]))


@dataclass(frozen=True)
class Conform:
    """How scans are prepared as volumes of one shape; see `registry.datasets.CONFORM`."""

    grid: str
    zscore: str
    space: str
    crop: str = "none"
    storage: str = "float16"
    register: str = "none"

    @property
    def target(self) -> Grid:
        """The grid, cropped if requested."""
        grid = GRIDS[self.grid]
        return cropped(grid) if self.crop == "brain" else grid

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type in which volumes are stored."""
        return np.dtype("<f4" if self.storage == "float32" else "<f2")

    @property
    def row_bytes(self) -> int:
        """The size of one stored volume in bytes."""
        return int(np.prod(self.target.shape)) * self.dtype.itemsize


@dataclass(frozen=True)
class Info:
    """Information from the file of a scan.

    Parameters
    ----------
    shape : tuple of int
        Shape as stored, before the axes are reordered.
    voxel_mm : tuple of float
        Size of a voxel along the stored axes in mm.
    orientation : str
        Directions of the stored axes, e.g. ``"LPI"``.
    oriented : bool
        False if the header gives no orientation, so that left and right are unknown.
    n_nonfinite : int
        Number of NaN or infinite voxels, which are set to 0.
    sha256 : str
        Hash of the stored voxels.
    blocks : str
        See `bench.data.copies.block_means`.
    affine : str
        Matrix from stored voxel indices to mm, row by row.
    remarks : str
        Warnings of the libraries that read the file.
    """

    shape: tuple[int, ...]
    voxel_mm: tuple[float, ...]
    orientation: str
    oriented: bool
    n_nonfinite: int
    sha256: str
    blocks: str
    affine: str
    remarks: str


@dataclass(frozen=True)
class Volume:
    """A scan in memory: `data` (X, Y, Z) in RAS order, `affine` (4, 4) to mm, and its `info`.

    `data` has any numeric type and memory order; it may be a view of the stored array.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    info: Info


def load(path: Path) -> Volume:
    """Read a scan of any format supported by `bench.data.formats`.

    A slope of 0 or NaN means no scaling, trailing axes of length 1 are removed, axes are reordered
    to RAS, and voxels that are not finite are set to 0.

    Parameters
    ----------
    path : Path
        The scan.

    Returns
    -------
    Volume

    Raises
    ------
    ScanError
        If the scan cannot be used, with the reason.
    """
    return to_ras(formats.read(path))


def to_ras(stored: Stored) -> Volume:
    """Return a stored scan in RAS order, scaled and finite; see `load`."""
    data = stored.voxels
    if (stored.slope, stored.intercept) != (1, 0):
        with np.errstate(over="ignore", invalid="ignore"):
            data = (data.astype(np.float64) * stored.slope + stored.intercept).astype(np.float32)
    elif data.dtype == np.float64:
        with np.errstate(over="ignore", invalid="ignore"):
            data = data.astype(np.float32)
    n_nonfinite = 0
    low, high = data.min(), data.max()
    # NaN and infinite voxels show in the extremes, so the voxels are checked only if necessary.
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = np.isfinite(data)
        n_nonfinite = int(data.size - finite.sum())
        data = np.where(finite, data, data.dtype.type(0))
        low, high = data.min(), data.max()
    if low == high:
        raise ScanError("all its voxels are equal")
    orientation = nib.io_orientation(stored.affine)
    info = Info(
        shape=stored.shape,
        voxel_mm=tuple(round(float(mm), 4) for mm in voxel_sizes(stored.affine)),
        orientation="".join(aff2axcodes(stored.affine)),
        oriented=stored.oriented,
        n_nonfinite=n_nonfinite,
        sha256=stored.sha256,
        blocks=block_means(data),
        affine=" ".join(f"{round(float(x), 4) + 0.0:g}" for x in stored.affine[:3].ravel()),
        remarks="; ".join(stored.remarks),
    )
    affine = stored.affine @ nib.orientations.inv_ornt_aff(orientation, data.shape)
    return Volume(nib.apply_orientation(data, orientation), affine, info)


def conform(volume: Volume, grid: Grid, space: str) -> Array:
    """Resample a volume to a grid by its affine, with linear interpolation.

    A volume that is already on the grid is not interpolated. Along axes where the grid is coarser
    than the scan, the scan is first smoothed with a Gaussian of variance ``(k^2 - 1) / (8 ln 2)``
    in voxels of the scan, where k is the ratio of the voxel sizes, to avoid aliasing (Cardoso et
    al. 2015, MICCAI, "Scale factor point spread function matching"). Voxels outside the scan are 0.

    Parameters
    ----------
    volume : Volume
        The scan.
    grid : Grid
        The grid to resample to.
    space : str
        ``"mni"`` if the affine maps to MNI space. With ``"native"``, the axes of the scan's voxels
        are only permuted and flipped to the nearest RAS orientation, and the centre of mass of the
        head (of voxels above the mean) is moved to the centre of the grid.

    Returns
    -------
    ndarray of float32, (X, Y, Z)
        The volume in the shape of the grid.

    Raises
    ------
    ScanError
        If the scan does not overlap the grid, or if ``space="mni"`` and its header gives no
        orientation.
    """
    data, affine = volume.data, volume.affine
    if space == "mni":
        if not volume.info.oriented:
            raise ScanError("its header gives no orientation, so it has no place in MNI space")
    else:
        affine = np.diag([*voxel_sizes(affine), 1.0])
        affine[:3, 3] = grid.centre - affine[:3, :3] @ _head_centre(data)
    if data.shape == grid.shape and np.allclose(affine, grid.affine, atol=1e-3):
        return np.ascontiguousarray(data, dtype=np.float32)
    matrix = np.linalg.inv(affine) @ grid.affine
    linear, offset = matrix[:3, :3], matrix[:3, 3]
    sigma = _smoothing(grid.voxel_mm / voxel_sizes(affine))
    if np.allclose(linear, np.diag(np.diag(linear)), atol=1e-6):
        moved = _along_axes(data, np.diag(linear), offset, grid.shape, sigma)
    else:
        moved = _oblique(data, linear, offset, grid.shape, sigma)
    if moved.min() == moved.max():
        raise ScanError("nothing of it lies inside the grid")
    return moved


def _smoothing(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviation of the Gaussian along each axis, in voxels of the scan."""
    return np.sqrt(np.maximum(ratio**2 - 1, 0) / (8 * np.log(2)))


def _head_centre(data: NDArray[Any]) -> NDArray[np.float64]:
    """Return the centre of mass of the voxels above the mean, (3,).

    Large scans are subsampled, which is precise enough.
    """
    step = max(1, min(data.shape) // 64)
    coarse = data[::step, ::step, ::step]
    above = coarse > coarse.mean()
    total = above.sum()
    centre = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        profile = above.sum(axis=others)
        centre.append(step * float(profile @ np.arange(len(profile))) / total)
    return np.array(centre)


def _along_axes(
    data: NDArray[Any],
    scale: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: tuple[int, int, int],
    sigma: NDArray[np.float64],
) -> Array:
    """Smooth and interpolate a scan whose axes are parallel to the grid, with a matrix per axis."""
    weights, parts = [], []
    for axis in range(3):
        full = _weights(data.shape[axis], shape[axis], scale[axis], offset[axis], sigma[axis])
        seen = np.flatnonzero(full.any(axis=0))
        part = slice(int(seen[0]), int(seen[-1]) + 1) if len(seen) else slice(0, 1)
        weights.append(full[:, part])
        parts.append(part)
    moved = data[parts[0], parts[1], parts[2]]
    # The axis with the smallest stride comes first, because its product needs no copy of the scan.
    for axis in np.argsort(np.abs(moved.strides), kind="stable"):
        moved = _apply(weights[axis], moved, int(axis))
    return np.ascontiguousarray(moved)


def _apply(weights: Array, data: NDArray[Any], axis: int) -> Array:
    """Multiply along one axis without changing the order of the axes."""
    front = np.moveaxis(data, axis, -1)
    rows = front.reshape(-1, front.shape[-1]).astype(np.float32, copy=False)
    return np.moveaxis((rows @ weights.T).reshape(*front.shape[:-1], len(weights)), -1, axis)


def _weights(n: int, n_grid: int, scale: float, offset: float, sigma: float) -> Array:
    """Return the weight of each voxel of the scan in each voxel of the grid, (n_grid, n).

    The weights along one axis are those of a Gaussian truncated at four sigma, with border voxels
    repeated, followed by linear interpolation. They are 0 outside the scan.
    """
    places = scale * np.arange(n_grid) + offset
    inside = (places >= 0) & (places <= n - 1)
    below = np.clip(np.floor(places).astype(int), 0, max(n - 2, 0))
    share = places - below
    linear = np.zeros((n_grid, n))
    rows = np.flatnonzero(inside)
    linear[rows, below[rows]] = 1 - share[rows]
    linear[rows, below[rows] + 1] += share[rows]
    if sigma == 0:
        return linear.astype(np.float32)
    radius = int(4 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    smooth = np.zeros((n, n))
    for step, tap in zip(range(-radius, radius + 1), taps, strict=True):
        np.add.at(smooth, (np.arange(n), np.clip(np.arange(n) + step, 0, n - 1)), tap)
    return (linear @ smooth).astype(np.float32)


def _oblique(
    data: NDArray[Any],
    linear: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: tuple[int, int, int],
    sigma: NDArray[np.float64],
) -> Array:
    """Smooth and interpolate any other scan; only the part within the grid is smoothed."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1)
    places = linear @ corners + offset[:, None]
    margin = np.ceil(4 * sigma) + 1
    first = np.clip(np.floor(places.min(axis=1) - margin), 0, np.array(data.shape) - 1).astype(int)
    last = np.clip(np.ceil(places.max(axis=1) + margin), 0, np.array(data.shape) - 1).astype(int)
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
    part = np.asarray(data[box], dtype=np.float32)
    if (sigma > 0).any():
        part = ndimage.gaussian_filter(part, sigma, mode="nearest")
    moved: Array = ndimage.affine_transform(
        part, linear, offset - first, shape, np.float32, order=1
    )
    return moved


def zscore(data: Array, mode: str) -> Array:
    """Subtract the mean and divide by the standard deviation.

    Parameters
    ----------
    data : ndarray of float32, (X, Y, Z)
        A resampled volume.
    mode : str
        ``"whole"`` uses the statistics of all voxels, as in the papers. ``"brain"`` uses those of
        voxels other than 0, and voxels that are 0 stay 0. ``"none"`` leaves the values unchanged.

    Returns
    -------
    ndarray of float32, (X, Y, Z)

    Raises
    ------
    ScanError
        If the voxels used are all equal.
    """
    if mode == "none":
        return data
    inside = data != 0 if mode == "brain" else np.ones(data.shape, dtype=bool)
    # Sums over a million voxels would lose precision in float32.
    mean = data.mean(where=inside, dtype=np.float64)
    deviation = data.std(where=inside, dtype=np.float64)
    if not deviation > 0:
        raise ScanError("all voxels of the brain are equal")
    scaled = (data - np.float32(mean)) / np.float32(deviation)
    return np.where(inside, scaled, np.float32(0))
