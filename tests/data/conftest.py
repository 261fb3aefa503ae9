"""Small real cohorts on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

Write = Callable[..., Path]


@pytest.fixture
def write_scan() -> Write:
    """Write a NIfTI file: a ball of noise, its voxels depending on the seed only."""

    def write(file: Path, seed: int = 0, shape=(12, 14, 12), affine=None, data=None) -> Path:
        if data is None:
            rng = np.random.default_rng(seed)
            radius = np.linalg.norm(np.indices(shape).T - (np.array(shape) - 1) / 2, axis=-1).T
            data = np.where(radius < 5, rng.uniform(50, 200, shape), 0).astype(np.float32)
        if affine is None:
            affine = np.diag([16.0, 16, 16, 1])
            affine[:3, 3] = (-90, -126, -72)
        file.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data, affine), file)
        return file

    return write


@pytest.fixture
def write_bids(write_scan: Write) -> Write:
    """Write a BIDS folder of `n` subjects in MNI space, alternately CN and AD, F and M."""

    def write(root: Path, n: int = 20, space: str = "_space-MNI152Lin") -> Path:
        lines = ["participant_id\tage\tsex\tdiagnosis\tsite"]
        for i in range(n):
            name = f"sub-{i + 1:03d}"
            write_scan(root / name / "anat" / f"{name}{space}_T1w.nii.gz", seed=i)
            lines.append(f"{name}\t{60 + i}\t{'FM'[i // 2 % 2]}\t{('CN', 'AD')[i % 2]}\tA")
        (root / "participants.tsv").write_text("\n".join(lines) + "\n")
        return root

    return write
