"""The table of ``bench status``: finished, failed and missing runs."""

from __future__ import annotations

import shlex
from collections import Counter

from sqlalchemy import select

from bench.report.select import Protocol, read_rows, select_protocols
from bench.report.table import Report, Section
from bench.report.tables.failures import failure_table, find_failures
from bench.report.tables.flow import coverage_table
from bench.report.words import one_line
from bench.store import schema
from bench.store.store import Store
from registry.core import counted

LAST = 10
"""The number of failures listed for each protocol, the newest first."""


def build_status(store: Store) -> Report:
    """Count the finished, failed, killed and planned runs of each protocol of a database.

    Parameters
    ----------
    store : Store
        Open for reading.

    Raises
    ------
    UserError
        If the database does not contain any runs.
    """
    protocols = select_protocols(store, {}, planned=True).protocols
    table = schema.commands.c
    newest = select(table.argv, table.created).order_by(table.created.desc(), table.id.desc())
    with store.engine.connect() as connection:
        argv, created = connection.execute(newest.limit(1)).one()
    return Report(
        title=f"slicebench: status of {one_line(store.name)}",
        sections=tuple(
            _section(store, protocol, number) for number, protocol in enumerate(protocols, 1)
        ),
        notes=(f"Last command ({created:%Y-%m-%d %H:%M} UTC): {one_line(shlex.join(argv))}",),
    )


def _section(store: Store, protocol: Protocol, number: int) -> Section:
    failures = find_failures(store, protocol)
    tables = [coverage_table(protocol, failures, f"status-{number}")]
    latest = tuple(sorted(failures, key=lambda failure: failure.when, reverse=True)[:LAST])
    if latest:
        tables.append(failure_table(latest, f"failures-{number}"))
    values = {k: v for k, v in protocol.values.items() if v is not None and k != "fingerprint"}
    return Section(
        title=protocol.name,
        tables=tuple(tables),
        caption=(", ".join(f"{key} {one_line(str(value))}" for key, value in values.items()),),
        notes=tuple(_studies(store, protocol)),
    )


def _studies(store: Store, protocol: Protocol) -> list[str]:
    """Return the number of tuning studies by state, and the errors of those that failed."""
    table = schema.studies.c
    labels = {row.key: row.label for row in protocol.rows}
    query = (
        select(table.arm, table.n_train, table.seed, table.state, table.error)
        .where(table.arm.in_(labels))
        .order_by(table.arm, table.n_train, table.seed)
    )
    studies = read_rows(store, query)
    counts = Counter(study["state"] for study in studies)
    if not counts:
        return []
    words = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    found = [f"Tuning: {counted(counts.total(), 'study', 'studies')} stored: {words}."]
    for study in studies:
        if study["error"]:
            seed = "" if study["seed"] is None else f" for seed {study['seed']}"
            place = f"{labels[study['arm']]} at {study['n_train']} subjects{seed}"
            found.append(f"Tuning of {place}: {one_line(study['error'])}.")
    return found
