"""Preparation of the MNI152 maps for a voxel size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bench.data.synthetic.grid import Array

# Ellipsoids in MNI mm: centre in the right hemisphere (mirrored for the left) and semi-axes.
HIPPOCAMPUS = ((27.0, -21.0, -15.0), (8.0, 17.0, 7.0))
TEMPORAL_LOBE = ((42.0, -15.0, -22.0), (26.0, 38.0, 20.0))
DEEP_GREY = ((0.0, -8.0, 4.0), (34.0, 34.0, 20.0))
VENTRICLE_BOX = ((-45.0, -65.0, -15.0), (45.0, 40.0, 40.0))


@dataclass(frozen=True)
class Template:
    """Maps of the template on a grid of `spacing` mm that begins at `origin`.

    `t1` is between 0 and 1 (0 outside the brain) and `brain` is its mask. `hippocampi` (left,
    right), `cortex` and `temporal` are the fractions of a voxel that may be lost. `outward` (3
    maps) is a vector that points away from the ventricles; its length is 1 around them and
    decreases to 0. `growth` has two columns: the volume of the ventricles relative to the template,
    and the displacement in mm that results in it.
    """

    spacing: float
    origin: Array
    t1: Array
    brain: Array
    hippocampi: tuple[Array, Array]
    cortex: Array
    temporal: Array
    outward: Array
    growth: Array


@lru_cache(maxsize=2)
def template(voxel_mm: int) -> Template:
    """Prepare the MNI152 maps for images with voxels of `voxel_mm`.

    The 1 mm maps are smoothed to the resolution of the images (a Gaussian with a full width at half
    maximum of `voxel_mm`) and stored at half the spacing of the images to avoid aliasing.

    Parameters
    ----------
    voxel_mm : int
        2 or 4.

    Returns
    -------
    Template
    """
    from nilearn import datasets  # this import takes seconds and is needed only here

    image = datasets.load_mni152_template(resolution=1)
    origin = image.affine[:3, 3]
    t1, grey, white = (
        np.asarray(one.dataobj, dtype=np.float64)
        for one in (
            image,
            datasets.load_mni152_gm_template(resolution=1),
            datasets.load_mni152_wm_template(resolution=1),
        )
    )
    # Without cropping, the margins of the maps would double the computation time.
    (box,) = ndimage.find_objects((t1 > 0).astype(int))
    t1, grey, white = t1[box], grey[box], white[box]
    origin = origin + [part.start for part in box]
    brain = t1 > 0
    x, y, z = (
        (origin[axis] + np.arange(size)).reshape(-1, *[1] * (2 - axis))
        for axis, size in enumerate(t1.shape)
    )

    def ellipsoid(
        shape: tuple[tuple[float, ...], tuple[float, ...]], side: int
    ) -> NDArray[np.bool]:
        (cx, cy, cz), (ax, ay, az) = shape
        return ((x - side * cx) / ax) ** 2 + ((y - cy) / ay) ** 2 + ((z - cz) / az) ** 2 <= 1

    left, right = ellipsoid(HIPPOCAMPUS, -1), ellipsoid(HIPPOCAMPUS, 1)
    tissue = np.minimum(grey + white, 1)
    cortex = grey * ~(left | right | ellipsoid(DEEP_GREY, 1))
    lobes = ellipsoid(TEMPORAL_LOBE, -1) | ellipsoid(TEMPORAL_LOBE, 1)
    distance = _distance(_ventricles(brain & (tissue < 0.5), origin))
    outward = _outward(distance)

    step = voxel_mm // 2

    def prepare(field: NDArray) -> Array:
        sigma = voxel_mm / 2.355
        smooth = ndimage.gaussian_filter(field.astype(np.float64), sigma, mode="constant")
        return np.ascontiguousarray(smooth[::step, ::step, ::step])

    return Template(
        spacing=float(step),
        origin=origin,
        t1=prepare(t1),
        brain=prepare(brain),
        hippocampi=(prepare(left * tissue), prepare(right * tissue)),
        cortex=prepare(cortex),
        temporal=prepare(cortex * lobes),
        outward=np.stack([prepare(part) for part in outward]),
        growth=_growth(distance, outward),
    )


def _ventricles(fluid: NDArray[np.bool], origin: Array) -> NDArray[np.bool]:
    """Return the lateral ventricles, the largest component of fluid within the central box."""
    low, high = ((np.array(corner) - origin).astype(int) for corner in VENTRICLE_BOX)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    pools, _ = ndimage.label(fluid[box])
    sizes = np.bincount(pools.ravel())
    # Components that touch the faces of the box are fluid around the brain.
    for axis in range(3):
        sizes[np.unique(np.take(pools, [0, -1], axis=axis))] = 0
    sizes[0] = 0
    mask = np.zeros(fluid.shape, dtype=bool)
    mask[box] = pools == sizes.argmax()
    return mask


def _distance(mask: NDArray[np.bool]) -> Array:
    """Return the distance in mm to the surface of a mask on a 1 mm grid, negative inside."""
    outside = ndimage.distance_transform_edt(~mask)
    inside = ndimage.distance_transform_edt(mask)
    # The centres of voxels next to the surface are half a voxel away from it. Smoothing removes the
    # steps of the grid, so that level sets expand evenly.
    signed = np.where(mask, 0.5 - inside, outside - 0.5)
    return ndimage.gaussian_filter(signed, 1.0)


def _outward(distance: Array) -> Array:
    """Return vectors away from the ventricles, whose length fades from 1 to 0 at 6 to 30 mm."""
    fade = 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - 6) / 24, 0, 1))
    return np.stack([slope * fade for slope in np.gradient(distance)])


def _growth(distance: Array, outward: Array) -> Array:
    """Return the volume ratios that result from displacements in mm, in two columns."""
    near = distance < 12
    points, directions = np.argwhere(near).T, outward[:, near]
    shifts = np.arange(-3.0, 9.01, 0.75)
    volumes = [
        (ndimage.map_coordinates(distance, points - shift * directions, order=1) < 0).sum()
        for shift in shifts
    ]
    ratios = np.array(volumes) / (distance < 0).sum()
    return np.stack([ratios, shifts], axis=1)
