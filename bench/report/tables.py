"""From the store to a `Report`: leaderboards, tests of the differences, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bench.report.claims import captions, facts, methods
from bench.report.cost import cost_table
from bench.report.evidence import Evidence, load_evidence
from bench.report.failures import failure_table, find_failures
from bench.report.pairs import Pair, make_pairs, pair_tables, seed_table
from bench.report.select import Protocol, Row, select_protocols
from bench.report.table import Cell, Column, Report, Section, Table
from bench.report.words import count, interval, number, one_line
from bench.stats.inference import interval_over_seeds
from bench.stats.metrics import Metric, metrics_for, primary_metric
from bench.stats.metrics import metric as metric_of
from bench.store.store import Store
from registry.core import did_you_mean
from registry.errors import UserError

MANY = 8
"""Rows from which models are compared with a reference instead of all with all."""
BASELINES = ("linear-voxels", "prior")
"""The reference where nobody names one, in order; without these it is the best model."""


def build_report(
    store: Store,
    *,
    metric: str | None = None,
    reference: str | None = None,
    where: Mapping[str, str] | None = None,
) -> Report:
    """Compute everything that is shown of a database.

    Parameters
    ----------
    store : Store
        Open for reading.
    metric : str, optional
        A metric or ``all``; default: the primary one of each task.
    reference : str, optional
        Model or label of the row that all others are compared with; default: all pairs, from
        `MANY` rows on a baseline.
    where : mapping, optional
        Key of a protocol (or ``dataset``) to the value wanted; default: what the latest command
        with results asked for.

    Raises
    ------
    UserError
        When nothing is finished, or a metric, reference or ``where`` fits nothing.
    """
    selection = select_protocols(store, where or {})
    _check_metric(metric, selection.protocols)
    if reference is not None:
        _check_reference(reference, selection.protocols)
    sections = [
        _section(store, protocol, metrics, reference, _prefix(protocol, i, selection.protocols))
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


def flow_table(flow: Sequence[tuple[str, int]], sides: Mapping[str, int], name: str) -> Table:
    """Return how many scans were found, left out for which reason, and used, and by whom."""
    words = {"pool": "to train on", "train": "to train on"}
    people = [(f"subjects {words.get(side, f'in {side}')}", n) for side, n in sides.items()]
    steps = [*flow, *people]
    return Table(
        name=name,
        title="Flow of scans and subjects",
        columns=(Column("step", "step"), Column("n", "n", numeric=True)),
        rows=tuple(
            (Cell(one_line(str(what)), {"step": one_line(str(what))}), Cell(str(n), {"n": int(n)}))
            for what, n in steps
        ),
    )


def leaderboard(
    protocol: Protocol, evidence: Evidence, rows: Sequence[Row], metric: Metric, name: str
) -> Table:
    """Return rows x training sizes: the mean over seeds, its t interval and how many seeds."""
    columns = [
        [_score_cell(protocol, evidence, row, size, metric) for row in rows]
        for size in protocol.sizes
    ]
    marked = [_mark_best(cells, metric) for cells in columns]
    unit = f" ({metric.unit})" if metric.unit else ""
    return Table(
        name=name,
        title=f"{metric.label}{unit} by training size, {protocol.name}",
        columns=(
            Column("arm", "model"),
            *(
                Column(
                    f"n{size}",
                    f"n={protocol.size_label(size)}{' †' if protocol.conditional(size) else ''}",
                    numeric=True,
                )
                for size in protocol.sizes
            ),
        ),
        rows=tuple(
            (Cell(row.label, {"model": row.arm.model.name, "key": row.key}), *cells)
            for row, *cells in zip(rows, *marked, strict=True)
        ),
    )


def all_metrics(
    protocol: Protocol, evidence: Evidence, rows: Sequence[Row], names: Sequence[str], name: str
) -> Table:
    """Return rows x metrics at the primary training size: means over seeds."""
    metrics = [metric_of(each) for each in names]
    size = protocol.primary_size
    marked = [
        _mark_best(
            [_score_cell(protocol, evidence, row, size, metric, brief=True) for row in rows], metric
        )
        for metric in metrics
    ]
    return Table(
        name=name,
        title=f"All metrics at n={protocol.size_label(size)}, {protocol.name}",
        columns=(
            Column("arm", "model"),
            *(Column(m.name, _metric_title(m, protocol), numeric=True) for m in metrics),
        ),
        rows=tuple((Cell(row.label), *cells) for row, *cells in zip(rows, *marked, strict=True)),
    )


def digits_of(metric: Metric) -> int:
    """Return the decimals of a metric: hundredths of a year, thousandths of what has no unit."""
    return 2 if metric.unit else 3


# ---------------------------------------------------------------------------- sections


def _section(
    store: Store,
    protocol: Protocol,
    metrics: Sequence[Metric],
    reference: str | None,
    prefix: str,
) -> Section:
    evidence = load_evidence(store, protocol)
    primary = metric_of(primary_metric(protocol.kind, protocol.n_classes))
    tables = [
        leaderboard(
            protocol,
            evidence,
            _best_first(protocol, evidence, metric),
            metric,
            f"{prefix}leaderboard-{metric.name}",
        )
        for metric in metrics
    ]
    rows = _best_first(protocol, evidence, primary)
    against = _reference(reference, rows)
    family, others = _families(protocol, evidence, rows, metrics, against)
    tables += pair_tables(protocol, family, others, prefix)
    over_seeds = seed_table(protocol, evidence, family, prefix)
    if over_seeds is not None:
        tables.append(over_seeds)
    names = metrics_for(protocol.kind, protocol.n_classes)
    tables.append(all_metrics(protocol, evidence, rows, names, f"{prefix}metrics"))
    cost = cost_table(store, protocol, evidence, rows, primary, f"{prefix}cost")
    if cost is not None:
        tables.append(cost)
    data = protocol.dataset
    sides = {side: int(data[f"n_{side}"]) for side in ("pool", "validation", "test")}
    tables.append(flow_table(data["flow"], sides, f"{prefix}flow"))
    failures = find_failures(store, protocol)
    if failures:
        tables.append(failure_table(failures, f"{prefix}failures"))
    notes = facts(protocol, evidence)
    if against is not None and reference is None:
        notes.append(
            f"{len(rows)} models are compared with {against.label} only; --reference names another."
        )
    if against is None and reference is not None:
        notes.append(f"{reference} was not run here, so all pairs are compared.")
    if failures:
        notes.append(
            f"{count(len(failures), 'run')} without a result: means and tests are of the runs that "
            "succeeded, and a cell with a failed run is never marked as the best."
        )
    label = f"{primary.label} at n={protocol.size_label(protocol.primary_size)}"
    versus = "all pairs" if against is None else f"each model against {against.label}"
    return Section(
        title=protocol.name,
        tables=tuple(tables),
        caption=tuple(captions(protocol, evidence, metrics)),
        notes=tuple(notes),
        methods=tuple(methods(protocol, f"{label}, {versus}", len(family))),
    )


def _families(
    protocol: Protocol,
    evidence: Evidence,
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    reference: Row | None,
) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs of the primary family and all others, which are exploratory."""
    primary = primary_metric(protocol.kind, protocol.n_classes)
    family: list[Pair] = []
    others: list[Pair] = []
    for metric in metrics:
        if not metric.tested:
            continue
        # The primary size comes first, the others follow in their order.
        for size in sorted(protocol.sizes, key=lambda n: (n != protocol.primary_size, n)):
            declared = metric.name == primary and size == protocol.primary_size
            pairs = make_pairs(protocol, evidence, rows, metric, size, reference)
            (family if declared else others).extend(pairs)
    return family, others


