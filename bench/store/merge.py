"""Merging the results of another database by their keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, text, update

from bench.store import schema
from bench.store.store import DONE, Store
from registry.errors import UserError

Row = dict[str, Any]

RESULTS: Mapping[Table, Sequence[str]] = {
    schema.predictions: ("split", "subjects", "outputs", "values"),
    schema.metrics: ("split", "metric", "value"),
    schema.history: ("epoch", "train_loss", "validation"),
}
"""The results of a trial, which must be equal in both databases; durations may differ."""

TUNING = ("number", "state", "params", "value", "intermediate")
"""The results of the trials of a study."""


@dataclass
class MergeResult:
    """What was added to a database, and the conflicts, one sentence each."""

    studies: list[str] = field(default_factory=list)
    """The keys of added studies."""
    trials: int = 0
    """The number of added trials, including those that replaced a failed one."""
    conflicts: list[str] = field(default_factory=list)


def merge(store: Store, other: Store) -> MergeResult:
    """Add the results of another database in one transaction.

    What is stored in both databases is kept, except that finished studies and trials replace
    failed ones. If the results of one that is finished in both differ, it is a conflict, and
    nothing with its key is changed.

    Parameters
    ----------
    store : Store
        The database to be changed; open for writing and locked.
    other : Store
        The database to be added; open for reading, and never changed.
    """
    with store.engine.begin() as target, other.snapshot() as source:
        merging = _Merge(target, source)
        merging.add_missing(schema.environments)
        merging.add_cohorts()
        merging.add_missing(schema.arms, lambda row: row["key"] in merging.arms)
        merging.add_studies()
        merging.add_trials(merging.add_commands())
        merging.add_missing(schema.attempts, lambda row: row["unit"] not in merging.left_out)
        return merging.result


def copy(store: Store, other: Store) -> int:
    """Copy all results of another database in one transaction; return the number of trials.

    Parameters
    ----------
    store : Store
        The database to be filled; open for writing and locked.
    other : Store
        The database to be copied; open for reading.

    Raises
    ------
    UserError
        If the database to be filled already contains something.
    """
    tables = schema.metadata.sorted_tables
    with store.engine.begin() as target, other.snapshot() as source:
        if any(target.execute(select(table).limit(1)).first() is not None for table in tables):
            raise UserError(
                f"The database {store.database} already contains results; use `bench merge` to add "
                "others to it."
            )
        for table in tables:
            rows = source.execute(select(table).execution_options(yield_per=500)).mappings()
            for part in rows.partitions():
                add_rows(target, table, [dict(row) for row in part])
        if target.dialect.name == "postgresql":
            # The server counts commands on from the largest id.
            target.execute(
                text(
                    "SELECT setval(pg_get_serial_sequence('bench_commands', 'id'), "
                    "(SELECT coalesce(max(id), 0) + 1 FROM bench_commands), false)"
                )
            )
        return int(target.scalar(select(func.count()).select_from(schema.trials)) or 0)


class _Merge:
    def __init__(self, target: Connection, source: Connection) -> None:
        self.target = target
        self.source = source
        self.result = MergeResult()
        self.arms = {row["key"]: row for row in read_rows(source, schema.arms)}
        """The arms of the source that can be added, by key."""
        self.left_out: set[str] = set()
        """The keys of studies and trials of the source that cannot be added."""

    def add_missing(self, table: Table, wanted: Callable[[Row], bool] = lambda row: True) -> None:
        """Add the rows with a key that is not stored yet."""
        (key,) = table.primary_key
        stored = set(self.target.scalars(select(key)))
        rows = [row for row in read_rows(self.source, table) if row[key.name] not in stored]
        add_rows(self.target, table, [row for row in rows if wanted(row)])

    def add_cohorts(self) -> None:
        """Add missing cohorts; arms of a cohort that differs are left out."""
        for row in read_rows(self.source, schema.datasets):
            fingerprint = row["fingerprint"]
            subjects = self._parts(self.source, schema.subjects, fingerprint)
            known = self._parts(self.target, schema.datasets, fingerprint)
            if not known:
                add_rows(self.target, schema.datasets, [row])
                add_rows(self.target, schema.subjects, subjects)
            elif {**known[0], "name": row["name"]} != row or subjects != self._parts(
                self.target, schema.subjects, fingerprint
            ):
                self.result.conflicts.append(
                    f"The cohort {row['name']} ({fingerprint}) differs, so no results on it were "
                    "added."
                )
                self.arms = {
                    key: arm for key, arm in self.arms.items() if arm["fingerprint"] != fingerprint
                }

    def add_commands(self) -> dict[int, int]:
        """Add missing commands, and return their ids in the target by those in the source."""
        stored = {_content(row): row["id"] for row in read_rows(self.target, schema.commands)}
        ids = {}
        for row in read_rows(self.source, schema.commands):
            content = _content(row)
            if content not in stored:
                values = {name: value for name, value in row.items() if name != "id"}
                added = self.target.execute(insert(schema.commands).values(**values))
                stored[content] = added.inserted_primary_key[0]  # type: ignore[index]
            ids[row["id"]] = stored[content]
        return ids

    def add_studies(self) -> None:
        """Add studies that are missing or failed."""
        table = schema.studies
        stored = {row["key"]: row for row in read_rows(self.target, table)}
        for row in read_rows(self.source, table):
            key, known = row["key"], stored.get(row["key"])
            if row["arm"] not in self.arms:
                self.left_out.add(key)
                continue
            if known is not None and known["state"] == DONE:
                # Trials that were tuned by a study with another result are left out as well.
                if self._other_tuning(known, row):
                    self.left_out.add(key)
                    if row["state"] == DONE:
                        self.result.conflicts.append(
                            f"The study {key} ({self._label(row)}) has other results, so neither "
                            "it nor the trials with its settings were added."
                        )
                continue
            if known is None:
                add_rows(self.target, table, [row])
            elif row["state"] == DONE:
                self.target.execute(update(table).where(table.c.key == key).values(**row))
                of_study = schema.tuning_trials.c.study == key
                self.target.execute(delete(schema.tuning_trials).where(of_study))
            else:
                continue
            tuning = self._parts(self.source, schema.tuning_trials, key)
            add_rows(self.target, schema.tuning_trials, tuning)
            self.result.studies.append(key)

    def add_trials(self, commands: Mapping[int, int]) -> None:
        """Add trials that are missing or failed, with the new ids of their commands."""
        table = schema.trials
        stored = {row["key"]: row for row in read_rows(self.target, table)}
        for row in read_rows(self.source, table):
            key, known = row["key"], stored.get(row["key"])
            if row["arm"] not in self.arms or row["study"] in self.left_out:
                self.left_out.add(key)
            elif known is not None and known["state"] == DONE:
                other = self._other_results(known, row) if row["state"] == DONE else ""
                if other:
                    self.left_out.add(key)
                    self.result.conflicts.append(
                        f"The trial {key} ({self._label(row)}) has other {other}, so it was not "
                        "changed."
                    )
            elif known is None or row["state"] == DONE:
                self.target.execute(delete(table).where(table.c.key == key))
                add_rows(self.target, table, [{**row, "command": commands.get(row["command"])}])
                for part in RESULTS:
                    add_rows(self.target, part, self._parts(self.source, part, key))
                self.result.trials += 1

    def _other_tuning(self, known: Row, row: Row) -> bool:
        """Return whether the results of a study differ."""
        ours, theirs = (
            _numbers(self._parts(each, schema.tuning_trials, row["key"]), TUNING)
            for each in (self.target, self.source)
        )
        return bool(known["best"] != row["best"] or ours != theirs)

    def _other_results(self, known: Row, row: Row) -> str:
        """Return which results of a trial differ, or an empty string."""
        if known["params"] != row["params"]:
            return "settings"
        for table, columns in RESULTS.items():
            ours, theirs = (
                _numbers(self._parts(each, table, row["key"]), columns)
                for each in (self.target, self.source)
            )
            if table is schema.metrics:
                # Another version may have stored more metrics.
                both = {one[:2] for one in ours} & {one[:2] for one in theirs}
                ours = [one for one in ours if one[:2] in both]
                theirs = [one for one in theirs if one[:2] in both]
            if ours != theirs:
                return table.name.removeprefix("bench_")
        return ""

    def _parts(self, connection: Connection, table: Table, key: str) -> list[Row]:
        """Return the rows of a cohort, study or trial, whose key is the first column."""
        return read_rows(connection, table, next(iter(table.primary_key)) == key)

    def _label(self, row: Row) -> str:
        seed = "all seeds" if row["seed"] is None else f"seed {row['seed']}"
        return f"{self.arms[row['arm']]['model']}, n={row['n_train']}, {seed}"


def read_rows(connection: Connection, table: Table, condition: Any = None) -> list[Row]:
    """Return the rows of a table in the order of their keys, with None instead of NaN."""
    query = select(table) if condition is None else select(table).where(condition)
    rows = [
        {name: None if value != value else value for name, value in row.items()}
        for row in connection.execute(query).mappings()
    ]
    # Servers sort text by the rules of a language.
    keys = [column.name for column in table.primary_key]
    return sorted(rows, key=lambda row: [row[key] for key in keys])


def add_rows(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows."""
    if rows:
        connection.execute(insert(table), rows)


def _numbers(rows: Sequence[Row], columns: Sequence[str]) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in rows]


def _content(row: Row) -> str:
    """Return the content of a command, whose id depends on the database."""
    values = {name: value for name, value in row.items() if name != "id"}
    return json.dumps(values, sort_keys=True, default=str)
