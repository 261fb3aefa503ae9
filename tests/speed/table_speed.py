"""Time reading a UK Biobank table of 50,000 x 10,000 cells, and selecting 10,000 scans.

Goals: reading the required fields in less than 20 s and 1 GB, and splitting 10,000 scans in less
than 5 s. With ``--small``, the table has a tenth of the rows.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.adapters.ukbb import _people
from bench.data.choices import choose
from bench.data.listing import CohortRequest, Listing
from bench.data.manifest import tidy
from bench.data.selection import balance, select_scans
from registry.core import catalogue
from registry.datasets import dataset_options

COLUMNS = 10_000


def write(file: Path, rows: int) -> float:
    """Write a table of numbers, empty cells and text, and return its size in GB."""
    rng = np.random.default_rng(0)
    filler = [",".join(rng.choice(["", "1", "-0.25", "1234.5"], COLUMNS - 5)) for _ in range(50)]
    names = [f"{100000 + i}-0.0" for i in range(COLUMNS - 5)]
    with open(file, "w") as stream:
        stream.write(",".join(["eid", *names, "31-0.0", "21003-2.0", "54-2.0", "20002-0.0"]) + "\n")
        for i in range(rows):
            ends = f'{i % 2},{45 + i % 40},1102{i % 4},"text, with a comma"'
            stream.write(f"{1000000 + i},{filler[i % 50]},{ends}\n")
    return file.stat().st_size / 1e9


def main() -> None:
    rows = 5_000 if "--small" in sys.argv else 50_000
    with tempfile.TemporaryDirectory() as place:
        size = write(Path(place) / "ukb.csv", rows)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        start = time.perf_counter()
        people = _people(Path(place), {"table": ""})
        spent = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{rows} rows x {COLUMNS} columns, {size:.2f} GB")
        print(f"  {people.shape[1]} fields of {len(people)} people in {spent:.1f} s")
        print(f"  memory: {before:.2f} GB before, {peak:.2f} GB at its highest")

    rng = np.random.default_rng(0)
    n = 10_000
    table = pd.DataFrame(
        {
            "subject_id": [f"{i // 2:05d}" for i in range(n)],
            "session_id": [str(i % 2) for i in range(n)],
            "path": [f"{i}.nii.gz" for i in range(n)],
            "diagnosis": rng.choice(["CN", "AD"], n // 2).repeat(2),
            "age": rng.uniform(50, 90, n),
            "sex": rng.choice(["F", "M"], n),
            "site": rng.choice([f"site {i}" for i in range(60)], n),
            "rank": "0",
        }
    )
    card = catalogue.dataset("adni")
    options = {k: card.defaults.get(k, o.default) for k, o in dataset_options(card).items()}
    start = time.perf_counter()
    scans = choose(tidy(table), options)
    scans["external"], scans["file"] = False, scans["path"]
    listing = Listing(CohortRequest("x", card, None, options, "diagnosis"), Path(), scans)
    facts = pd.DataFrame(
        {"sha256": scans["path"], "blocks": "", "affine": "", "reason": "", "remarks": ""},
        scans.index,
    )
    found = select_scans(listing, facts)
    selected = time.perf_counter() - start
    balance(found.used, found.task)
    whole = time.perf_counter() - start
    print(f"{n} scans selected and split in {selected:.2f} s, with its balance {whole:.2f} s")


if __name__ == "__main__":
    main()