def _prefix(protocol: Protocol, index: int, protocols: Sequence[Protocol]) -> str:
    """Return what makes the names of a section's tables unique."""
    return "" if len(protocols) == 1 else f"{one_line(protocol.dataset['name'])}-{index + 1}-"


def _metrics(asked: str | None, protocol: Protocol) -> list[Metric]:
    names = metrics_for(protocol.kind, protocol.n_classes)
    if asked is None:
        return [metric_of(primary_metric(protocol.kind, protocol.n_classes))]
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


def _check_reference(reference: str, protocols: Sequence[Protocol]) -> None:
    """Refuse a reference that no section has, or of which one has several."""
    named = [_named(reference, protocol.rows) for protocol in protocols]
    for rows in named:
        if len(rows) > 1:
            raise UserError(
                f"--reference {reference} fits {len(rows)} rows; name one of {_quoted(rows)}."
            )
    if not any(named):
        rows = [row for protocol in protocols for row in protocol.rows]
        known = [name for row in rows for name in (row.label, row.arm.model.name)]
        raise UserError(
            f"--reference {reference}: that was not run{did_you_mean(reference, known)}; there "
            f"are {_quoted(rows)}."
        )


def _named(reference: str, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of that label or, if there is none, of that model."""
    by_label = [row for row in rows if row.label == reference]
    return by_label or [row for row in rows if row.arm.model.name == reference]


def _quoted(rows: Sequence[Row]) -> str:
    return ", ".join(repr(label) for label in sorted({row.label for row in rows}))


def _reference(asked: str | None, rows: Sequence[Row]) -> Row | None:
    """Return the row that all others are compared with, None for all pairs."""
    if asked is not None:
        return next(iter(_named(asked, rows)), None)
    if len(rows) < MANY:
        return None
    for name in BASELINES:
        if found := _named(name, rows):
            return found[0]
    return rows[0]


def _metric_title(metric: Metric, protocol: Protocol) -> str:
    if metric.name.startswith("auc_"):
        name = one_line(protocol.dataset["classes"][int(metric.name[4:])])
        return f"AUC, {name} against the rest"
    return f"{metric.label} ({metric.unit})" if metric.unit else metric.label


# ---------------------------------------------------------------------------- cells


def _best_first(protocol: Protocol, evidence: Evidence, metric: Metric) -> list[Row]:
    """Order rows by their mean at the primary size; those without one come last."""

    def rank(row: Row) -> tuple[bool, float]:
        values = evidence.values(protocol.at(row, protocol.primary_size), metric.name)
        mean = float(np.mean(values)) if len(values) else np.nan
        if np.isnan(mean):
            return True, 0.0
        return False, -mean if metric.higher_is_better else mean

    return sorted(protocol.rows, key=rank)


def _score_cell(
    protocol: Protocol,
    evidence: Evidence,
    row: Row,
    size: int,
    metric: Metric,
    *,
    brief: bool = False,
) -> Cell:
    """Return one cell; a failed or missing run is said, never averaged over in silence."""
    runs = protocol.at(row, size)
    values = evidence.values(runs, metric.name)
    defined = len(values) and not np.isnan(values).any()
    one_fit = protocol.one_fit(row, size)
    mean, low, high, n = (
        interval_over_seeds(values) if defined else (np.nan, np.nan, np.nan, len(values))
    )
    if one_fit:
        low = high = np.nan
    digits = digits_of(metric)
    if not len(values):
        text = "" if runs.failed else "missing"
    elif not defined:
        text = "undefined"
    elif brief:
        text = number(mean, digits)
    elif one_fit:
        text = f"{number(mean, digits)} 1 fit"
    else:
        text = f"{number(mean, digits)} {interval(low, high, digits)} n={n}"
    troubles = [
        f"{len(seeds)} of {runs.asked} {word}"
        for seeds, word in ((runs.failed, "failed"), (runs.missing, "missing"))
        if seeds and text != "missing"
    ]
    if troubles:
        text = f"{text} ({', '.join(troubles)})" if text else ", ".join(troubles)
    return Cell(
        text,
        {
            "metric": metric.name,
            "n_train": size,
            "mean": mean,
            "low": low,
            "high": high,
            "n_seeds": n,
            "n_fits": min(n, 1) if one_fit else n,
            "n_failed": len(runs.failed),
            "n_missing": len(runs.missing),
        },
    )


def _mark_best(cells: Sequence[Cell], metric: Metric) -> list[Cell]:
    """Mark the best of a column; without a rival, or where a metric does not rank, none is."""
    means = np.array([cell.values["mean"] for cell in cells], dtype=np.float64)
    failed = np.array([cell.values["n_failed"] for cell in cells], dtype=bool)
    complete = means[~np.isnan(means) & ~failed]
    if not metric.ranked or not len(complete) or np.isnan(means).sum() > len(means) - 2:
        return list(cells)
    best = complete.max() if metric.higher_is_better else complete.min()
    return [
        Cell(cell.text, cell.values, bold=bool(mean == best and not bad))
        for cell, mean, bad in zip(cells, means, failed, strict=True)
    ]
