"""From the store to a `Report`: leaderboards, tests of the differences, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.claims import captions, facts
from bench.report.evidence import Evidence, load_covariates, load_evidence
from bench.report.family import Design, check_reference, design_tests
from bench.report.methods import methods, software
from bench.report.pairs import Pair, make_pairs
from bench.report.select import Protocol, Row, select_protocols
from bench.report.table import Picture, Report, Section, Table
from bench.report.tables.age_gap import gap_table
from bench.report.tables.cost import cost_table
from bench.report.tables.efficiency import efficiency_table
from bench.report.tables.failures import Failure, failure_table, find_failures, log_table
from bench.report.tables.fits import fit_table
from bench.report.tables.flow import coverage_table, flow_table
from bench.report.tables.leaderboard import all_metrics, best_first, leaderboard
from bench.report.tables.pairs import pair_tables, seed_table
from bench.report.tables.precision import precision_table
from bench.report.tables.probabilities import calibration_table, operating_table
from bench.report.tables.provenance import environment_table, environments_of, trial_table
from bench.report.tables.subgroups import subgroups
from bench.report.words import count, one_line
from bench.stats.metric import Metric
from bench.stats.metrics import metric as metric_of
from bench.stats.metrics import metrics_for
from bench.store.store import Store
from registry.core import did_you_mean
from registry.errors import UserError


def build_report(
    store: Store,
    *,
    metric: str | None = None,
    reference: str | None = None,
    where: Mapping[str, str] | None = None,
    appendix: bool = False,
    pictures: bool = False,
) -> Report:
    """Compute everything that is shown of a database.

    Parameters
    ----------
    store : Store
        Open for reading.
    metric : str, optional
        A metric or ``all``; default: the primary one of each task.
    reference : str, optional
        Model or label of the row that all others are compared with; default: what was declared,
        else all pairs, or a baseline where there are many rows.
    where : mapping, optional
        Key of a protocol (or ``dataset``) to the value wanted; default: what the latest command
        with results asked for.
    appendix : bool
        Add the tables for which a terminal has no room.
    pictures : bool
        Draw the figures, for a page that shows them.

    Raises
    ------
    UserError
        When nothing is finished, or a metric, reference or ``where`` fits nothing.
    """
    selection = select_protocols(store, where or {})
    _check_metric(metric, selection.protocols)
    if reference is not None:
        check_reference(reference, selection.protocols)
    sections = [
        _section(
            store,
            protocol,
            metrics,
            reference,
            _prefix(protocol, i, selection.protocols),
            appendix=appendix,
            pictures=pictures,
        )
        for i, protocol in enumerate(selection.protocols)
        if (metrics := _metrics(metric, protocol))
    ]
    return Report(
        title=f"slicebench: {one_line(store.file.name)}",
        sections=tuple(sections),
        notes=tuple(
            f"Not shown, because it may not be compared with this: bench report {words}"
            for words in selection.others
        ),
    )


@dataclass(frozen=True)
class _Shown:
    """What the tables of a section are made of; rows are best first by the primary metric."""

    store: Store
    protocol: Protocol
    evidence: Evidence
    primary: Metric
    rows: Sequence[Row]
    design: Design
    family: Sequence[Pair]
    failures: tuple[Failure, ...]
    prefix: str

    @property
    def is_whole(self) -> bool:
        """Whether every run that was asked for has a result."""
        return all(not runs.failed and not runs.missing for runs in self.protocol.runs.values())


def _section(
    store: Store,
    protocol: Protocol,
    metrics: Sequence[Metric],
    reference: str | None,
    prefix: str,
    *,
    appendix: bool,
    pictures: bool,
) -> Section:
    evidence = load_evidence(store, protocol)
    primary = metric_of(protocol.primary_metric)
    rows = best_first(protocol, evidence, primary)
    design = design_tests(protocol, rows, reference)
    family, others = _pairs(protocol, evidence, rows, metrics, design)
    failures = find_failures(store, protocol)
    shown = _Shown(store, protocol, evidence, primary, rows, design, family, failures, prefix)
    boards = [
        leaderboard(
            protocol,
            evidence,
            best_first(protocol, evidence, metric),
            metric,
            f"{prefix}leaderboard-{metric.name}",
        )
        for metric in metrics
    ]
    tests = pair_tables(protocol, design, family, others, prefix)
    notes = [*design.notes, *facts(protocol, evidence)]
    if failures:
        notes.append(
            f"{count(len(failures), 'run')} without a result: means and tests are of the runs that "
            "succeeded, and a cell with a failed run is never marked as the best."
        )
    figures: tuple[Picture, ...] = ()
    if pictures:
        from bench.report.plots import pictures_for

        figures = pictures_for(store, protocol, evidence, rows, reference)
    environments = environments_of(store, protocol)
    return Section(
        title=protocol.name,
        tables=(*boards, *tests, *_tables(shown)),
        caption=tuple(captions(protocol, evidence, metrics)),
        notes=tuple(notes),
        methods=(*methods(protocol, design, family), *software(environments)),
        pictures=figures,
        appendix=_appendix(shown, environments) if appendix else (),
    )


def _tables(shown: _Shown) -> tuple[Table, ...]:
    """Return what every format shows after the leaderboards and tests."""
    store, protocol, evidence, prefix = shown.store, shown.protocol, shown.evidence, shown.prefix
    primary, rows, family, failures = shown.primary, shown.rows, shown.family, shown.failures
    names = metrics_for(protocol.kind, protocol.n_classes)
    data = protocol.dataset
    sides = {side: int(data[f"n_{side}"]) for side in ("pool", "validation", "test")}
    found = (
        seed_table(protocol, evidence, family, prefix),
        efficiency_table(protocol, evidence, primary, family, f"{prefix}efficiency"),
        all_metrics(protocol, evidence, rows, names, f"{prefix}metrics"),
        gap_table(store, protocol, evidence, rows, f"{prefix}gap"),
        cost_table(store, protocol, evidence, rows, primary, f"{prefix}cost"),
        flow_table(data["flow"], sides, f"{prefix}flow"),
        None if shown.is_whole else coverage_table(protocol, failures, f"{prefix}coverage"),
        failure_table(failures, f"{prefix}failures") if failures else None,
    )
    return tuple(table for table in found if table is not None)


def _appendix(shown: _Shown, environments: Sequence[Mapping[str, Any]]) -> tuple[Table, ...]:
    """Return what only pages and files for machines have room for."""
    store, protocol, evidence, prefix = shown.store, shown.protocol, shown.evidence, shown.prefix
    primary, rows, failures = shown.primary, shown.rows, shown.failures
    covariates = load_covariates(store, protocol, evidence)
    title = f"Precision of {shown.design.words}"
    found = (
        precision_table(shown.family, title, f"{prefix}precision"),
        fit_table(protocol, evidence, primary, rows, f"{prefix}fits"),
        subgroups(protocol, evidence, covariates, rows, primary, f"{prefix}subgroups"),
        calibration_table(protocol, evidence, rows, f"{prefix}calibration"),
        operating_table(store, protocol, evidence, rows, f"{prefix}operating"),
        coverage_table(protocol, failures, f"{prefix}coverage") if shown.is_whole else None,
        environment_table(environments, f"{prefix}environments"),
        trial_table(store, protocol, evidence, primary, f"{prefix}runs"),
        log_table(failures, f"{prefix}logs") if failures else None,
    )
    return tuple(table for table in found if table is not None)


def _pairs(
    protocol: Protocol,
    evidence: Evidence,
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    design: Design,
) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs of the primary cell and all others."""
    family: list[Pair] = []
    others: list[Pair] = []
    for metric in metrics:
        if not metric.tested:
            continue
        # The primary size comes first, the others follow in their order.
        for size in sorted(protocol.sizes, key=lambda n: (n != protocol.primary_size, n)):
            primary = (metric.name, size) == (protocol.primary_metric, protocol.primary_size)
            pairs = make_pairs(protocol, evidence, rows, metric, size, design.reference)
            (family if primary else others).extend(pairs)
    return family, others


def _prefix(protocol: Protocol, index: int, protocols: Sequence[Protocol]) -> str:
    """Return what makes the names of a section's tables unique."""
    return "" if len(protocols) == 1 else f"{one_line(protocol.dataset['name'])}-{index + 1}-"


def _metrics(asked: str | None, protocol: Protocol) -> list[Metric]:
    names = metrics_for(protocol.kind, protocol.n_classes)
    if asked is None:
        return [metric_of(protocol.primary_metric)]
    return [metric_of(name) for name in names if asked in ("all", name)]


def _check_metric(asked: str | None, protocols: Sequence[Protocol]) -> None:
    if asked is None or any(_metrics(asked, protocol) for protocol in protocols):
        return
    known = dict.fromkeys(
        name for each in protocols for name in metrics_for(each.kind, each.n_classes)
    )
    raise UserError(
        f"--metric {asked}: there is no such metric of these results"
        f"{did_you_mean(asked, known)}; there are {', '.join(known)}, and all."
    )
