"""The embedded synthetic cohorts: brains made from the MNI152 maps that nilearn ships.

Each subject is the MNI152 T1 template, changed in this order:

1. **head**: a global scale by sex and person, and a smooth random warp;
2. **ventricles**: the lateral ventricles widen by a radial displacement until they hold the wanted
   multiple of the template's volume, pressing the tissue around them outwards;
3. **tissue loss**: of the grey matter in a voxel a fraction is replaced by cerebrospinal fluid, as
   a voxel larger than the cortex sees its thinning (cortex, temporal cortex, hippocampi);
4. **scanner**: contrast, bias field and noise by site. There is no skull: outside the brain is 0.

**Effects.** What changes, and where a figure is quoted its size, is published; none was tuned:

=============================  ===============================================================
cortex, age                    -0.35 % thickness a year (Storsve et al. 2014, J Neurosci 34:8488)
hippocampus, age               -0.85 % volume a year (Fraser et al. 2015, NeuroImage 112:364)
hippocampus, AD                -24 % volume (Shi et al. 2009, Hippocampus 19:1055: 24.2 left, 23.1
                               right; effect size 1.6, hence a spread of 15 % between people)
ventricles, age                +2.5 % volume a year. That they expand every year in healthy
                               60-91-year-olds: Fjell et al. 2009, J Neurosci 29:15223; the figure
                               is a round one of ours
ventricles, AD                 +35 % volume. Larger in AD at equal age: Apostolova et al. 2012,
                               Alzheimer Dis Assoc Disord 26:17; the figure is a round one of ours
temporal cortex, AD            -10 % thickness. Where AD thins the cortex: Dickerson et al. 2009,
                               Cereb Cortex 19:497; the figure is a round one of ours
brain volume, sex              men larger, taken as 11 %. That they are, on average: Ruigrok et al.
                               2014, Neurosci Biobehav Rev 39:34
=============================  ===============================================================

**Calibration.** One factor, `VARIABILITY`, multiplies every difference between people of the same
age, sex and diagnosis. It was set once, before any network was run, by a linear model on voxels
(``tests/calibrate_synthetic.py``: 4 mm, 96 subjects for training, 32 for testing, 5 splits of each
of the cohort seeds 101-106, which are never shipped). Mean test AUC for AD at 0.3, 0.4, 0.55 and
0.6: .94, .90, .82 and .80, the middle of the wanted .75-.85. At the chosen 0.6 single seeds give
.69 to .85, the null twin .51 (.41 to .55); the MAE for age is 6.0 years, against 8.6 when the mean
is predicted. The spreads it multiplies are, but for that of the hippocampi, round ones of ours.

**The null twin.** The labels of ``synthetic-null`` are drawn as those of ``synthetic-ad``; its
images are made from age, sex and diagnosis drawn a second time. Nothing links the two.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bench.lock import locked
from registry.errors import UserError

# Double precision throughout: rounded to 8 bits, an image then does not depend on how a machine's
# libraries order their sums, and the cohort is the same everywhere.
Array = NDArray[np.float64]

VERSION = 1
"""Raised whenever the images or labels of a cohort change."""

VARIABILITY = 0.6
"""Common factor on all between-subject spreads; set once, see the module's docstring."""


