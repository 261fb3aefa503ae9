"""Means over seeds by row and training size, with marks for the best and similar rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench.report.evidence import Evidence
from bench.report.pairs import measured_at
from bench.report.select import Protocol, Row
from bench.report.table import Cell, Column, Table
from bench.report.words import digits_of, interval, number, one_line
from bench.stats.inference import compare, holm, interval_over_seeds
from bench.stats.metric import Metric
from bench.stats.metrics import metric_of

LEVEL = 0.05
"""Rows with a smaller Holm-adjusted p-value differ significantly from the best."""


def leaderboard(
    protocol: Protocol, evidence: Evidence, rows: Sequence[Row], metric: Metric, name: str
) -> Table:
    """Return a table of rows x training sizes: means over seeds, t intervals and seeds."""
    columns = [
        _marked(
            [score_cell(protocol, evidence, row, size, metric) for row in rows],
            *(protocol, evidence, rows, size, metric),
        )
        for size in protocol.sizes
    ]
    return Table(
        name=name,
        title=f"{metric.title} by training size, {protocol.name}",
        columns=(
            Column("arm", "model"),
            *(
                Column(
                    f"n{size}",
                    f"n={protocol.size_label(size)}{' †' if protocol.conditional(size) else ''}",
                    numeric=True,
                    minor=0 if size == protocol.primary_size else len(protocol.sizes) - place,
                )
                for place, size in enumerate(protocol.sizes)
            ),
        ),
        rows=tuple(
            (Cell(row.label, {"model": row.arm.model.name, "key": row.key}), *cells)
            for row, *cells in zip(rows, *columns, strict=True)
        ),
        notes=never_tested([metric]),
    )


def all_metrics(
    protocol: Protocol, evidence: Evidence, rows: Sequence[Row], names: Sequence[str], name: str
) -> Table:
    """Return a table of rows x metrics: means over seeds at the primary training size."""
    metrics = [metric_of(each) for each in names]
    size = protocol.primary_size
    columns = [
        _marked(
            [score_cell(protocol, evidence, row, size, metric, brief=True) for row in rows],
            *(protocol, evidence, rows, size, metric),
        )
        for metric in metrics
    ]
    return Table(
        name=name,
        title=f"All metrics at n={protocol.size_label(size)}, {protocol.name}",
        columns=(
            Column("arm", "model"),
            *(
                Column(m.name, _metric_title(m, protocol), numeric=True, minor=int(not m.tested))
                for m in metrics
            ),
        ),
        rows=tuple((Cell(row.label), *cells) for row, *cells in zip(rows, *columns, strict=True)),
        notes=(*never_tested(metrics), *_prevalence(protocol, evidence, names)),
    )


def never_tested(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Return a note on metrics for which there is no test against the best, if there are any."""
    labels = [metric.label for metric in metrics if metric.ranked and not metric.tested]
    if not labels:
        return ()
    return (f"{' and '.join(labels)}: not tested; only the best is marked.",)


def best_first(protocol: Protocol, evidence: Evidence, metric: Metric) -> list[Row]:
    """Sort rows by their mean at the primary size; rows without a mean come last."""

    def rank(row: Row) -> tuple[bool, float]:
        values = evidence.values(protocol.at(row, protocol.primary_size), metric.name)
        mean = float(np.mean(values)) if len(values) else np.nan
        if np.isnan(mean):
            return True, 0.0
        return False, -mean if metric.higher_is_better else mean

    return sorted(protocol.rows, key=rank)


def score_cell(
    protocol: Protocol,
    evidence: Evidence,
    row: Row,
    size: int,
    metric: Metric,
    *,
    brief: bool = False,
) -> Cell:
    """Return the cell of a row at a training size, which mentions failed and missing runs."""
    runs = protocol.at(row, size)
    values = evidence.values(runs, metric.name)
    defined = len(values) and not np.isnan(values).any()
    one_fit = protocol.one_fit(row, size)
    mean, low, high, n = (
        interval_over_seeds(values) if defined else (np.nan, np.nan, np.nan, len(values))
    )
    if one_fit:
        low = high = np.nan
    # A t interval may exceed the bounds of the metric.
    low, high = (float(np.clip(bound, *metric.bounds)) for bound in (low, high))
    digits = digits_of(metric)
    if not len(values):
        text = "" if runs.failed else "missing" if runs.asked else "not requested"
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


def _marked(
    cells: Sequence[Cell],
    protocol: Protocol,
    evidence: Evidence,
    rows: Sequence[Row],
    size: int,
    metric: Metric,
) -> list[Cell]:
    """Mark the best of a column and rows similar to it, if at least two rows have a mean."""
    means = np.array([cell.values["mean"] for cell in cells], dtype=np.float64)
    failed = np.array([cell.values["n_failed"] for cell in cells], dtype=bool)
    complete = means[~np.isnan(means) & ~failed]
    if not metric.ranked or not len(complete) or np.isnan(means).sum() > len(means) - 2:
        return list(cells)
    top = complete.max() if metric.higher_is_better else complete.min()
    best = [bool(mean == top and not bad) for mean, bad in zip(means, failed, strict=True)]
    tied = untested = [False] * len(cells)
    if metric.tested:
        first = measured_at(protocol, evidence, rows[best.index(True)], metric, size)
        rivals = [not b and not np.isnan(mean) for b, mean in zip(best, means, strict=True)]
        others = [
            measured_at(protocol, evidence, row, metric, size) if rival else None
            for row, rival in zip(rows, rivals, strict=True)
        ]
        assert first is not None
        p = holm([np.nan if each is None else compare(first, each).p for each in others])
        tied = [bool(q >= LEVEL) for q in p]
        # Without a test (a single run or no variance), rows are marked as untested, not tied.
        untested = [
            each is not None and bool(np.isnan(q)) for each, q in zip(others, p, strict=True)
        ]
    return [
        replace(cell, bold=is_best, tied=is_tied, untested=is_untested)
        for cell, is_best, is_tied, is_untested in zip(cells, best, tied, untested, strict=True)
    ]


def _metric_title(metric: Metric, protocol: Protocol) -> str:
    if metric.name.startswith("auc_"):
        name = one_line(protocol.dataset["classes"][int(metric.name[4:])])
        return f"AUC, {name} vs. rest"
    return metric.title


def _prevalence(protocol: Protocol, evidence: Evidence, names: Sequence[str]) -> tuple[str, ...]:
    """Return a note on the proportion of positives, the average precision at chance."""
    if "average_precision" not in names or not len(evidence.truth):
        return ()
    share = number(float(np.mean(evidence.truth == 1)), 3)
    positive = one_line(protocol.dataset["classes"][1])
    return (
        f"{positive}: {share} of the test subjects, which is the average precision of a random "
        "classifier.",
    )
