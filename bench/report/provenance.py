"""What computed the runs, and the command that repeats each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from bench.report.select import Protocol, read
from bench.report.table import Cell, Column, Table
from bench.report.words import one_line
from bench.store import schema
from bench.store.store import Store

SHOWN = {
    "slicebench": "slicebench",
    "git": "revision",
    "python": "Python",
    "torch": "torch",
    "timm": "timm",
    "numpy": "NumPy",
    "gpu": "GPU",
    "cpu": "processor",
    "threads": "threads a run",
    "system": "system",
}
"""What is shown of the record of a run's environment, with titles."""


def environments_of(store: Store, protocol: Protocol) -> list[dict[str, Any]]:
    """Return the different environments of a protocol's runs, as far as they are shown."""
    trials, environments = schema.trials.c, schema.environments.c
    arms = [row.key for row in protocol.rows]
    used = select(trials.environment).where(trials.arm.in_(arms))
    rows = read(store, select(environments.content).where(environments.key.in_(used)))
    shown = [{name: row["content"].get(name) for name in SHOWN} for row in rows]
    return [dict(pairs) for pairs in dict.fromkeys(tuple(each.items()) for each in shown)]


def environment_table(environments: Sequence[Mapping[str, Any]], name: str) -> Table:
    """Return the machines and versions, a row each."""
    shown = [key for key in SHOWN if any(each.get(key) is not None for each in environments)]
    return Table(
        name=name,
        title="Machines and versions",
        columns=tuple(Column(key, SHOWN[key]) for key in shown),
        rows=tuple(
            tuple(Cell(_word(each.get(key)), {"value": each.get(key)}) for key in shown)
            for each in environments
        ),
    )


def _word(value: Any) -> str:
    return "n/a" if value is None else one_line(str(value))
