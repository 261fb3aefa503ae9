"""The brain-age gap of every row, before and after corrections for age."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.report.evidence import Evidence, load_validation
from bench.report.select import Protocol, Row
from bench.report.table import Cell, Column, Table
from bench.report.words import number
from bench.stats.age_gap import fit_correction, gap_summary
from bench.store.store import Store

CORRECTIONS = ("beheshti", "cole")
TARGET = "age"
COLUMNS = (
    Column("mae", "MAE, uncorrected", numeric=True),
    Column("mean_gap", "mean gap", numeric=True),
    Column("slope", "slope of the gap on age", numeric=True),
    Column("r", "r(gap, age)", numeric=True),
    Column("sd", "SD of the gap", numeric=True),
    Column("sd_beheshti", "SD, Beheshti", numeric=True),
    Column("sd_cole", "SD, Cole", numeric=True),
)


def gap_table(
    store: Store, protocol: Protocol, evidence: Evidence, rows: Sequence[Row], name: str
) -> Table | None:
    """Return the gap of every row at the primary size as means over seeds; None without ages.

    The corrections are fitted on the validation subjects of the same run.
    """
    if protocol.dataset["target"] != TARGET or not evidence.n_subjects:
        return None
    size = protocol.primary_size
    age = evidence.truth
    notes = [
        f"Gap: predicted minus true age of {len(age)} test subjects aged {age.min():.1f} to "
        f"{age.max():.1f} years; means across seeds.",
        "Corrections for age are fitted on the validation subjects of the same run and are meant "
        "for group analyses only, never as a measure of accuracy (with Beheshti's correction a "
        "constant prediction scores perfectly).",
    ]
    return Table(
        name=name,
        title=f"Brain-age gap (years) at n={protocol.size_label(size)}, {protocol.name}",
        columns=(Column("arm", "model"), *COLUMNS),
        rows=tuple(
            (Cell(row.label), *_cells(store, protocol, evidence, row, size)) for row in rows
        ),
        notes=tuple(notes),
    )


def _cells(store: Store, protocol: Protocol, evidence: Evidence, row: Row, size: int) -> list[Cell]:
    runs = protocol.at(row, size)
    if not runs.keys:
        return [Cell("n/a", {"value": np.nan}) for _ in COLUMNS]
    age = evidence.truth
    found: list[list[float]] = []
    reasons: dict[int, str] = {}
    for prediction, (true, validation) in zip(
        evidence.stack(runs), load_validation(store, protocol, runs), strict=True
    ):
        gap = gap_summary(age, prediction)
        line = [gap.mae, gap.mean_gap, gap.slope, gap.r, _sd(prediction - age)]
        for method in CORRECTIONS:
            correction = fit_correction(method, true, validation) if len(true) else None
            usable = correction is not None and not correction.reason
            if correction is not None and correction.reason:
                reasons[len(line)] = correction.reason
            line.append(_sd(correction.apply(age, prediction) - age) if usable else np.nan)  # type: ignore[union-attr]
        found.append(line)
    # If a run is undefined, so is the mean; undefined runs are not omitted.
    means = np.mean(found, axis=0)
    return [
        Cell(number(float(mean), 2), {"value": float(mean), "reason": reasons.get(i, "")})
        for i, mean in enumerate(means)
    ]


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