@dataclass(frozen=True)
class Spec:
    """A synthetic cohort.

    Parameters
    ----------
    name : str
        The cohort's name; part of every random seed.
    kind : str
        ``"ad"`` (pairs of AD and CN), ``"age"`` (CN only) or ``"null"`` (as ``"ad"``, no link).
    voxel_mm : int
        Edge of a voxel: 2 (91 x 109 x 91 voxels) or 4 (46 x 55 x 46).
    n_subjects : int
        How many people, one scan each; even for pairs.
    seed : int
        Draws another cohort of the same kind.
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


# --- Who they are --------------------------------------------------------------------------------

AGES = {"ad": (60.0, 85.0), "age": (45.0, 80.0), "null": (60.0, 85.0)}


@dataclass(frozen=True)
class Traits:
    """What `participants.tsv` says of a subject, or what an image is made from.

    Age is in years, sex ``"F"`` or ``"M"``, diagnosis ``"CN"`` or ``"AD"``, site a key of `SITES`.
    """

    age: float
    sex: str
    diagnosis: str
    site: str


def labels(spec: Spec, subject: int) -> Traits:
    """Return the written labels of a subject.

    AD and CN come in pairs of equal sex and site and nearly equal age, so that neither age, sex
    nor site tells the diagnosis; sites and sexes take turns, so that each site sees both equally.

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
    person = _generator(spec, subject, "label")
    low, high = AGES[spec.kind]
    if spec.kind == "age":
        unit, age, diagnosis = subject, person.uniform(low, high), "CN"
    else:
        unit = subject // 2
        pair = _generator(spec, unit, "pair")
        age = float(np.clip(pair.uniform(low, high) + person.uniform(-1, 1), low, high))
        # A coin decides who of the two is ill: the order of the subjects tells nothing.
        diagnosis = ("CN", "AD")[(subject + int(pair.integers(2))) % 2]
    sites = tuple(SITES)
    sex = "FM"[unit // len(sites) % 2]
    return Traits(round(age, 1), sex, diagnosis, sites[unit % len(sites)])


def image_traits(spec: Spec, subject: int) -> Traits:
    """Return what the image of a subject is made from: the labels, except in a null cohort.

    There age, sex and diagnosis are drawn again, from a stream of their own; only the site, which
    is no target and is balanced over all labels, is the written one.

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
    hidden = _generator(spec, subject, "hidden")
    age = hidden.uniform(*AGES[spec.kind])
    return Traits(age, "FM"[hidden.integers(2)], ("CN", "AD")[hidden.integers(2)], written.site)


def _generator(spec: Spec, index: int, part: str) -> np.random.Generator:
    """Return a stream that depends on nothing but the cohort, the subject and the part."""
    digest = hashlib.sha256(f"{spec.name}/{spec.seed}/{index}/{part}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


# --- What age, sex and disease do (sources: the module's docstring) -------------------------------

REFERENCE_AGE = 45.0  # the template stands for this age
CORTEX_PER_YEAR, HIPPOCAMPUS_PER_YEAR, VENTRICLES_PER_YEAR = -0.0035, -0.0085, 0.025
HIPPOCAMPUS_IN_AD, TEMPORAL_IN_AD, VENTRICLES_IN_AD = -0.24, -0.10, 0.35
MALE_TO_FEMALE_VOLUME = 1.11

# Spreads between people of equal age, sex and diagnosis, before VARIABILITY: standard deviations
# of the log of a volume, of a fraction of the cortex, and of the warp in mm.
SPREAD_HIPPOCAMPUS, SPREAD_VENTRICLES, SPREAD_HEAD = 0.15, 0.35, 0.08
SPREAD_CORTEX, SPREAD_REGION = 0.04, 0.06
SPREAD_WARP_MM = 2.5


@dataclass(frozen=True)
class Anatomy:
    """One subject's anatomy relative to the template.

    Volumes and thicknesses are ratios, `scale` is the linear size of the head; `warp` holds the
    displacement in mm and `region` the local loss of cortex as control points of smooth fields.
    """

    scale: float
    ventricles: float
    hippocampi: tuple[float, float]
    cortex: float
    temporal: float
    warp: Array
    region: Array


def anatomy(spec: Spec, subject: int, traits: Traits, variability: float = VARIABILITY) -> Anatomy:
    """Draw the anatomy of a subject around what its traits say.

    Parameters
    ----------
    spec : Spec
        The cohort.
    subject : int
        Index from 0.
    traits : Traits
        What the image is made from.
    variability : float
        Common factor on all spreads.

    Returns
    -------
    Anatomy
    """
    rng = _generator(spec, subject, "anatomy")
    z = variability * rng.standard_normal(6)
    ill = traits.diagnosis == "AD"
    years = traits.age - REFERENCE_AGE
    men = MALE_TO_FEMALE_VOLUME ** (0.5 if traits.sex == "M" else -0.5)
    hippocampus = (1 + HIPPOCAMPUS_PER_YEAR) ** years * (1 + HIPPOCAMPUS_IN_AD * ill)
    # Left and right of a person are alike: they share three quarters of their variance.
    sides = SPREAD_HIPPOCAMPUS * (np.sqrt(0.75) * z[0] + np.sqrt(0.25) * z[1:3])
    shape = Fields.controls
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
        warp=_normal(rng, (3, *shape), variability * SPREAD_WARP_MM),
        region=_normal(rng, shape, variability * SPREAD_REGION),
    )


def _normal(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> Array:
    return spread * rng.standard_normal(shape)


# --- The template, prepared once for a voxel size -------------------------------------------------

ORIGIN = np.array([-90.0, -126.0, -72.0])
SHAPES = {2: (91, 109, 91), 4: (46, 55, 46)}
CENTRE = np.array([0.0, -18.0, 10.0])  # about which heads are scaled
GREY, CSF = 0.65, 0.28  # the template's intensities, of 1

# Ellipsoids in MNI mm: centre on the right (x is mirrored for the left) and semi-axes.
HIPPOCAMPUS = ((27.0, -21.0, -15.0), (8.0, 17.0, 7.0))
TEMPORAL_LOBE = ((42.0, -15.0, -22.0), (26.0, 38.0, 20.0))
DEEP_GREY = ((0.0, -8.0, 4.0), (34.0, 34.0, 20.0))
VENTRICLE_BOX = ((-45.0, -65.0, -15.0), (45.0, 40.0, 40.0))


@dataclass(frozen=True)
class Template:
    """Maps of the template on a grid of `spacing` mm that starts at `origin`.

    `t1` is in 0..1 and 0 outside the brain, `brain` its mask, `hippocampi` (left, right), `cortex`
    and `temporal` are fractions of a voxel that may be lost, `outward` (3 maps) points away from
    the ventricles, is 1 around them and fades to 0. `growth` maps the volume of the ventricles
    relative to the template's to the displacement in mm that gives it: two columns.
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
    """Prepare the MNI152 maps for images of `voxel_mm`.

    The 1 mm maps are smoothed to the resolution of the images (a Gaussian of `voxel_mm` full width
    at half maximum) and kept at half their spacing, so that sampling them does not alias.

    Parameters
    ----------
    voxel_mm : int
        2 or 4.

    Returns
    -------
    Template
    """
    from nilearn import datasets  # seconds: only where a cohort is made

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
    # Nothing but the head: the maps' margins would double the work.
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
    """Return the lateral ventricles: the largest pool of fluid inside the central box."""
    low, high = ((np.array(corner) - origin).astype(int) for corner in VENTRICLE_BOX)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    pools, _ = ndimage.label(fluid[box])
    sizes = np.bincount(pools.ravel())
    # What reaches the box's faces is the fluid around the brain.
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
    # Centres of voxels on either side are half a voxel from the surface; smoothing undoes the
    # steps of a grid, so that level sets grow evenly.
    signed = np.where(mask, 0.5 - inside, outside - 0.5)
    return ndimage.gaussian_filter(signed, 1.0)


def _outward(distance: Array) -> Array:
    """Return the unit vector away from the ventricles, faded out from 6 to 30 mm, (3, X, Y, Z)."""
    fade = 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - 6) / 24, 0, 1))
    return np.stack([slope * fade for slope in np.gradient(distance)])


