"""Detection of identical images, whatever type, order of axes or header they are stored with."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BLOCKS = 4
"""Number of parts along each axis that an image is divided into."""

TOLERANCE = 1e-4
"""Largest difference between block means of identical images, relative to their range. Rounding to
16 bits changes the means by less; two scans differ by a hundred times as much, even if they are of
the same person on the same day."""


def block_means(data: NDArray[np.generic]) -> str:
    """Return a fingerprint of an image: the means of its 64 blocks in ascending order.

    Flips and permutations of axes move the blocks but do not change their means, so the
    fingerprint depends neither on the orientation nor on the header.

    Parameters
    ----------
    data : ndarray, (X, Y, Z)
        The values of a scan before resampling.

    Returns
    -------
    str
        64 numbers, or an empty string if they are all equal or exceed single precision.
    """
    means = data
    # The axis with the smallest stride comes first, because its product needs no copy of the scan.
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
    """Return the weight of each of `n` voxels in the mean of each block; voxels may be divided."""
    borders = np.linspace(0, n, BLOCKS + 1)
    low, high = borders[:-1, None], borders[1:, None]
    voxels = np.arange(n)
    inside = np.clip(np.minimum(high, voxels + 1) - np.maximum(low, voxels), 0, None)
    return (inside / (high - low)).astype(np.float32)


def same_images(scans: pd.DataFrame) -> pd.Series:
    """Return for each scan the first scan with the same image, which may be the scan itself.

    Parameters
    ----------
    scans : DataFrame
        ``sha256`` of the stored voxels and ``blocks`` of `block_means`; empty if unknown.

    Returns
    -------
    Series
        Values of the index of `scans`, with the same index.
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
    """Return pairs of positions at which the block means agree."""
    from scipy.spatial import KDTree

    known = np.flatnonzero(blocks != "")
    if len(known) < 2:
        return np.empty((0, 2), np.int64)
    values = np.array([text.split() for text in blocks.iloc[known]], dtype=np.float64)
    span = values[:, -1:] - values[:, :1]
    # The means are divided by the range of each image. The range itself is one more dimension,
    # because images that differ only in brightness are not identical.
    points = np.hstack([values / span, np.log(span)])
    # A tree with five of the dimensions finds candidates, which are then compared in all of them.
    some = KDTree(points[:, [8, 24, 40, 56, -1]])
    near = some.query_pairs(TOLERANCE, p=np.inf, output_type="ndarray")
    alike = np.abs(points[near[:, 0]] - points[near[:, 1]]).max(axis=1) <= TOLERANCE
    return known[near[alike]].reshape(-1, 2)
