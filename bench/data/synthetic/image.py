"""Generating the T1 image of a subject from the template, its anatomy and a scanner."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bench.data.synthetic.anatomy import VARIABILITY, anatomy, normal
from bench.data.synthetic.grid import ORIGIN, SHAPES, Array, SplineFields
from bench.data.synthetic.people import SITES, Site, Spec, Traits, generator
from bench.data.synthetic.template import Template, template

CENTRE = np.array([0.0, -18.0, 10.0])  # the centre of the scaling of heads
GREY, CSF = 0.65, 0.28  # intensities of the template, relative to its maximum
BIAS_WOBBLE = 0.03  # standard deviation of the bias field between scans


@dataclass(frozen=True)
class HeadVoxels:
    """The voxels that may be inside a brain: a mask `inside` (X, Y, Z), coordinates `mm` (3, N)."""

    inside: NDArray[np.bool]
    mm: Array
    fields: SplineFields


@lru_cache(maxsize=2)
def head_voxels(voxel_mm: int) -> HeadVoxels:
    """Return the voxels that may be inside a brain in images with voxels of `voxel_mm`."""
    shape = SHAPES[voxel_mm]
    mm = ORIGIN[:, None] + np.indices(shape).reshape(3, -1) * float(voxel_mm)
    reach = _sample(template(voxel_mm), template(voxel_mm).brain, mm).reshape(shape) > 0.5
    # The margin of 20 mm covers the largest head and the largest warp.
    inside = ndimage.distance_transform_edt(~reach, sampling=voxel_mm) < 20
    return HeadVoxels(inside, mm[:, inside.ravel()], SplineFields(voxel_mm))


def _sample(source: Template, field: Array, mm: Array) -> Array:
    """Return `field` at points of the template in mm, (3, N), linearly interpolated; 0 outside."""
    index = (mm - source.origin[:, None]) / source.spacing
    return ndimage.map_coordinates(field, index, order=1)


def volume(
    spec: Spec, subject: int, traits: Traits, variability: float = VARIABILITY
) -> NDArray[np.uint8]:
    """Generate the T1 image of a subject.

    Parameters
    ----------
    spec : Spec
        The cohort.
    subject : int
        Index from 0.
    traits : Traits
        The traits from which the image is generated; see `image_traits`.
    variability : float
        Common factor of all standard deviations between subjects.

    Returns
    -------
    ndarray of uint8, (X, Y, Z)
        RAS, 0 outside the brain, at least 1 inside.
    """
    source, head = template(spec.voxel_mm), head_voxels(spec.voxel_mm)
    body = anatomy(spec, subject, traits, variability)

    # The position in the template of each voxel: head and warp first, then the ventricles.
    centre = CENTRE[:, None]
    mm = centre + (head.mm - centre) / body.scale
    mm += np.stack([head.fields(controls)[head.inside] for controls in body.warp])
    push = np.interp(body.ventricles, *source.growth.T)
    mm -= push * np.stack([_sample(source, part, mm) for part in source.outward])

    image = _sample(source, source.t1, mm)
    brain = _sample(source, source.brain, mm) > 0.5

    # The fraction of each voxel that is replaced by cerebrospinal fluid.
    regional = head.fields(body.region)[head.inside]
    loss = (1 - body.cortex + regional) * _sample(source, source.cortex, mm)
    loss += (1 - body.temporal) * _sample(source, source.temporal, mm)
    for size, hippocampus in zip(body.hippocampi, source.hippocampi, strict=True):
        loss += (1 - size) * _sample(source, hippocampus, mm)
    image -= loss * (GREY - CSF)

    image = _scan(image, head, SITES[traits.site], generator(spec, subject, "scan"))
    counts = np.zeros(SHAPES[spec.voxel_mm], dtype=np.uint8)
    counts[head.inside] = np.where(brain, np.clip(np.rint(image * 180), 1, 255), 0)
    return counts


def _scan(image: Array, head: HeadVoxels, site: Site, rng: np.random.Generator) -> Array:
    """Return the image, (N,), with the contrast, bias field and noise of a site's scanner."""
    slope = site.bias * (np.array(site.direction) @ head.mm) / 90
    wobble = head.fields(normal(rng, SplineFields.controls, BIAS_WOBBLE))[head.inside]
    signal = np.clip(image, 0.01, None) ** site.contrast * np.exp(slope + wobble)
    return signal + normal(rng, signal.shape, site.noise)
