"""Grids of the synthetic images, and smooth random fields on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Double precision is used throughout, so that an image rounded to 8 bits does not depend on the
# order of summation in a machine's libraries, and a cohort is the same on all machines.
Array = NDArray[np.float64]

ORIGIN = np.array([-90.0, -126.0, -72.0])
"""Centre of the first voxel in MNI mm."""

SHAPES = {2: (91, 109, 91), 4: (46, 55, 46)}
"""Number of voxels along each axis, by the size of a voxel in mm."""


class SplineFields:
    """Smooth random fields on a grid: cubic B-splines on control points 30 mm apart."""

    controls = (9, 11, 9)
    knots_mm = 30.0

    def __init__(self, voxel_mm: int) -> None:
        self._bases = [
            self._basis(np.arange(size) * voxel_mm / self.knots_mm, n)
            for size, n in zip(SHAPES[voxel_mm], self.controls, strict=True)
        ]

    @staticmethod
    def _basis(position: Array, n: int) -> Array:
        t = np.abs(position[:, None] + 1 - np.arange(n))
        weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
        # With rows of unit length, control points of unit variance give a field of unit variance.
        return weights / np.linalg.norm(weights, axis=1, keepdims=True)

    def __call__(self, controls: Array) -> Array:
        """Return the field of `controls`, (9, 11, 9), on the image's grid, (X, Y, Z)."""
        bx, by, bz = self._bases
        return np.einsum("xa,yb,zc,abc->xyz", bx, by, bz, controls, optimize=True)
