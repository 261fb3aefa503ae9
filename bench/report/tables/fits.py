"""Fitted learning curves of all rows, with an extrapolation to twice as many subjects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.report.evidence import Evidence
from bench.report.select import Protocol, Row
from bench.report.table import Cell, Column, Table
from bench.report.tables.efficiency import RESAMPLES, Curves
from bench.report.words import digits_of, interval, number
from bench.stats.curves import FitBand
from bench.stats.metric import Metric

LEAST_SIZES = 3
"""The minimum number of training sizes; a line fits any two sizes perfectly."""


def fit_table(
    protocol: Protocol, evidence: Evidence, metric: Metric, rows: Sequence[Row], name: str
) -> Table | None:
    """Return the fitted curve of every row; None with fewer than three training sizes."""
    if len(protocol.sizes) < LEAST_SIZES:
        return None
    beyond = 2 * max(protocol.sizes)
    curves = Curves(protocol, evidence, metric)
    error = f"1 - {metric.label}" if metric.higher_is_better else metric.label
    return Table(
        name=name,
        title=f"Fitted learning curves, {metric.title}, {protocol.name}",
        columns=(
            Column("arm", "model"),
            Column("kind", "curve"),
            Column("exponent", "b", numeric=True),
            Column("exponent_ci", "95 % CI", numeric=True),
            Column("plateau", "plateau", numeric=True),
            Column("plateau_ci", "95 % CI", numeric=True),
            Column("beyond", f"{metric.label} at n={beyond}", numeric=True),
            Column("beyond_ci", "95 % CI", numeric=True),
        ),
        rows=tuple((Cell(row.label), *_cells(curves.fit(row, beyond), metric)) for row in rows),
        notes=(
            f"{error} = a n^-b + c with five or more training sizes, otherwise a n^-b (a straight "
            f"line in log-log coordinates, no plateau); percentile intervals of {RESAMPLES} "
            f"crossed resamples, refitted, too narrow with few seeds. The value at n={beyond}, "
            "twice the largest training size, is an extrapolation of the fitted curve.",
        ),
    )


def _cells(band: FitBand | str, metric: Metric) -> list[Cell]:
    if isinstance(band, str) or band.fit.reason:
        reason = band if isinstance(band, str) else band.fit.reason
        return [Cell("none", {"reason": reason})] + [
            Cell("n/a", {"value": np.nan}) for _ in range(6)
        ]
    digits, fit = digits_of(metric), band.fit
    plateau = 1 - fit.c if metric.higher_is_better else fit.c
    cells = [Cell(fit.kind, {"a": fit.a, "b": fit.b, "c": fit.c})]
    for value, bounds, places in (
        (fit.b, band.exponent, 2),
        (plateau if fit.kind == "power law" else np.nan, band.plateau, digits),
        (float(band.values[0]), (float(band.low[0]), float(band.high[0])), digits),
    ):
        low, high = bounds if np.isfinite(value) else (np.nan, np.nan)
        cells.append(Cell(number(value, places), {"value": value}))
        cells.append(Cell(interval(low, high, places), {"low": low, "high": high}))
    return cells
