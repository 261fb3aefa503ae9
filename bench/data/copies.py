"""Which scans show the same image, whatever the type, order of axes or header it is stored with."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BLOCKS = 4
"""An image is cut into so many parts along each axis."""

TOLERANCE = 1e-4
"""Of the range of an image's blocks. Rounding to 16 bits changes their means by less; the means of
two scans, of one person on one day even, differ by a hundred times as much."""


def block_means(data: NDArray[np.generic]) -> str:
    """Return what an image is known by: the means of its 64 blocks in order of size.

    Flips and permutations of axes move blocks but leave their means, so neither the orientation nor
    a header that lost it matters.

    Parameters
    ----------
    data : ndarray, (X, Y, Z)
        The values of a scan, before anything is resampled.

    Returns
    -------
    str
        64 numbers; empty where they tell nothing, all being equal or beyond single precision.
    """
    means = data
    # The axis that lies closest in memory first: its product needs no copy of the scan.
    for axis in np.argsort(np.abs(data.strides), kind="stable"):
        front = np.moveaxis(means, axis, -1)
        rows = front.reshape(-1, front.shape[-1]).astype(np.float32, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            product = rows @ _shares(front.shape[-1]).T
        means = np.moveaxis(product.reshape(*front.shape[:-1], BLOCKS), -1, axis)
    values = np.sort(means, axis=None).astype(np.float64)
    if not np.isfinite(values).all() or values[0] == values[-1]:
        return ""
    return " ".join(f"{value:.7g}" for value in values)


def _shares(n: int) -> NDArray[np.float32]:
    """Return how much of each block's mean each of `n` voxels is; borders may cut a voxel."""
    borders = np.linspace(0, n, BLOCKS + 1)
    low, high = borders[:-1, None], borders[1:, None]
    voxels = np.arange(n)
    inside = np.clip(np.minimum(high, voxels + 1) - np.maximum(low, voxels), 0, None)
    return (inside / (high - low)).astype(np.float32)


def same_images(scans: pd.DataFrame) -> pd.Series:
    """Return for each scan the first one that shows the same image, itself where it is the first.

    Parameters
    ----------
    scans : DataFrame
        ``sha256`` of the stored voxels and ``blocks`` of `block_means`; empty where not known.

    Returns
    -------
    Series
        Of the index of `scans`.
    """
    at = pd.Series(range(len(scans)), index=scans.index)
    first = at.groupby(scans["sha256"].where(scans["sha256"] != "", at.astype(str))).transform(
        "first"
    )
    pairs = np.concatenate([np.column_stack([at, first]), _alike(scans["blocks"])])
    links = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(scans), len(scans)))
    group = pd.Series(connected_components(links, directed=False)[1], index=scans.index)
    return scans.index.to_series().groupby(group).transform("first")


def _alike(blocks: pd.Series) -> NDArray[np.int64]:
    """Return pairs of positions whose block means agree."""
    from scipy.spatial import KDTree

    known = np.flatnonzero(blocks != "")
    if len(known) < 2:
        return np.empty((0, 2), np.int64)
    values = np.array([text.split() for text in blocks.iloc[known]], dtype=np.float64)
    span = values[:, -1:] - values[:, :1]
    # Divided by each image's own range, with the range beside it: brighter is not the same.
    points = np.hstack([values / span, np.log(span)])
    # A tree of few dimensions finds candidates, all of them decide.
    some = KDTree(points[:, [8, 24, 40, 56, -1]])
    near = some.query_pairs(TOLERANCE, p=np.inf, output_type="ndarray")
    alike = np.abs(points[near[:, 0]] - points[near[:, 1]]).max(axis=1) <= TOLERANCE
    return known[near[alike]].reshape(-1, 2)