def _growth(distance: Array, outward: Array) -> Array:
    """Measure the volume ratio that each displacement in mm gives: two columns."""
    near = distance < 12
    points, directions = np.argwhere(near).T, outward[:, near]
    shifts = np.arange(-3.0, 9.01, 0.75)
    volumes = [
        (ndimage.map_coordinates(distance, points - shift * directions, order=1) < 0).sum()
        for shift in shifts
    ]
    ratios = np.array(volumes) / (distance < 0).sum()
    return np.stack([ratios, shifts], axis=1)


# --- One image ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """A scanner: exponent of the contrast, strength and direction of the bias field, noise."""

    contrast: float
    bias: float
    direction: tuple[float, float, float]
    noise: float


SITES = {
    "A": Site(contrast=0.9, bias=0.10, direction=(0.0, 0.6, 0.8), noise=0.025),
    "B": Site(contrast=1.0, bias=0.15, direction=(0.8, -0.6, 0.0), noise=0.03),
    "C": Site(contrast=1.15, bias=0.20, direction=(0.0, 0.8, -0.6), noise=0.02),
}
BIAS_WOBBLE = 0.03  # of the bias field, from scan to scan


class Fields:
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
        # Rows of unit length: control points of unit variance give a field of unit variance.
        return weights / np.linalg.norm(weights, axis=1, keepdims=True)

    def __call__(self, controls: Array) -> Array:
        """Return the field of `controls`, (9, 11, 9), on the image's grid, (X, Y, Z)."""
        bx, by, bz = self._bases
        return np.einsum("xa,yb,zc,abc->xyz", bx, by, bz, controls, optimize=True)


