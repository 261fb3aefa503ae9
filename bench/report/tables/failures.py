"""Failed runs: runs that diverged, raised an error or were killed are always reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from bench.report.select import Protocol, Row, read_rows
from bench.report.table import Cell, Column, Table
from bench.report.words import one_line
from bench.spec import StudySpec, TrialSpec
from bench.store import schema
from bench.store.store import DONE, FAILED, Store

LOG_LINES = 20
"""The number of lines of a log that an HTML report shows."""


@dataclass(frozen=True)
class Failure:
    """A failed run, with its error and the end of its log."""

    row: Row
    size: int
    seed: int
    state: str
    """``failed`` (it raised an error or diverged) or ``killed`` (by a signal)."""
    error: str
    tail: tuple[str, ...]
    """The last lines of its log, if there is one."""
    when: datetime


def find_failures(store: Store, protocol: Protocol) -> tuple[Failure, ...]:
    """Return the failed and killed runs of a protocol, by row, training size and seed."""
    table = schema.attempts.c
    query = (
        select(table.unit, table.state, table.error, table.log, table.finished)
        .where(table.state != DONE)
        .order_by(table.finished)
    )
    attempts = {attempt["unit"]: attempt for attempt in read_rows(store, query)}
    failed = {
        (trial["arm"], trial["n_train"], trial["seed"]): trial
        for trial in protocol.trials
        if trial["state"] == FAILED
    }
    found = []
    for row in protocol.rows:
        for size in protocol.sizes:
            runs = protocol.at(row, size)
            for seed in runs.failed:
                trial = failed[row.key, size, seed]
                log = attempts.get(trial["key"], {}).get("log")
                found.append(_failure(row, size, seed, {**trial, "log": log}))
            for seed in runs.missing if attempts else ():
                attempt = _attempt(attempts, row, size, seed)
                if attempt is not None:
                    found.append(_failure(row, size, seed, attempt))
    return tuple(found)


def failure_table(failures: tuple[Failure, ...], name: str) -> Table:
    """Return the table of failures."""
    return Table(
        name=name,
        title="Failed runs",
        columns=(
            Column("arm", "model"),
            Column("n_train", "train n", numeric=True),
            Column("seed", "seed", numeric=True),
            Column("state", "state"),
            Column("error", "error"),
            Column("log", "last line of the log"),
        ),
        rows=tuple(
            (
                Cell(failure.row.label),
                Cell(str(failure.size), {"value": failure.size}),
                Cell(str(failure.seed), {"value": failure.seed}),
                Cell(failure.state),
                Cell(failure.error),
                Cell(one_line(failure.tail[-1]) if failure.tail else ""),
            )
            for failure in failures
        ),
    )


def log_table(failures: tuple[Failure, ...], name: str) -> Table:
    """Return the last lines of the logs of failed runs, one per row."""
    return Table(
        name=name,
        title="Last log lines of failed runs",
        columns=(
            Column("arm", "model"),
            Column("n_train", "train n", numeric=True),
            Column("seed", "seed", numeric=True),
            Column("line", "line"),
        ),
        rows=tuple(
            (
                Cell(failure.row.label),
                Cell(str(failure.size), {"value": failure.size}),
                Cell(str(failure.seed), {"value": failure.seed}),
                Cell(one_line(line)),
            )
            for failure in failures
            for line in failure.tail[-LOG_LINES:]
        ),
    )


def _attempt(attempts: Mapping[str, Any], row: Row, size: int, seed: int) -> Any:
    """Return the last attempt at a trial, or at the study on which it depends."""
    trial = attempts.get(TrialSpec.of(row.arm, size, seed).key)
    study = StudySpec.of(row.arm, size, seed)
    return attempts.get(study.key) if trial is None and study is not None else trial


def _failure(row: Row, size: int, seed: int, record: Mapping[str, Any]) -> Failure:
    return Failure(
        row=row,
        size=size,
        seed=seed,
        state=record["state"],
        error=one_line(record["error"] or ""),
        tail=tuple((record["log"] or "").strip().splitlines()),
        when=record["finished"],
    )
