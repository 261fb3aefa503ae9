"""Common parts of the small cohorts: scans of a few voxels, and their listing."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from bench.data.choices import choose
from bench.data.manifest import tidy
from registry.core import catalogue, resolve
from registry.datasets import dataset_options

SHAPE = (24, 28, 24)
COLUMNS = [
    "subject_id",
    "session_id",
    "path",
    "age",
    "sex",
    "diagnosis",
    "site",
    "source",
    "reason",
]
"""Columns in which manifests are compared."""


def write_scan(
    file: Path,
    seed: int = 0,
    shape: tuple[int, ...] = SHAPE,
    affine: np.ndarray | None = None,
    dtype: type = np.float32,
) -> Path:
    """Write a ball of noise in the centre of MNI space; its name determines the format.

    ``.img`` is a pair of NIfTI; for Analyze see `write_analyze`.
    """
    if affine is None:
        affine = np.diag([8.0, 8.0, 8.0, 1.0])
        affine[:3, 3] = (-92, -126, -72)
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = nib.Nifti1Pair if file.suffix == ".img" else nib.Nifti1Image
    nib.save(kind(_ball(seed, shape).astype(dtype), affine), file)
    return file


def write_analyze(file: Path, seed: int = 0, shape: tuple[int, ...] = (*SHAPE, 1)) -> Path:
    """Write a ball of noise as a pair of Analyze 7.5, which has no orientation."""
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.AnalyzeImage(_ball(seed, shape).astype(np.int16), None).to_filename(file)
    return file


def _ball(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    three = shape[:3]
    middle = (np.array(three) - 1) / 2
    radius = np.linalg.norm(np.indices(three).T - middle, axis=-1).T
    noise = np.random.default_rng(seed).uniform(50, 200, three)
    return np.where(radius < 9, noise, 0).reshape(shape)


def listed_scans(card_name: str, root: Path, **options: object) -> pd.DataFrame:
    """Return all scans of a cohort after adapter and choices."""
    card = catalogue.dataset(card_name)
    known = dataset_options(card)
    assert set(options) <= set(known)
    values = {key: card.defaults.get(key, option.default) for key, option in known.items()}
    values.update(options)
    return choose(tidy(resolve(card.target)(root, values)), values)


def expect(rows: list[dict]) -> pd.DataFrame:
    """Return expected rows in the order of a manifest, with unspecified values missing."""
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
    texts = [name for name in COLUMNS if name != "age"]
    frame[texts] = frame[texts].astype(object).fillna("").astype(str)
    frame["age"] = frame["age"].astype(float)
    return frame.sort_values(["subject_id", "session_id", "path"], ignore_index=True)


def assert_listed(scans: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Assert that a manifest equals the expected one, row by row."""
    found = scans[COLUMNS].sort_values(["subject_id", "session_id", "path"], ignore_index=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
