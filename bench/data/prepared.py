"""Listing of the prepared volumes of a dataset, without opening its cohort."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.data.cache import ABOUT, VOLUMES


def prepared_caches(cache_dir: Path, adapter: str, root: Path | None) -> list[str]:
    """Describe the prepared volumes of a dataset: grid, number of scans and size of each array.

    Parameters
    ----------
    cache_dir : Path
        The cache.
    adapter : str
        The dataset's card.
    root : Path or None
        Its root directory; None if its adapter needs none.
    """
    words = []
    for file in sorted((cache_dir / "cohorts").glob(f"{adapter}-*/{ABOUT}")):
        try:
            about = json.loads(file.read_text(encoding="utf-8"))
            volumes = cache_dir / "volumes" / about["in"] / VOLUMES
            shape = np.load(volumes, mmap_mode="r").shape
        except (OSError, ValueError, KeyError):
            continue
        if root is not None and about.get("root") != str(root.resolve()):
            continue
        conform = about["settings"][1]
        size = volumes.stat().st_size / 1e9
        crop = " cropped" if conform["crop"] != "none" else ""
        words.append(f"{conform['grid']}{crop}, {shape[0]} scans, {size:.2f} GB")
    return words
