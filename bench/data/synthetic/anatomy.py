"""Effects of age, sex and disease on the brain; see the docstring of the package for sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.data.synthetic.grid import Array, SplineFields
from bench.data.synthetic.people import Spec, Traits, generator

VARIABILITY = 0.6
"""Common factor of all standard deviations between subjects; see the docstring of the package."""

REFERENCE_AGE = 45.0  # the age that the template represents
CORTEX_PER_YEAR, HIPPOCAMPUS_PER_YEAR, VENTRICLES_PER_YEAR = -0.0035, -0.0085, 0.025
HIPPOCAMPUS_IN_AD, TEMPORAL_IN_AD, VENTRICLES_IN_AD = -0.24, -0.10, 0.35
MALE_TO_FEMALE_VOLUME = 1.11

# Standard deviations between subjects of equal age, sex and diagnosis, before VARIABILITY is
# applied: of the log of a volume, of a fraction of the cortex, and of the warp in mm.
SPREAD_HIPPOCAMPUS, SPREAD_VENTRICLES, SPREAD_HEAD = 0.15, 0.35, 0.08
SPREAD_CORTEX, SPREAD_REGION = 0.04, 0.06
SPREAD_WARP_MM = 2.5


@dataclass(frozen=True)
class Anatomy:
    """One subject's anatomy relative to the template.

    Volumes and thicknesses are ratios, and `scale` is the linear size of the head. `warp` is the
    displacement in mm and `region` the local loss of cortex, both as control points of splines.
    """

    scale: float
    ventricles: float
    hippocampi: tuple[float, float]
    cortex: float
    temporal: float
    warp: Array
    region: Array


def anatomy(spec: Spec, subject: int, traits: Traits, variability: float = VARIABILITY) -> Anatomy:
    """Draw the anatomy of a subject, given its traits.

    Parameters
    ----------
    spec : Spec
        The cohort.
    subject : int
        Index from 0.
    traits : Traits
        The traits from which the image is generated.
    variability : float
        Common factor of all standard deviations.

    Returns
    -------
    Anatomy
    """
    rng = generator(spec, subject, "anatomy")
    z = variability * rng.standard_normal(6)
    ill = traits.diagnosis == "AD"
    years = traits.age - REFERENCE_AGE
    men = MALE_TO_FEMALE_VOLUME ** (0.5 if traits.sex == "M" else -0.5)
    hippocampus = (1 + HIPPOCAMPUS_PER_YEAR) ** years * (1 + HIPPOCAMPUS_IN_AD * ill)
    # The left and right hippocampus of a subject share three quarters of their variance.
    sides = SPREAD_HIPPOCAMPUS * (np.sqrt(0.75) * z[0] + np.sqrt(0.25) * z[1:3])
    shape = SplineFields.controls
    return Anatomy(
        scale=float((men * np.exp(SPREAD_HEAD * z[3])) ** (1 / 3)),
        ventricles=float(
            (1 + VENTRICLES_PER_YEAR) ** years
            * (1 + VENTRICLES_IN_AD * ill)
            * np.exp(SPREAD_VENTRICLES * z[4])
        ),
        hippocampi=(float(hippocampus * np.exp(sides[0])), float(hippocampus * np.exp(sides[1]))),
        cortex=float((1 + CORTEX_PER_YEAR) ** years + SPREAD_CORTEX * z[5]),
        temporal=1 + TEMPORAL_IN_AD * ill,
        warp=normal(rng, (3, *shape), variability * SPREAD_WARP_MM),
        region=normal(rng, shape, variability * SPREAD_REGION),
    )


def normal(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> Array:
    """Return normal random numbers with a given standard deviation."""
    return spread * rng.standard_normal(shape)
