"""The tables of an export: rows of the database as tidy columns, a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Column as SqlColumn
from sqlalchemy import Connection, Float, Integer, RowMapping, Select, select
from sqlalchemy import Table as SqlTable

from bench.export.shareable import CLEAN, COLUMNS
from bench.store import schema
from registry.cards import Task
from registry.errors import UserError

ROWS = 200_000
"""Rows that are in memory at a time."""

STORED: dict[str, tuple[SqlTable, str]] = {
    "metrics": (schema.metrics, "one row a trial, split and metric; reason: why it is undefined"),
    "history": (schema.history, "one row a trial and epoch; validation: the score that selects"),
    "studies": (schema.studies, "one row a tuning study; best: the settings it chose"),
    "tuning": (schema.tuning_trials, "one row a study and Optuna trial, on validation only"),
    "datasets": (schema.datasets, "one row a cohort as it was used, by fingerprint"),
    "arms": (schema.arms, "one row an arm: everything but seed and training size, as JSON"),
    "environments": (schema.environments, "versions and hardware that trials refer to"),
    "commands": (schema.commands, "what was asked for, and what was declared before the run"),
    "subjects": (schema.subjects, "one row a cohort and subject: an index, never an id"),
}
"""Tables that are exported as they are stored, with what a README says of them."""


@dataclass(frozen=True)
class Exported:
    """One table: `batches` are read while they are written."""

    name: str
    about: str
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def exported_tables(connection: Connection, *, shareable: bool) -> Iterator[Exported]:
    """Yield every table of an export.

    Parameters
    ----------
    connection : Connection
        In one transaction: the tables fit each other, whatever is written meanwhile.
    shareable : bool
        Leave out what `bench.export.shareable` says.
    """
    yield _trials(connection, shareable=shareable)
    yield _predictions(connection)
    for name, (table, about) in STORED.items():
        if not shareable or name in COLUMNS:
            yield _stored(connection, name, table, about, shareable=shareable)


def stored_rows(
    connection: Connection, name: str, table: SqlTable, *, shareable: bool
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a stored table by its primary key, cleaned if they are to be shared."""
    for row in connection.execute(_query(name, table, shareable)).mappings():
        yield _clean(name, row, shareable)


# ---------------------------------------------------------------------------- as stored


