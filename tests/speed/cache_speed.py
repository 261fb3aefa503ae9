"""Compare reading volumes from the cache with reading the .nii.gz files by nibabel.

The files are float32 with noise inside the head, like the output of registration tools. Noise is
the reason why real scans are slow to decompress.
"""

import statistics
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from bench.data.cohort import open_cohort
from bench.data.listing import cohort_request
from bench.data.synthetic import Spec, write_cohort
from bench.train.loader import VolumeLoader

LEAST = 20
SCANS = 16

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        root = write_cohort(Spec("speed", "age", voxel_mm=2, n_subjects=SCANS), cache)
        cohort = open_cohort(cohort_request("bids", {}, root=root, target="age"), cache)
        files = sorted(root.glob("sub-*/anat/*.nii.gz"))
        rng = np.random.default_rng(0)
        for file in files:
            image = nib.load(file)
            data = image.get_fdata(dtype=np.float32)
            data += (data > 0) * rng.normal(0, 2, data.shape).astype(np.float32)
            nib.save(nib.Nifti1Image(data, image.affine), file)
        volumes = np.load(cohort.volumes_file, mmap_mode="r")
        loader = VolumeLoader(volumes, np.arange(len(volumes)), None, torch.device("cpu"))
        read, cast = [], []
        for _ in range(7):
            started = time.perf_counter()
            for file in files:
                nib.load(file).get_fdata(dtype=np.float32)
            nibabel = time.perf_counter() - started
            started = time.perf_counter()
            for row in range(len(files)):
                np.array(volumes[row])
            read.append(nibabel / (time.perf_counter() - started))
            started = time.perf_counter()
            for row in range(len(files)):
                loader.volumes_at(np.array([row]))
            cast.append(nibabel / (time.perf_counter() - started))
    ratio = statistics.median(read)
    verdict = "ok" if ratio >= LEAST else f"under the goal of {LEAST}"
    print(f"cache against nibabel, {SCANS} volumes at 2 mm: {ratio:.0f} times faster, {verdict}")
    print(f"  with the cast to float32 on the CPU: {statistics.median(cast):.0f} times")