@dataclass(frozen=True)
class _Canvas:
    """The voxels of the image's grid that a brain may reach: `inside` (X, Y, Z), `mm` (3, N)."""

    inside: NDArray[np.bool]
    mm: Array
    fields: Fields


@lru_cache(maxsize=2)
def _canvas(voxel_mm: int) -> _Canvas:
    shape = SHAPES[voxel_mm]
    mm = ORIGIN[:, None] + np.indices(shape).reshape(3, -1) * float(voxel_mm)
    reach = _sample(template(voxel_mm), template(voxel_mm).brain, mm).reshape(shape) > 0.5
    # 20 mm: the largest head and the largest warp that occur.
    inside = ndimage.distance_transform_edt(~reach, sampling=voxel_mm) < 20
    return _Canvas(inside, mm[:, inside.ravel()], Fields(voxel_mm))


def _sample(source: Template, field: Array, mm: Array) -> Array:
    """Return `field` at points of the template in mm, (3, N), linearly interpolated; 0 outside."""
    index = (mm - source.origin[:, None]) / source.spacing
    return ndimage.map_coordinates(field, index, order=1)


def volume(
    spec: Spec, subject: int, traits: Traits, variability: float = VARIABILITY
) -> NDArray[np.uint8]:
    """Make the T1 image of a subject.

    Parameters
    ----------
    spec : Spec
        The cohort.
    subject : int
        Index from 0.
    traits : Traits
        What the image is made from, see `image_traits`.
    variability : float
        Common factor on all spreads between people.

    Returns
    -------
    ndarray of uint8, (X, Y, Z)
        RAS, 0 outside the brain, at least 1 inside.
    """
    source, canvas = template(spec.voxel_mm), _canvas(spec.voxel_mm)
    body = anatomy(spec, subject, traits, variability)

    # Where in the template each voxel comes from: head and warp first, then the ventricles.
    centre = CENTRE[:, None]
    mm = centre + (canvas.mm - centre) / body.scale
    mm += np.stack([canvas.fields(controls)[canvas.inside] for controls in body.warp])
    push = np.interp(body.ventricles, *source.growth.T)
    mm -= push * np.stack([_sample(source, part, mm) for part in source.outward])

    image = _sample(source, source.t1, mm)
    brain = _sample(source, source.brain, mm) > 0.5

    # The fraction of each voxel that is lost to fluid.
    regional = canvas.fields(body.region)[canvas.inside]
    loss = (1 - body.cortex + regional) * _sample(source, source.cortex, mm)
    loss += (1 - body.temporal) * _sample(source, source.temporal, mm)
    for size, hippocampus in zip(body.hippocampi, source.hippocampi, strict=True):
        loss += (1 - size) * _sample(source, hippocampus, mm)
    image -= loss * (GREY - CSF)

    image = _scan(image, canvas, SITES[traits.site], _generator(spec, subject, "scan"))
    counts = np.zeros(SHAPES[spec.voxel_mm], dtype=np.uint8)
    counts[canvas.inside] = np.where(brain, np.clip(np.rint(image * 180), 1, 255), 0)
    return counts


def _scan(image: Array, canvas: _Canvas, site: Site, rng: np.random.Generator) -> Array:
    """Return the image, (N,), as the scanner of a site sees it."""
    slope = site.bias * (np.array(site.direction) @ canvas.mm) / 90
    wobble = canvas.fields(_normal(rng, Fields.controls, BIAS_WOBBLE))[canvas.inside]
    signal = np.clip(image, 0.01, None) ** site.contrast * np.exp(slope + wobble)
    return signal + _normal(rng, signal.shape, site.noise)


# --- The files ------------------------------------------------------------------------------------

SPACE = "MNI152NLin2009aSym"
PARTICIPANTS = {
    "participant_id": "Identifier of the subject.",
    "age": "Age at the scan in years.",
    "sex": "F or M.",
    "diagnosis": "CN (cognitively normal) or AD (Alzheimer's disease).",
    "site": "Simulated scanner.",
}
NOTICE = """\
These images are synthetic. They were made from the ICBM 152 nonlinear symmetric 2009a templates
(Fonov et al. 2009, NeuroImage 47 S102; Fonov et al. 2011, NeuroImage 54:313) as distributed with
nilearn. Those templates are copyright Louis Collins, McConnell Brain Imaging Centre, Montreal
Neurological Institute, McGill University, who ask that this notice appears in all copies and make
no warranty; see the terms published with the templates.
No subject of this folder is a person.
"""


