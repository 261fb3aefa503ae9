"""Reading volumes from the cache against nibabel reading the same .nii.gz files."""

import statistics
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from bench.data.cohort import cohort_request, open_cohort
from bench.data.synthetic import materialise

LEAST = 20
NAME = "synthetic-ad-4mm"

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        cohort = open_cohort(cohort_request(NAME, {}), cache)
        files = sorted(materialise(NAME, cache).glob("sub-*/anat/*.nii.gz"))
        volumes = np.load(cohort.volumes_file, mmap_mode="r")
        ratios = []
        for _ in range(5):
            started = time.perf_counter()
            for file in files:
                nib.load(file).get_fdata(dtype=np.float32)
            middle = time.perf_counter()
            for row in range(len(files)):
                np.asarray(volumes[row], dtype=np.float32)
            ratios.append((middle - started) / (time.perf_counter() - middle))
        ratio = statistics.median(ratios)
    verdict = "ok" if ratio >= LEAST else f"under the goal of {LEAST}"
    print(f"cache against nibabel, {len(files)} volumes: {ratio:.0f} times faster, {verdict}")
