"""The parts of a report's section in their order, one line each.

A part is a function that takes `SectionData` and returns a table, several tables, or None if there
is nothing to show. Figures are listed in `bench.report.plots`, checklists in
`bench.report.checklists`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.report.data import SectionData
from bench.report.table import Table
from bench.report.tables.age_gap import gap_table
from bench.report.tables.cost import cost_table
from bench.report.tables.efficiency import efficiency_table
from bench.report.tables.failures import failure_table, log_table
from bench.report.tables.fits import fit_table
from bench.report.tables.flow import coverage_table, flow_table
from bench.report.tables.leaderboard import all_metrics, best_first, leaderboard
from bench.report.tables.pairs import pair_tables, seed_table
from bench.report.tables.precision import precision_table
from bench.report.tables.probabilities import calibration_table, operating_table
from bench.report.tables.provenance import environment_table, trial_table
from bench.report.tables.subgroups import subgroups

Part = Callable[[SectionData], Table | Sequence[Table] | None]


def _leaderboards(d: SectionData) -> list[Table]:
    return [
        leaderboard(
            d.protocol,
            d.evidence,
            best_first(d.protocol, d.evidence, metric),
            metric,
            d.name(f"leaderboard-{metric.name}"),
        )
        for metric in d.metrics
    ]


PARTS: tuple[Part, ...] = (
    _leaderboards,
    lambda d: pair_tables(d.protocol, d.test_plan, d.family, d.others, d.prefix),
    lambda d: seed_table(d.protocol, d.evidence, d.family, d.prefix),
    lambda d: efficiency_table(d.protocol, d.evidence, d.primary, d.family, d.name("efficiency")),
    lambda d: all_metrics(d.protocol, d.evidence, d.rows, d.names, d.name("metrics")),
    lambda d: gap_table(d.store, d.protocol, d.evidence, d.rows, d.name("gap")),
    lambda d: cost_table(d.store, d.protocol, d.evidence, d.rows, d.primary, d.name("cost")),
    lambda d: flow_table(d.protocol.dataset["flow"], d.sides, d.name("flow")),
    lambda d: None if d.is_whole else coverage_table(d.protocol, d.failures, d.name("coverage")),
    lambda d: failure_table(d.failures, d.name("failures")) if d.failures else None,
)
"""The parts that are included in all formats."""

APPENDIX: tuple[Part, ...] = (
    lambda d: precision_table(
        d.family, f"Precision of {d.test_plan.description}", d.name("precision")
    ),
    lambda d: fit_table(d.protocol, d.evidence, d.primary, d.rows, d.name("fits")),
    lambda d: subgroups(
        d.protocol, d.evidence, d.covariates, d.rows, d.primary, d.name("subgroups")
    ),
    lambda d: calibration_table(d.protocol, d.evidence, d.rows, d.name("calibration")),
    lambda d: operating_table(d.store, d.protocol, d.evidence, d.rows, d.name("operating")),
    lambda d: coverage_table(d.protocol, d.failures, d.name("coverage")) if d.is_whole else None,
    lambda d: environment_table(d.environments, d.name("environments")),
    lambda d: trial_table(d.store, d.protocol, d.evidence, d.primary, d.name("runs")),
    lambda d: log_table(d.failures, d.name("logs")) if d.failures else None,
)
"""The parts that are included in HTML, CSV and JSON only."""


def tables_of(parts: Sequence[Part], data: SectionData) -> tuple[Table, ...]:
    """Return the tables of these parts in order."""
    found: list[Table] = []
    for part in parts:
        made = part(data)
        if isinstance(made, Table):
            found.append(made)
        elif made is not None:
            found.extend(made)
    return tuple(found)
