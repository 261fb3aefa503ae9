"""The tables of an export, read from the database in batches."""

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
"""Number of rows to keep in memory."""

STORED: dict[str, tuple[SqlTable, str]] = {
    "metrics": (schema.metrics, "one row per trial, split and metric; reason: why it is undefined"),
    "history": (
        schema.history,
        "one row per trial and epoch; validation: the score that selects the best epoch",
    ),
    "studies": (schema.studies, "one row per tuning study; best: the tuned settings"),
    "tuning": (
        schema.tuning_trials,
        "one row per study and Optuna trial, evaluated on validation subjects only",
    ),
    "datasets": (schema.datasets, "one row per cohort with its settings, by fingerprint"),
    "arms": (
        schema.arms,
        "one row per arm, which is everything about a trial except its seed and training size; "
        "spec: JSON",
    ),
    "environments": (schema.environments, "versions and hardware, referred to by trials"),
    "commands": (schema.commands, "what was requested, and what was declared before the run"),
    "subjects": (schema.subjects, "one row per cohort and subject, with an index and no id"),
}
"""Tables that are exported as they are stored, with their descriptions in README.txt."""


@dataclass(frozen=True)
class Exported:
    """A table; `batches` are read lazily."""

    name: str
    about: str
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def exported_tables(connection: Connection, *, shareable: bool) -> Iterator[Exported]:
    """Yield all tables of an export.

    Parameters
    ----------
    connection : Connection
        A connection in a transaction, so that the tables are consistent.
    shareable : bool
        Whether to omit what `bench.export.shareable` lists.
    """
    yield _trials(connection, shareable=shareable)
    yield _predictions(connection)
    for name, (table, about) in STORED.items():
        if not shareable or name in COLUMNS:
            yield _stored(connection, name, table, about, shareable=shareable)


def stored_rows(
    connection: Connection, name: str, table: SqlTable, *, shareable: bool
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a stored table, sorted by primary key, in a form that can be shared."""
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
    """Return a value for a column; nested values are converted to JSON."""
    if value is None or kind != pa.string() or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------------------- trials


def _trials(connection: Connection, *, shareable: bool) -> Exported:
    """Return the trials with columns of their arms, and one column per setting and timing."""
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
    words = "one row per trial; param_*: its settings; timing_*: durations in seconds and costs"
    return Exported("trials", words, batch.schema, iter([batch]))


def _column(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    """Return an array with one type; values of several types are converted to text."""
    if kind is not None:
        return pa.array([_plain(value, kind) for value in values], kind)
    found = {type(value) for value in values if value is not None}
    for types, arrow in (({bool}, pa.bool_()), ({int}, pa.int64()), ({int, float}, pa.float64())):
        if found and found <= types:
            # An integer that is too large for its column is stored exactly as text.
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
        # Sorted by primary key without joins, so that SQLite need not sort the arrays on disk.
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
        "one row per trial, split and subject; predicted_*: prediction in the unit of the target; "
        "p_*: probability of a class, for two classes only of the second; columns of other cohorts "
        "are empty"
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
            "exported; restore the database from a backup."
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
