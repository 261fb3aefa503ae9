"""The computational cost of every row: size, arithmetic, time and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import select

from bench.report.evidence import Evidence
from bench.report.select import Protocol, Row
from bench.report.table import Cell, Column, Table
from bench.report.tables.provenance import machine_of
from bench.report.words import number
from bench.stats.metric import Metric
from bench.store import schema
from bench.store.store import Store
from registry.core import counted

Timings = Mapping[str, Any]
MEASURES: tuple[tuple[str, str, Callable[[Timings], float], int], ...] = (
    ("parameters", "parameters (M)", lambda t: t["parameters"] / 1e6, 2),
    ("multiply_adds", "multiply-adds (G)", lambda t: t["multiply_adds"] / 1e9, 2),
    ("train", "training (s)", lambda t: t["train"], 1),
    ("epoch", "epoch (s)", lambda t: t["train"] / t["epochs"], 2),
    ("volumes_per_s", "volumes/s", lambda t: t["volumes_per_s"], 1),
    ("peak_rss_mb", "memory (GB)", lambda t: t["peak_rss_mb"] / 1024, 2),
    ("peak_vram_mb", "GPU memory (GB)", lambda t: t["peak_vram_mb"] / 1024, 2),
)
"""Key, title, function of a run's record, and digits."""


def cost_table(
    store: Store,
    protocol: Protocol,
    evidence: Evidence,
    rows: Sequence[Row],
    metric: Metric,
    name: str,
) -> Table | None:
    """Return accuracy against cost at the largest training size, medians over seeds.

    Parameters
    ----------
    store : Store
        Open for reading.
    protocol, evidence, rows
        The runs of the report, and its rows, best first.
    metric : Metric
        The primary metric.
    name : str
        The name of the table.

    Returns
    -------
    Table or None
        None if no cost was recorded.
    """
    size = max(protocol.sizes)
    keys = [key for row in rows for key in protocol.at(row, size).keys]
    records = _records(store, keys)
    measured = {
        (row.key, key): _median(records, protocol.at(row, size).keys, of)
        for row in rows
        for key, _, of, _ in MEASURES
    }
    shown = [m for m in MEASURES if any(measured[row.key, m[0]] is not None for row in rows)]
    if not shown:
        return None
    lines = []
    for row in rows:
        values = evidence.values(protocol.at(row, size), metric.name)
        mean = float(np.mean(values)) if len(values) else float("nan")
        cells = [Cell(row.label, {"model": row.arm.model.name, "key": row.key})]
        cells.append(Cell(number(mean, 3), {metric.name: mean}))
        for key, _, _, digits in shown:
            value = measured[row.key, key]
            text = "n/a" if value is None else number(value, digits)
            cells.append(Cell(text, {key: float("nan") if value is None else value}))
        lines.append(tuple(cells))
    return Table(
        name=name,
        title=f"Cost at n={protocol.size_label(size)}, {protocol.name}",
        columns=(
            Column("arm", "model"),
            Column("score", metric.label, numeric=True),
            *(Column(key, title, numeric=True) for key, title, _, _ in shown),
        ),
        rows=tuple(lines),
        notes=_notes(records, multiply_adds=any(key == "multiply_adds" for key, *_ in shown)),
    )


def _records(store: Store, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    trials, environments = schema.trials.c, schema.environments.c
    query = select(trials.key, trials.timings, trials.epochs, environments.content).join(
        schema.environments, trials.environment == environments.key
    )
    wanted = set(keys)
    with store.engine.connect() as connection:
        return {
            key: {**(timings or {}), "epochs": epochs, "environment": content}
            for key, timings, epochs, content in connection.execute(query)
            if key in wanted
        }


def _median(
    records: Mapping[str, Timings], keys: Sequence[str], of: Callable[[Timings], float]
) -> float | None:
    """Return the median of known values; older runs recorded less, estimators have no epochs."""
    found = []
    for key in keys:
        try:
            found.append(of(records[key]))
        except (KeyError, TypeError):
            continue
    return float(np.median(found)) if found else None


def _notes(records: Mapping[str, Timings], *, multiply_adds: bool) -> tuple[str, ...]:
    environments = [record["environment"] for record in records.values()]
    machines = sorted({f"{machine_of(each)}, {_threads(each)}" for each in environments})
    per_volume = "; multiply-adds per forward pass of one volume" if multiply_adds else ""
    notes = [f"Medians across seeds{per_volume}. Measured on {'; '.join(machines)}."]
    if len(machines) > 1:
        notes.append("Times from different machines are not comparable.")
    return tuple(notes)


def _threads(environment: Mapping[str, Any]) -> str:
    threads = environment.get("threads")
    return (
        "threads not recorded" if threads is None else f"{counted(int(threads), 'thread')} per run"
    )