def _stored(
    connection: Connection, name: str, table: SqlTable, about: str, *, shareable: bool
) -> Exported:
    query = _query(name, table, shareable)
    columns = [column for column in query.selected_columns if isinstance(column, SqlColumn)]
    kinds = pa.schema([(column.name, _kind(column)) for column in columns])

    def batches() -> Iterator[pa.RecordBatch]:
        for part in connection.execute(query).mappings().partitions(ROWS // 4):
            rows = [_clean(name, row, shareable) for row in part]
            yield pa.record_batch(
                [
                    pa.array([_plain(row[field.name], field.type) for row in rows], field.type)
                    for field in kinds
                ],
                schema=kinds,
            )

    return Exported(name, about, kinds, batches())


def _query(name: str, table: SqlTable, shareable: bool) -> Select[Any]:
    columns = [column for column in table.columns if not shareable or column.name in COLUMNS[name]]
    return select(*columns).order_by(*table.primary_key)


def _clean(name: str, row: RowMapping, shareable: bool) -> dict[str, Any]:
    if not shareable:
        return dict(row)
    return {
        column: CLEAN[name, column](value) if (name, column) in CLEAN else value
        for column, value in row.items()
    }


def _kind(column: SqlColumn[Any]) -> pa.DataType:
    if isinstance(column.type, schema.UTCDateTime):
        return pa.timestamp("us", tz="UTC")
    if isinstance(column.type, Integer):
        return pa.int64()
    return pa.float64() if isinstance(column.type, Float) else pa.string()


def _plain(value: Any, kind: pa.DataType) -> Any:
    """Return a value as its column holds it: what is nested becomes JSON."""
    if value is None or kind != pa.string() or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------------------- trials


def _trials(connection: Connection, *, shareable: bool) -> Exported:
    """Return the trials with what their arm says, settings and timings as columns of their own."""
    about = {
        row["key"]: row
        for row in connection.execute(
            select(
                schema.arms.c.key,
                schema.datasets.c.name.label("dataset"),
                schema.arms.c.fingerprint,
                schema.datasets.c.target,
                schema.arms.c.model,
                schema.arms.c.encoder,
                schema.arms.c.spec["precision"].label("precision"),
            ).join_from(schema.arms, schema.datasets)
        ).mappings()
    }
    rows = []
    for row in stored_rows(connection, "trials", schema.trials, shareable=shareable):
        nested = {
            f"{prefix}_{name}": value
            for prefix, column in (("param", "params"), ("timing", "timings"))
            for name, value in (row.pop(column) or {}).items()
        }
        arm = {name: value for name, value in about[row["arm"]].items() if name != "key"}
        rows.append({"key": row.pop("key"), **arm, **row, **nested})
    names = dict.fromkeys(name for row in rows for name in row)
    fixed = {
        column.name: _kind(column) for table in (schema.trials, schema.arms) for column in table.c
    }
    columns = {name: _column([row.get(name) for row in rows], fixed.get(name)) for name in names}
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    words = "one row a trial; param_*: its settings, timing_*: what it took, seconds"
    return Exported("trials", words, batch.schema, iter([batch]))


def _column(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    """Return an array of one kind; settings of one name that are of several become texts."""
    if kind is not None:
        return pa.array([_plain(value, kind) for value in values], kind)
    found = {type(value) for value in values if value is not None}
    for types, arrow in (({bool}, pa.bool_()), ({int}, pa.int64()), ({int, float}, pa.float64())):
        if found and found <= types:
            # A whole number too large for its column stays exact as a text.
            with suppress(OverflowError, pa.ArrowInvalid):
                return pa.array(values, arrow)
    return pa.array([_plain(value, pa.string()) for value in values], pa.string())


# ---------------------------------------------------------------------------- predictions


def _predictions(connection: Connection) -> Exported:
    outputs = {
        row.fingerprint: Task(row.target, row.kind, tuple(row.classes)).output_names
        for row in connection.execute(select(schema.datasets))
    }
    cohort = {
        row.key: row.fingerprint
        for row in connection.execute(
            select(schema.trials.c.key, schema.arms.c.fingerprint).join_from(
                schema.trials, schema.arms
            )
        )
    }
    used = set(cohort.values())
    names = dict.fromkeys(
        name for fingerprint, names in outputs.items() if fingerprint in used for name in names
    )
    kinds = pa.schema(
        [
            ("trial", pa.string()),
            ("split", pa.string()),
            ("subject", pa.int32()),
            *((name, pa.float64()) for name in names),
        ]
    )
    table = schema.predictions

    def batches() -> Iterator[pa.RecordBatch]:
        # By primary key only: a join or another order would sort every array on disk.
        query = select(table).order_by(table.c.trial, table.c.split)
        rows: list[_Predicted] = []
        for row in connection.execute(query).mappings().yield_per(100):
            rows.append(_predicted(row, outputs[cohort[row["trial"]]]))
            if sum(len(each.subjects) for each in rows) >= ROWS:
                yield _batch(rows, kinds)
                rows = []
        if rows:
            yield _batch(rows, kinds)

    words = (
        "one row a trial, split and subject; predicted_*: in the target's unit; p_*: the "
        "probability of a class, of two classes the second's; columns of other cohorts are empty"
    )
    return Exported("predictions", words, kinds, batches())


@dataclass(frozen=True)
class _Predicted:
    trial: str
    split: str
    subjects: np.ndarray
    columns: Mapping[str, np.ndarray]


def _predicted(row: RowMapping, names: Sequence[str]) -> _Predicted:
    try:
        subjects = np.frombuffer(row["subjects"], "<i4")
        values = np.frombuffer(row["values"], "<f8").reshape(len(subjects), len(names))
    except ValueError:
        raise UserError(
            f"The {row['split']} predictions of trial {row['trial']} are damaged, so nothing was "
            "exported; restore the database from a copy."
        ) from None
    columns = dict(zip(names, values.T, strict=True))
    return _Predicted(row["trial"], row["split"], subjects, columns)


def _batch(rows: Sequence[_Predicted], kinds: pa.Schema) -> pa.RecordBatch:
    lengths = [len(row.subjects) for row in rows]
    index = pa.array(np.repeat(np.arange(len(rows)), lengths))

    def output(name: str) -> pa.Array:
        nothing = np.array([name not in row.columns for row in rows])
        parts = [row.columns.get(name, np.zeros(len(row.subjects))) for row in rows]
        return pa.array(np.concatenate(parts), mask=np.repeat(nothing, lengths))

    arrays = [
        pa.array([row.trial for row in rows]).take(index),
        pa.array([row.split for row in rows]).take(index),
        pa.array(np.concatenate([row.subjects for row in rows])),
        *(output(name) for name in kinds.names[3:]),
    ]
    return pa.record_batch(arrays, schema=kinds)
