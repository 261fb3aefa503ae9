"""Affine registration of a raw scan to the MNI152 template with ANTs (antspyx)."""

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
"""Converts between RAS (NIfTI) and LPS (ANTs) coordinates."""

SEED = 1
COARSE_MM = 2.0


def registered(scan: Volume) -> Volume:
    """Return a scan whose affine maps to MNI space.

    The voxels are not changed: the registration is combined with the affine of the scan, so that
    the data are interpolated only once. Mutual information is computed within the template's
    brain, so the scan need not be skull-stripped.

    Parameters
    ----------
    scan : Volume
        A scan with its affine to scanner space.

    Raises
    ------
    UserError
        If antspyx is not installed.
    ScanError
        If the registration fails.
    """
    # ITK samples points at random and sums in an order that depends on the number of threads.
    # Both are fixed so that a scan always gets the same affine.
    os.environ |= {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "ANTS_RANDOM_SEED": str(SEED)}
    try:
        import ants
    except ImportError:
        raise UserError(
            "--register affine needs an optional dependency; install it with pip install "
            "'slicebench[registration]', or register the scans with another tool such as FSL "
            "FLIRT and use the registered scans."
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
        # ITK and its wrapper raise many types of exceptions; they all mean a failed registration.
        raise ScanError("it cannot be registered to the template") from error
    to_moving = _matrix(transform.parameters, transform.fixed_parameters)
    affine = np.linalg.inv(to_moving) @ scan.affine
    return replace(scan, affine=affine, info=replace(scan.info, oriented=True))


def _to_ants(scan: Volume) -> Any:
    """Return the scan with voxels of about 2 mm, fine enough for an affine transform."""
    import ants

    steps = np.maximum(1, np.round(COARSE_MM / voxel_sizes(scan.affine))).astype(int)
    data = ndimage.uniform_filter(np.asarray(scan.data, dtype=np.float32), steps.tolist())
    # For even sizes, the window of the filter is shifted by half a voxel to the left.
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
