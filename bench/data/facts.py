"""Facts of a scan that are determined once when it is read, cached, and used by checks."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from bench.data import formats
from bench.data.volume import Array, Grid, Info, conform, to_ras

FACTS: dict[str, str] = {
    "sha256": "hash of the stored voxels; empty if they cannot be read",
    "blocks": "means of its blocks in ascending order, equal for copies however they are stored",
    "affine": "matrix from stored voxel indices to mm, row by row",
    "shape": "number of voxels along the stored axes",
    "voxel_mm": "size of a voxel along the stored axes in mm",
    "orientation": "directions of the stored axes; unknown if the header does not give them",
    "remarks": "warnings of the libraries that read the file",
    "n_nonfinite": "number of NaN or infinite voxels, which are set to 0",
    "mean": "mean of the resampled voxels before standardisation",
    "sd": "standard deviation of the resampled voxels before standardisation",
    "overlap": "Dice coefficient of the voxels with signal and the template's brain",
    "outside": "share of the voxels with signal more than 8 mm outside the template's brain",
    "likeness": "correlation with the template within its brain",
    "reason": "reason why the scan cannot be used; empty if it can",
}
"""Columns of the cache's ``index.csv``."""

NUMBERS = ("n_nonfinite", "mean", "sd", "overlap", "outside", "likeness")
"""The numeric facts; NaN if a scan cannot be read."""

COARSE_MM = 4.0
SIGNAL = 0.25
"""Voxels brighter than this fraction of the 98th percentile count as signal."""

TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
"""The skull-stripped MNI152 (ICBM 2009a) T1 average in nilearn's package."""

THUMBNAIL = 64
"""Longest side of a thumbnail in pixels."""


def typed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return facts with numeric columns as float and all others as str."""
    texts = [name for name in rows.columns if name not in NUMBERS]
    rows = rows.assign(**{name: rows[name].astype(object).fillna("").astype(str) for name in texts})
    numbers = {name: pd.to_numeric(rows[name], errors="coerce") for name in NUMBERS}
    return rows.assign(**numbers)


def described(info: Info) -> dict[str, object]:
    """Return the facts of a header."""
    return {
        "sha256": info.sha256,
        "blocks": info.blocks,
        "affine": info.affine,
        "shape": "x".join(map(str, info.shape)),
        "voxel_mm": "x".join(f"{mm:g}" for mm in info.voxel_mm),
        "orientation": info.orientation if info.oriented else "unknown",
        "remarks": info.remarks,
        "n_nonfinite": info.n_nonfinite,
    }


def measured(data: Array, grid: Grid) -> dict[str, object]:
    """Return the facts of a conformed volume that is not standardised yet.

    Parameters
    ----------
    data : ndarray of float32, (X, Y, Z)
        The volume on the grid.
    grid : Grid
        The grid, which is in MNI space if the scan is.

    Returns
    -------
    dict
        ``mean``, ``sd``, ``overlap``, ``outside`` and ``likeness`` of `FACTS`; the last three use
        only voxels on a grid of 4 mm.
    """
    step = max(1, round(COARSE_MM / grid.voxel_mm))
    coarse = data[::step, ::step, ::step]
    template, brain, near = _template(grid, step)
    signal = coarse > SIGNAL * np.percentile(coarse, 98)
    both, n_signal = int((signal & brain).sum()), int(signal.sum())
    found = {
        "mean": data.mean(dtype=np.float64),
        "sd": data.std(dtype=np.float64),
        "overlap": 2 * both / max(1, n_signal + int(brain.sum())),
        "outside": int((signal & ~near).sum()) / max(1, n_signal),
        "likeness": _correlation(coarse[brain], template[brain]),
    }
    return {name: float(f"{value:.6g}") for name, value in found.items()}


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


@lru_cache(maxsize=4)
def _template(grid: Grid, step: int) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the template on the coarse grid, its brain mask, and the mask dilated by 8 mm."""
    data = conform(to_ras(formats.read(template_file())), grid, "mni")[::step, ::step, ::step]
    brain = data > 0.2
    rounds = max(1, round(8 / (grid.voxel_mm * step)))
    return data, brain, ndimage.binary_dilation(brain, iterations=rounds)


def template_file() -> Path:
    """Return the template's file without importing nilearn, which would take seconds."""
    spec = importlib.util.find_spec("nilearn")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / TEMPLATE


def thumbnail(data: Array) -> NDArray[np.uint8]:
    """Return the three central planes of a volume side by side, (<=64, <=192).

    Parameters
    ----------
    data : ndarray of float32, (X, Y, Z)
        RAS; black is the 1st and white the 99.5th percentile.
    """
    step = -(-max(data.shape) // THUMBNAIL)
    low, high = np.percentile(data[::4, ::4, ::4], (1, 99.5))
    planes = [np.take(data, n // 2, axis=axis) for axis, n in enumerate(data.shape)]
    size = -(-max(data.shape) // step)
    row = np.zeros((size, 3 * size), np.float32)
    for number, plane in enumerate(planes):
        picture = plane[::step, ::step].T[::-1]
        top, left = (size - picture.shape[0]) // 2, (size - picture.shape[1]) // 2
        at = number * size + left
        row[top : top + picture.shape[0], at : at + picture.shape[1]] = picture - low
    scaled = 255 * row / max(float(high - low), 1e-12)
    return np.clip(scaled, 0, 255).astype(np.uint8)
