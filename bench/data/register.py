"""Affine registration of a raw scan to the MNI152 template, through ANTs (antspyx)."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from bench.data import formats
from bench.data.facts import template_file
from bench.data.formats import ScanError
from bench.data.volume import Volume, to_ras
from registry.errors import UserError

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ANTs counts from right to left and from front to back, NIfTI the other way round."""

SEED = 1
COARSE_MM = 2.0


def registered(scan: Volume) -> Volume:
    """Return a scan whose affine leads to MNI space.

    The voxels stay as they are: the affine that is found is joined with the scan's own, so that
    conforming interpolates once. Mutual information is compared within the template's brain, so
    that a scan may have its skull.

    Parameters
    ----------
    scan : Volume
        With its affine in the scanner's space.

    Raises
    ------
    UserError
        When antspyx is not installed.
    ScanError
        When the registration fails.
    """
    # ITK jitters its samples, and more threads add up in another order: without these two the same
    # scan would not get the same affine.
    os.environ |= {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "ANTS_RANDOM_SEED": str(SEED)}
    try:
        import ants
    except ImportError:
        raise UserError(
            "--register affine needs the extra `registration`: pip install "
            "'slicebench[registration]'; or register the scans with another tool, such as FSL's "
            "FLIRT, and give the registered ones."
        ) from None
    template = to_ras(formats.read(template_file()))
    fixed, moving = (_to_ants(image) for image in (template, scan))
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = ants.registration(
                fixed=fixed,
                moving=moving,
                type_of_transform="Affine",
                outprefix=f"{folder}/",
                mask=ants.get_mask(fixed),
                singleprecision=True,
            )
            transform = ants.read_transform(found["fwdtransforms"][0])
    except Exception as error:
        # ITK and its wrapper raise many kinds; for the scan they all mean the same.
        raise ScanError("it cannot be registered to the template") from error
    to_moving = _matrix(transform.parameters, transform.fixed_parameters)
    affine = np.linalg.inv(to_moving) @ scan.affine
    return replace(scan, affine=affine, info=replace(scan.info, oriented=True))


def _to_ants(scan: Volume) -> Any:
    """Return a scan of voxels of about 2 mm, which is fine enough for twelve numbers."""
    import ants

    steps = np.maximum(1, np.round(COARSE_MM / voxel_sizes(scan.affine))).astype(int)
    data = ndimage.uniform_filter(np.asarray(scan.data, dtype=np.float32), steps.tolist())
    # The filter's window of two voxels begins at the one before.
    first = [int(step) // 2 for step in steps]
    data = data[first[0] :: steps[0], first[1] :: steps[1], first[2] :: steps[2]]
    to_fine = np.diag([*steps.astype(float), 1.0])
    to_fine[:3, 3] = [
        at - (0.5 if step % 2 == 0 else 0.0) for at, step in zip(first, steps, strict=True)
    ]
    affine = LPS @ scan.affine @ to_fine
    spacing = voxel_sizes(affine)
    return ants.from_numpy(
        np.ascontiguousarray(data),
        origin=affine[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=affine[:3, :3] / spacing,
    )


def _matrix(parameters: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ITK's affine ``A (x - c) + c + t`` as a (4, 4) matrix in RAS mm."""
    values = np.asarray(parameters, dtype=float)
    linear, shift, centre = values[:9].reshape(3, 3), values[9:12], np.asarray(centre, dtype=float)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre + shift - linear @ centre
    return LPS @ matrix @ LPS
