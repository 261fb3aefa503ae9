"""Run the whole simulation and write its tables into docs/simulation.md: ``make simulate``."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.simulation.design import (
    CELLS,
    CHUNK,
    EDGES,
    METRICS,
    N_SEEDS,
    SEED,
    Cell,
    Design,
    Outcome,
    chunk,
    critical_p,
    rejected,
)

PAGE = Path(__file__).parents[2] / "docs" / "simulation.md"
BEGIN, END = "<!-- begin: written by make simulate -->", "<!-- end -->"
LABELS = {"mae": "MAE", "rmse": "RMSE", "auc": "AUC", "balanced_accuracy": "Balanced accuracy"}

MIDDLE = CELLS[1]
NULL = {cell: Design("age", cell) for cell in CELLS + EDGES}
POWER = {cell: Design("age", cell, effect=cell.effect) for cell in CELLS}
TUNED = {
    "shared, .5": Design("age", MIDDLE, tuning=0.5),
    "shared, 1": Design("age", MIDDLE, tuning=1.0),
    "per seed, .5": Design("age", MIDDLE, tuning=0.5, per_seed=True),
    "per seed, 1": Design("age", MIDDLE, tuning=1.0, per_seed=True),
}

Results = dict[Design, NDArray]


def simulate(designs: Sequence[Design], repeats: int, workers: int) -> Results:
    """Return the outcomes (repeats, metrics, N_SEEDS, fields) of every design."""
    chunks = range(-(-repeats // CHUNK))
    jobs = [(design, number) for design in designs for number in chunks]
    began, found = time.monotonic(), {}
    with ProcessPoolExecutor(workers) as pool:
        done = pool.map(chunk, *zip(*jobs, strict=True))
        for place, design in enumerate(designs, start=1):
            found[design] = np.concatenate([next(done) for _ in chunks])[:repeats]
            took = time.monotonic() - began
            print(f"{place}/{len(designs)} {took:.0f} s  {design}", flush=True)
    return found


def both_tasks(design: Design) -> list[Design]:
    """Return the design for each task."""
    return [replace(design, task=task) for task in METRICS]


def table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are right-aligned."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, [":--", *["--:"] * (len(lines[0]) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows_by_metric() -> Iterator[tuple[str, int, int]]:
    """Yield the task, the index of the metric and the index of the number of seeds of each row."""
    for task, names in METRICS.items():
        for metric in range(len(names)):
            for seeds in range(len(N_SEEDS)):
                yield task, metric, seeds


def label(task: str, metric: int, seeds: int) -> str:
    """Return the label of a row."""
    return f"{LABELS[METRICS[task][metric]]}, {N_SEEDS[seeds]} seeds"


def shown(rate: float) -> str:
    """Return a rate with three decimals and no leading zero."""
    return f"{rate:.3f}".removeprefix("0")


def error_table(results: Results, cells: Sequence[Cell]) -> str:
    """Return the type-I errors of the headline test and the paired t test in every cell."""

    def entry(cell: Cell, task: str, metric: int, seeds: int) -> str:
        found = rejected(results[replace(NULL[cell], task=task)])[metric, seeds]
        high = 0.08 if N_SEEDS[seeds] == 3 else 0.07
        mark = "" if 0.04 <= found[0] <= high else "†"
        return f"**{shown(found[0])}**{mark} / {shown(found[1])}"

    rows = ([label(*row), *(entry(cell, *row) for cell in cells)] for row in rows_by_metric())
    return table(["headline / paired t", *(cell.name for cell in cells)], rows)


def rivals_table(results: Results) -> str:
    """Return the type-I errors of all four analyses in the middle cell."""
    head = ["", "headline", "paired t over seeds", "over subjects", "seeds x subjects as rows"]
    rows = []
    for task, metric, seeds in rows_by_metric():
        found = rejected(results[replace(NULL[MIDDLE], task=task)])[metric, seeds]
        rows.append([label(task, metric, seeds), *map(shown, found)])
    return table(head, rows)


def parts_table(results: Results) -> str:
    """Return the variance components, and how often C is truncated at 0."""
    share, cut = Outcome._fields.index("subjects_share"), Outcome._fields.index("truncated")
    head = ["", *(f"{LABELS[names[0]]}, {s} seeds" for names in METRICS.values() for s in N_SEEDS)]
    rows = []
    for cell in CELLS + EDGES:
        means = [results[design][:, 0].mean(axis=0) for design in both_tasks(NULL[cell])]
        found = (line for mean in means for line in mean)
        rows.append([cell.name, *(f"{100 * x[share]:.0f} ({100 * x[cut]:.0f})" for x in found)])
    return table(head, rows)


def power_table(results: Results) -> str:
    """Return the power at .05, and at the threshold at which each test has a true error of 5 %."""

    def entries(cell: Cell, task: str, metric: int, seeds: int) -> list[str]:
        null, shifted = (results[replace(d, task=task)] for d in (NULL[cell], POWER[cell]))
        raw = rejected(shifted)[metric, seeds]
        fair = rejected(shifted, critical_p(null))[metric, seeds]
        return [f"**{shown(x[0])}** / {shown(x[1])}" for x in (raw, fair)]

    head = ["headline / paired t", *(f"{c.name}{x}" for c in CELLS for x in ("", ", true 5 %"))]
    rows = (
        [label(*row), *(entry for cell in CELLS for entry in entries(cell, *row))]
        for row in rows_by_metric()
    )
    return table(head, rows)


def tuning_table(results: Results) -> str:
    """Return the type-I errors of the headline test with effects of tuning."""
    columns = {"none": NULL[MIDDLE], **TUNED}
    rows = []
    for task, metric, seeds in rows_by_metric():
        found = (rejected(results[replace(d, task=task)])[metric, seeds] for d in columns.values())
        rows.append([label(task, metric, seeds), *(shown(rates[0]) for rates in found)])
    return table(["", *columns], rows)


def page(results: Results, repeats: int) -> str:
    """Return the part of the page that is generated."""

    def error(rate: float) -> str:
        return shown(np.sqrt(rate * (1 - rate) / repeats))

    used = [f"{name} {version(name)}" for name in ("slicebench", "numpy", "scipy")]
    return "\n\n".join(
        [
            f"{repeats:,} repeats of every design, random seed {SEED}; Python "
            f"{platform.python_version()}, {', '.join(used)}. Monte-Carlo standard error of a rate "
            f"of .05: {error(0.05)}; of .2: {error(0.2)}; of .5: {error(0.5)}.",
            "### Type-I error at .05, 100 subjects\n\nSeed variance : test-set variance of one "
            "run. Bold: the headline test. †: outside .04-.07 (.08 with 3 seeds).",
            error_table(results, CELLS),
            "### Other analyses, 4 : 1",
            rivals_table(results),
            "### Extreme designs",
            error_table(results, EDGES),
            "### Variance components\n\nPercentage of the squared standard error due to "
            "subjects, and in brackets the percentage of repeats in which the estimate of C was "
            "negative.",
            parts_table(results),
            "### Power",
            power_table(results),
            "### Tuning, 4 : 1\n\nType-I error of the headline test at .05.",
            tuning_table(results),
        ]
    )


def main() -> None:
    """Run all designs and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    kinds = [*NULL.values(), *POWER.values(), *TUNED.values()]
    designs = [design for kind in kinds for design in both_tasks(kind)]
    results = simulate(designs, asked.repeats, asked.workers)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{page(results, asked.repeats)}\n\n{END}{after}")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
