"""The synthetic cohorts and the age, sex, diagnosis and site of their subjects."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spec:
    """A synthetic cohort.

    Parameters
    ----------
    name : str
        The cohort's name; part of every random seed.
    kind : str
        ``"ad"`` (pairs of AD and CN), ``"age"`` (CN only) or ``"null"`` (as ``"ad"``, but images
        and labels are unrelated).
    voxel_mm : int
        Size of a voxel in mm: 2 (91 x 109 x 91 voxels) or 4 (46 x 55 x 46).
    n_subjects : int
        Number of subjects with one scan each; even if there are pairs.
    seed : int
        Another seed gives another cohort of the same kind.
    """

    name: str
    kind: str
    voxel_mm: int
    n_subjects: int
    seed: int = 0


COHORTS = {
    spec.name: spec
    for kind in ("ad", "age", "null")
    for spec in (
        Spec(f"synthetic-{kind}", kind, voxel_mm=2, n_subjects=400),
        Spec(f"synthetic-{kind}-4mm", kind, voxel_mm=4, n_subjects=160),
    )
}

AGES = {"ad": (60.0, 85.0), "age": (45.0, 80.0), "null": (60.0, 85.0)}


@dataclass(frozen=True)
class Site:
    """A scanner: exponent of the contrast, strength and direction of the bias field, and noise."""

    contrast: float
    bias: float
    direction: tuple[float, float, float]
    noise: float


SITES = {
    "A": Site(contrast=0.9, bias=0.10, direction=(0.0, 0.6, 0.8), noise=0.025),
    "B": Site(contrast=1.0, bias=0.15, direction=(0.8, -0.6, 0.0), noise=0.03),
    "C": Site(contrast=1.15, bias=0.20, direction=(0.0, 0.8, -0.6), noise=0.02),
}


@dataclass(frozen=True)
class Traits:
    """The labels of a subject in `participants.tsv`, or the traits that its image is made from.

    Age is in years, sex is ``"F"`` or ``"M"``, diagnosis is ``"CN"`` or ``"AD"``, and site is a key
    of `SITES`.
    """

    age: float
    sex: str
    diagnosis: str
    site: str


def labels(spec: Spec, subject: int) -> Traits:
    """Return the labels of a subject.

    AD and CN subjects are pairs of equal sex and site and nearly equal age, so that none of these
    predicts the diagnosis; sites and sexes alternate, so that both sexes are equally frequent at
    each site.

    Parameters
    ----------
    spec : Spec
        The cohort.
    subject : int
        Index from 0.

    Returns
    -------
    Traits
    """
    person = generator(spec, subject, "label")
    low, high = AGES[spec.kind]
    if spec.kind == "age":
        unit, age, diagnosis = subject, person.uniform(low, high), "CN"
    else:
        unit = subject // 2
        pair = generator(spec, unit, "pair")
        age = float(np.clip(pair.uniform(low, high) + person.uniform(-1, 1), low, high))
        # The subject of a pair that is ill is random, so that the order is not informative.
        diagnosis = ("CN", "AD")[(subject + int(pair.integers(2))) % 2]
    sites = tuple(SITES)
    sex = "FM"[unit // len(sites) % 2]
    return Traits(round(age, 1), sex, diagnosis, sites[unit % len(sites)])


def image_traits(spec: Spec, subject: int) -> Traits:
    """Return the traits from which the image of a subject is generated.

    They are the labels, except in a null cohort, in which age, sex and diagnosis are drawn again
    independently. Only the site, which is not a target and is balanced over all labels, is kept.

    Parameters
    ----------
    spec : Spec
        The cohort.
    subject : int
        Index from 0.

    Returns
    -------
    Traits
    """
    written = labels(spec, subject)
    if spec.kind != "null":
        return written
    hidden = generator(spec, subject, "hidden")
    age = hidden.uniform(*AGES[spec.kind])
    return Traits(age, "FM"[hidden.integers(2)], ("CN", "AD")[hidden.integers(2)], written.site)


def generator(spec: Spec, index: int, part: str) -> np.random.Generator:
    """Return a random generator that depends only on the cohort, the subject and the part."""
    digest = hashlib.sha256(f"{spec.name}/{spec.seed}/{index}/{part}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
