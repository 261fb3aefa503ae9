"""Data efficiency: equivalent training sizes, and tests of whole learning curves.

The training size at which B matches A is read off B's learning curve. Whole curves are compared
by the headline test of their mean over log n.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.report.evidence import Evidence
from bench.report.pairs import Pair, measured_at, runs_at
from bench.report.select import Protocol, Row
from bench.report.table import Cell, Column, Number, Table
from bench.report.tables.pairs import pair_cell
from bench.report.words import digits_of, interval, number, p_value
from bench.stats.bootstrap import (
    ResampledCurve,
    Resamples,
    draw_resamples,
    learning_curve,
    resample_curve,
)
from bench.stats.curves import (
    Efficiency,
    FitBand,
    area,
    bound_words,
    data_efficiency,
    fit_interval,
)
from bench.stats.inference import Comparison, benjamini_hochberg, compare
from bench.stats.measured import MeasuredRuns, RunPredictions
from bench.stats.metric import Metric

RESAMPLES = 1000


class Curves:
    """The learning curves of a section, with one set of resamples per number of seeds."""

    def __init__(self, protocol: Protocol, evidence: Evidence, metric: Metric) -> None:
        self.protocol = protocol
        self.evidence = evidence
        self.metric = metric
        self._drawn: dict[int, Resamples] = {}
        self._resampled: dict[
            tuple[str, tuple[int, ...], tuple[int, ...] | None], ResampledCurve
        ] = {}

    def runs(self, row: Row) -> dict[int, RunPredictions]:
        """Return the runs of a row at all training sizes with finished runs."""
        found = {
            size: runs_at(self.protocol, self.evidence, row, size) for size in self.protocol.sizes
        }
        return {size: runs for size, runs in found.items() if runs is not None}

    def efficiency(self, a: Row, b: Row, size: int) -> Efficiency | str:
        """Return the size at which B matches A at `size`, or the reason why it is unknown."""
        of_a, of_b = self.runs(a), self.runs(b)
        if size not in of_a:
            return "no finished run of A"
        if len(of_b) < 2:
            return "fewer than two sizes of B"
        seeds = _shared_seeds(self.protocol, [(a, {size: of_a[size]}), (b, of_b)])
        if seeds == ():
            return "no shared seed"
        one = self._resampled_curve(a, {size: of_a[size]}, seeds)
        other = self._resampled_curve(b, of_b, seeds)
        return one.reason or other.reason or data_efficiency(one, other, size)

    def area(self, a: Row, b: Row) -> Comparison | None:
        """Compare the means of two learning curves over their common sizes."""
        sizes = sorted(set(self.runs(a)) & set(self.runs(b)))
        if len(sizes) < 2:
            return None
        try:
            one, other = (area([self._measured(row, n) for n in sizes], sizes) for row in (a, b))
        except ValueError:
            return None  # The sizes of a row share no seed.
        return compare(one, other)

    def fit(self, row: Row, at: int) -> FitBand | str:
        """Return the fitted curve of a row and its value at a size, or why there is none."""
        by_size = self.runs(row)
        seeds = _shared_seeds(self.protocol, [(row, by_size)])
        if len(by_size) < 2:
            return "fewer than two sizes"
        if seeds == ():
            return "no shared seed"
        found = self._resampled_curve(row, by_size, seeds)
        return found.reason or fit_interval(found, [at])

    def _measured(self, row: Row, size: int) -> MeasuredRuns:
        found = measured_at(self.protocol, self.evidence, row, self.metric, size)
        assert found is not None
        return found

    def _resampled_curve(
        self, row: Row, by_size: dict[int, RunPredictions], seeds: tuple[int, ...] | None
    ) -> ResampledCurve:
        key = (row.key, tuple(by_size), seeds)
        if key not in self._resampled:
            kept = {
                size: runs if runs.deterministic and len(runs.seeds) == 1 else _only(runs, seeds)
                for size, runs in by_size.items()
            }
            curve = learning_curve(self.metric.name, self.evidence.truth, kept)
            n = 1 if seeds is None else len(seeds)
            if n not in self._drawn:
                self._drawn[n] = draw_resamples(n, self.evidence.n_subjects, RESAMPLES)
            self._resampled[key] = resample_curve(curve, self._drawn[n])
        return self._resampled[key]


def efficiency_table(
    protocol: Protocol, evidence: Evidence, metric: Metric, pairs: Sequence[Pair], name: str
) -> Table | None:
    """Return the size at which B matches A and the test of the whole curves for every pair.

    Parameters
    ----------
    metric : Metric
        The primary metric.
    pairs : sequence of Pair
        Pairs compared by this metric at the primary training size.

    Returns
    -------
    Table or None
        None if fewer than two training sizes were run.
    """
    if len(protocol.sizes) < 2 or not pairs:
        return None
    curves = Curves(protocol, evidence, metric)
    size = protocol.primary_size
    reached = [curves.efficiency(pair.a, pair.b, size) for pair in pairs]
    areas = [curves.area(pair.a, pair.b) for pair in pairs]
    adjusted = benjamini_hochberg([np.nan if each is None else each.p for each in areas])
    digits = digits_of(metric)
    return Table(
        name=name,
        title=f"Data efficiency and whole learning curves, {metric.label}, {protocol.name}",
        columns=(
            Column("pair", "A vs B"),
            Column("n", f"n at which B matches A at n={size}", numeric=True),
            Column("n_ci", "95 % CI", numeric=True),
            Column("area", "A - B, whole curve", numeric=True),
            Column("area_ci", "95 % CI", numeric=True),
            Column("p", "p", numeric=True),
            Column("p_bh", "BH p", numeric=True),
        ),
        rows=tuple(
            (
                pair_cell(pair),
                *_reached_cells(found),
                *_area_cells(whole, float(p), digits),
            )
            for pair, found, whole, p in zip(pairs, reached, areas, adjusted, strict=True)
        ),
        notes=(
            "B matches A: the training size at which B's mean across seeds, interpolated in log "
            f"n, first reaches A's; percentile interval of {RESAMPLES} crossed resamples of seeds "
            "and subjects (random seed 0), too narrow with few seeds; < and >: outside the range "
            "of training sizes.",
            "A - B, whole curve: mean difference over log n, positive values favour A; headline "
            "test, exploratory.",
        ),
    )


def reached_words(found: Efficiency | str) -> str:
    """Return the size with its interval, such as ``610 (95 % CI 430 to > 1000)``."""
    if isinstance(found, str) or np.isnan(found.n):
        return "n/a"
    low, high = (bound_words(n, found.n_min, found.n_max) for n in (found.low, found.high))
    point = bound_words(found.n, found.n_min, found.n_max)
    return f"{point} (95 % CI {low} to {high})" if "nan" not in (low, high) else point


def _reached_cells(found: Efficiency | str) -> tuple[Cell, Cell]:
    if isinstance(found, str):
        return Cell("n/a", {"value": np.nan, "reason": found}), Cell("n/a", {"value": np.nan})
    if np.isnan(found.n):
        return Cell("n/a", {"value": np.nan, "reason": found.reason}), Cell("n/a")
    bounds = [bound_words(n, found.n_min, found.n_max) for n in (found.low, found.high)]
    text = "[n/a]" if np.isnan(found.low) else f"[{bounds[0]}, {bounds[1]}]"
    values: dict[str, Number] = {"low": found.low, "high": found.high}
    return (
        Cell(bound_words(found.n, found.n_min, found.n_max), {"value": found.n}),
        Cell(text, values),
    )


def _area_cells(found: Comparison | None, adjusted: float, digits: int) -> tuple[Cell, ...]:
    if found is None:
        return tuple(Cell("n/a", {"value": np.nan}) for _ in range(4))
    low, high = found.improvement_interval
    return (
        Cell(number(found.improvement, digits), {"value": found.improvement}),
        Cell(interval(low, high, digits), {"low": low, "high": high}),
        Cell(p_value(found.p), {"value": found.p}),
        Cell(p_value(adjusted), {"value": adjusted}),
    )


def _shared_seeds(
    protocol: Protocol, parts: Sequence[tuple[Row, dict[int, RunPredictions]]]
) -> tuple[int, ...] | None:
    """Return the seeds that all runs share; None if every row is a single fit."""
    sets = [
        set(runs.seeds)
        for row, by_size in parts
        for size, runs in by_size.items()
        if not protocol.one_fit(row, size)
    ]
    return tuple(sorted(set.intersection(*sets))) if sets else None


def _only(runs: RunPredictions, seeds: tuple[int, ...] | None) -> RunPredictions:
    assert seeds is not None
    places = [runs.seeds.index(seed) for seed in seeds]
    return RunPredictions(runs.predictions[places], seeds, runs.deterministic)
