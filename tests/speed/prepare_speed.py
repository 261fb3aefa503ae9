"""Compare checking and preparing scans with reading them by nibabel in as many processes.

Raw scans (256 x 256 x 170, int16, noise everywhere) and scans in MNI space (182 x 218 x 182,
float32), both compressed, are resampled to the 2 mm grid. Goal: at most 1.5 times as long.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np

from bench.data.cache import cohort_folder, prepare
from bench.data.facts import template_file
from bench.data.scanning import Job, read_all
from bench.data.volume import GRIDS, Conform, conform, load

N, WORKERS, ROUNDS = 24, 2, 3


def write(folder: Path, kind: str) -> list[Path]:
    template = load(template_file())
    if kind == "float32":
        grid = GRIDS["mni-1mm"]
        base, affine, dtype = conform(template, grid, "mni"), grid.affine, np.float32
    else:
        base = np.zeros((170, 256, 256), np.float32)
        base[:, 12:245, 33:222] = template.data[13:183]
        affine, dtype = np.diag([1.0, 1, 1, 1]), np.int16
        affine[:3, 3] = (-85, -128, -128)
    rng = np.random.default_rng(0)
    files = []
    for number in range(N):
        noisy = 600 * base + np.abs(rng.normal(0, 8, base.shape))
        files.append(folder / f"{kind}-{number:02d}.nii.gz")
        nib.save(nib.Nifti1Image(noisy.astype(dtype), affine), files[-1])
    return files


def read_by_nibabel(file: Path) -> float:
    return float(np.asarray(nib.load(file).dataobj)[0, 0, 0])


def resident() -> float:
    """Return the memory in GB of all reading processes."""
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"multiprocessing.spawn" in (folder / "cmdline").read_bytes():
                pages = int((folder / "statm").read_text().split()[1])
                total += pages * resource.getpagesize() / 1e9
    return total


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        for kind, space in (("int16", "native"), ("float32", "mni")):
            files = write(Path(place), kind)
            settings = Conform("mni-2mm", "whole", space)
            memory: list[float] = []
            ratios: dict[str, list[float]] = {"check": [], "prepare": []}
            for _ in range(ROUNDS):
                with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
                    list(pool.map(read_by_nibabel, files[:WORKERS]))
                    start = time.perf_counter()
                    list(pool.map(read_by_nibabel, files))
                    nibabel = time.perf_counter() - start
                reading = read_all(
                    [(i, [file]) for i, file in enumerate(files)],
                    Job(settings, pictures=True),
                    WORKERS,
                )
                for _ in range(WORKERS):  # Start all processes first, as for nibabel.
                    next(reading)
                start = time.perf_counter()
                for number, _ in reading:
                    if number == N // 2:
                        memory.append(resident())
                checked = (time.perf_counter() - start) * N / (N - WORKERS)
                cache = Path(place) / "cache"
                ticks: list[float] = []
                with cohort_folder(cache / "cohorts" / "c"):
                    prepare(
                        files,
                        settings,
                        cache / "cohorts" / "c",
                        cache,
                        lambda done, total, ticks=ticks: ticks.append(time.perf_counter()),
                        workers=WORKERS,
                    )
                made = (ticks[-1] - ticks[WORKERS - 1]) * N / (N - WORKERS)
                shutil.rmtree(cache)
                ratios["check"].append(checked / nibabel)
                ratios["prepare"].append(made / nibabel)
            print(f"{kind}: nibabel {nibabel / N * 1e3:.0f} ms per scan with {WORKERS} processes")
            print(f"  memory of all reading processes: {max(memory):.2f} GB")
            for what, found in ratios.items():
                print(
                    f"  {what}: {statistics.median(found):.2f} times that ({min(found):.2f} best)"
                )


if __name__ == "__main__":
    main()