def materialise(
    name: str, cache_dir: Path, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Return the BIDS folder of a synthetic cohort, writing it at first use.

    Two processes that ask at once get one folder: the second waits for the first. A folder is
    complete or absent, whatever is killed when.

    Parameters
    ----------
    name : str
        A key of `COHORTS`.
    cache_dir : Path
        Folder for everything that can be made again.
    progress : callable, optional
        Called as ``progress(done, total)`` after each subject.

    Returns
    -------
    Path
        ``cache_dir/synthetic/<name>-<digest of all that determines it>``.

    Raises
    ------
    UserError
        When there is no such cohort, or the files cannot be written.
    """
    if name not in COHORTS:
        raise UserError(
            f"There is no synthetic cohort {name!r}; there are {', '.join(sorted(COHORTS))}."
        )
    folder = write_cohort(COHORTS[name], cache_dir, progress)
    for prepared in (template, _canvas):
        prepared.cache_clear()  # up to 400 MB that a long-lived process does not need again
    return folder


def write_cohort(
    spec: Spec, cache_dir: Path, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Return the BIDS folder of any cohort; see `materialise`.

    Parameters
    ----------
    spec : Spec
        The cohort.
    cache_dir : Path
        Folder for everything that can be made again.
    progress : callable, optional
        Called as ``progress(done, total)`` after each subject.

    Returns
    -------
    Path

    Raises
    ------
    UserError
        When the files cannot be written.
    """
    content = json.dumps([VERSION, VARIABILITY, asdict(spec)], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    folder = cache_dir / "synthetic" / f"{spec.name}-{digest}"
    if folder.is_dir():
        return folder
    try:
        with locked(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                # Who holds the lock is alone: partial folders were left by processes that died.
                for left in folder.parent.glob(f".{folder.name}.partial-*"):
                    shutil.rmtree(left)
                _write_folder(spec, folder, progress)
    except OSError as error:
        raise UserError(
            f"The synthetic cohort cannot be written to {folder.parent} "
            f"({error.strerror or error}); make room there or set BENCH_CACHE to another folder."
        ) from None
    return folder


def _write_folder(spec: Spec, folder: Path, progress: Callable[[int, int], None] | None) -> None:
    partial = folder.with_name(f".{folder.name}.partial-{uuid.uuid4().hex}")
    try:
        partial.mkdir()
        description = {
            "Name": spec.name,
            "BIDSVersion": "1.9.0",
            "DatasetType": "derivative",
            "License": "See LICENSE",
            "GeneratedBy": [{"Name": "slicebench", "Version": f"synthetic {VERSION}"}],
        }
        columns = {name: {"Description": text} for name, text in PARTICIPANTS.items()}
        _write_json(partial / "dataset_description.json", description)
        _write_json(partial / "participants.json", columns)
        (partial / "LICENSE").write_text(NOTICE, encoding="utf-8")
        (partial / "participants.tsv").write_text(_participants(spec), encoding="utf-8")
        for subject in range(spec.n_subjects):
            traits = image_traits(spec, subject)
            file = partial / _scan_path(subject)
            file.parent.mkdir(parents=True)
            file.write_bytes(_nifti(volume(spec, subject, traits), spec.voxel_mm))
            if progress is not None:
                progress(subject + 1, spec.n_subjects)
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _participants(spec: Spec) -> str:
    lines = ["\t".join(PARTICIPANTS)]
    for subject in range(spec.n_subjects):
        who = labels(spec, subject)
        row = (_participant(subject), f"{who.age:.1f}", who.sex, who.diagnosis, who.site)
        lines.append("\t".join(row))
    return "\n".join(lines) + "\n"


def _participant(subject: int) -> str:
    return f"sub-{subject + 1:04d}"


def _scan_path(subject: int) -> Path:
    name = _participant(subject)
    return Path(name, "anat", f"{name}_space-{SPACE}_T1w.nii.gz")


def _write_json(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _nifti(counts: NDArray[np.uint8], voxel_mm: int) -> bytes:
    """Return a .nii.gz file whose bytes depend on the voxels only."""
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = ORIGIN
    image = nib.Nifti1Image(counts, affine)
    for set_form in (image.set_sform, image.set_qform):
        set_form(affine, code="mni")
    image.header.set_xyzt_units("mm")
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=6, mtime=0) as file:
        file.write(image.to_bytes())
    return packed.getvalue()
