"""Reading and writing results.

Each unit is stored in one transaction, and storing it again has no effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, RowMapping, Table, delete, func, insert, select, update

from bench.records import DatasetRecord
from bench.spec import Arm, StudySpec, TrialSpec, arm_from_plain, key_of, plain
from bench.store import schema
from bench.store.database import Database, name_of, open_for_reading, open_for_writing
from bench.store.engine import leave_wal_mode
from bench.store.postgres import ConnectionLost
from bench.unit import TuningTrial
from registry.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

DONE = "done"
FAILED = "failed"
"""The unit raised an exception or diverged, and would do so again."""
KILLED = "killed"
"""The unit was interrupted, and may succeed when it is run again."""


@dataclass(frozen=True)
class Attempt:
    """An attempt to run a unit, successful or not."""

    id: str
    unit: str
    kind: str
    state: str
    started: datetime
    finished: datetime
    error: str = ""
    log: str = ""


@dataclass(frozen=True)
class StudyResult:
    """The result of a study."""

    spec: StudySpec
    state: str
    best: Mapping[str, Any] | None
    error: str
    trials: Sequence[TuningTrial]
    seconds: float
    environment: Mapping[str, Any]


@dataclass(frozen=True)
class Predictions:
    """Predictions of one split: `subjects` (n,) int32, `values` (n, outputs) float64."""

    subjects: NDArray[np.int32]
    values: NDArray[np.float64]

    @classmethod
    def from_row(cls, row: RowMapping) -> Predictions:
        """Return the predictions of a row of `schema.predictions`.

        Raises
        ------
        ValueError, TypeError
            If they are damaged.
        """
        values = np.frombuffer(row["values"], "<f8").reshape(-1, row["outputs"])
        return cls(np.frombuffer(row["subjects"], "<i4"), values)


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial; `metrics` maps (split, name) to (value, reason)."""

    spec: TrialSpec
    state: str
    params: Mapping[str, Any]
    error: str = ""
    best_epoch: int | None = None
    epochs: int | None = None
    seconds: float = 0.0
    timings: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[tuple[str, str], tuple[float, str]] = field(default_factory=dict)
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()


def _repeated(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method run again if the connection to a server was lost, which undid its transaction.

    The new connection waits for the server to be restarted.
    """

    @wraps(method)
    def run(*words: P.args, **options: P.kwargs) -> T:
        try:
            return method(*words, **options)
        except ConnectionLost:
            return method(*words, **options)

    return run


class Store:
    """A database of results.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        The open database; see `for_writing` and `for_reading`.
    database : pathlib.Path or sqlalchemy.URL
        The SQLite file, or the URL of a PostgreSQL server.
    """

    def __init__(self, engine: Engine, database: Database) -> None:
        self.engine = engine
        self.database = database

    @property
    def name(self) -> str:
        """A short name for titles."""
        return name_of(self.database)

    @classmethod
    def for_writing(cls, database: Database) -> Store:
        """Open or create a database; see `bench.store.database.open_for_writing`."""
        return cls(open_for_writing(database), database)

    @classmethod
    def for_reading(cls, database: Database) -> Store:
        """Open a database read-only; see `bench.store.database.open_for_reading`."""
        return cls(open_for_reading(database), database)

    def close(self, *, leave_wal: bool = False) -> None:
        """Close the database, first leaving WAL mode if `leave_wal`; see `leave_wal_mode`."""
        if leave_wal and isinstance(self.database, Path):
            leave_wal_mode(self.engine)
        self.engine.dispose()

    # ---------------------------------------------------------------- writing

    @_repeated
    def add_dataset(self, record: DatasetRecord) -> None:
        """Store a cohort and its subjects, or update the name of a stored one."""
        row = asdict(record)
        subjects = [{"fingerprint": record.fingerprint, **each} for each in row.pop("subjects")]
        with self.engine.begin() as connection:
            table = schema.datasets
            known = table.c.fingerprint == record.fingerprint
            if connection.execute(select(table.c.name).where(known)).first() is None:
                connection.execute(insert(table).values(**row))
                connection.execute(insert(schema.subjects), subjects)
            else:
                connection.execute(update(table).where(known).values(name=record.name))

    @_repeated
    def add_command(
        self, argv: Sequence[str], arms: Sequence[tuple[Arm, bool]], **rest: Any
    ) -> int:
        """Store a command and its arms, each with whether its model is deterministic."""
        with self.engine.begin() as connection:
            for arm, deterministic in arms:
                _insert_once(
                    connection,
                    schema.arms,
                    key=arm.key,
                    fingerprint=arm.fingerprint,
                    model=arm.model.name,
                    encoder=arm.encoder.name if arm.encoder else None,
                    deterministic=int(deterministic),
                    spec=plain(arm),
                )
            result = connection.execute(
                insert(schema.commands).values(
                    created=datetime.now(UTC),
                    argv=list(argv),
                    arms=[arm.key for arm, _ in arms],
                    **rest,
                )
            )
            number: int = result.inserted_primary_key[0]  # type: ignore[index]
            return number

    @_repeated
    def add_attempt(self, attempt: Attempt) -> None:
        """Store an attempt."""
        with self.engine.begin() as connection:
            row = {**attempt.__dict__, "error": _text(attempt.error), "log": _text(attempt.log)}
            _insert_once(connection, schema.attempts, **row)

    @_repeated
    def add_study(self, result: StudyResult, *, replace: bool = False) -> list[str]:
        """Store a finished study, replacing a failed one with the same key.

        A stored successful study is kept unless `replace` is True. If it is replaced by one with
        different settings, or one that failed, the trials with its settings are removed.

        Returns
        -------
        list of str
            The keys of the removed trials.

        Raises
        ------
        UserError
            If a successful study with the same key is stored with other settings.
        """
        spec = result.spec
        with self.engine.begin() as connection:
            known = connection.execute(
                select(schema.studies.c.state, schema.studies.c.best).where(
                    schema.studies.c.key == spec.key
                )
            ).first()
            if known is not None and known.state == DONE and not replace:
                if result.state == DONE and dict(known.best or {}) != dict(result.best or {}):
                    raise UserError(
                        f"Study {spec.key} is already stored with other tuned settings. The "
                        "database was not changed; use --reuse no to replace the study."
                    )
                return []
            row = {
                "key": spec.key,
                "arm": spec.arm.key,
                "n_train": spec.n_train,
                "seed": spec.seed,
                "state": result.state,
                "best": dict(result.best) if result.best is not None else None,
                "error": _text(result.error) or None,
                "finished": datetime.now(UTC),
                "seconds": result.seconds,
                "environment": _environment(connection, result.environment),
            }
            removed: list[str] = []
            if known is None:
                connection.execute(insert(schema.studies).values(**row))
            else:
                if known.state == DONE and known.best != row["best"]:
                    tuned = schema.trials.c.study == spec.key
                    removed = list(connection.scalars(select(schema.trials.c.key).where(tuned)))
                    connection.execute(delete(schema.trials).where(tuned))
                connection.execute(
                    update(schema.studies).where(schema.studies.c.key == spec.key).values(**row)
                )
                connection.execute(
                    delete(schema.tuning_trials).where(schema.tuning_trials.c.study == spec.key)
                )
            if result.trials:
                connection.execute(
                    insert(schema.tuning_trials),
                    [{**asdict(trial), "study": spec.key} for trial in result.trials],
                )
            return removed

    @_repeated
    def add_trial(self, result: TrialResult, command: int, *, replace: bool = False) -> None:
        """Store a finished trial with its metrics, predictions and history.

        A stored successful trial is kept unless `replace` is True; a failed one is replaced.

        Raises
        ------
        UserError
            If a successful trial with the same key is stored with other settings.
        """
        spec, table = result.spec, schema.trials
        with self.engine.begin() as connection:
            known = connection.execute(
                select(table.c.state, table.c.params).where(table.c.key == spec.key)
            ).first()
            if known is not None:
                if known.state == DONE and not replace:
                    if result.state == DONE and dict(known.params) != dict(result.params):
                        raise UserError(
                            f"Trial {spec.key} is already stored with other settings. The "
                            "database was not changed; use --reuse no to replace the trial."
                        )
                    return
                connection.execute(delete(table).where(table.c.key == spec.key))
            connection.execute(
                insert(table).values(
                    key=spec.key,
                    arm=spec.arm.key,
                    study=spec.study,
                    n_train=spec.n_train,
                    seed=spec.seed,
                    state=result.state,
                    params=dict(result.params),
                    best_epoch=result.best_epoch,
                    epochs=result.epochs,
                    error=_text(result.error) or None,
                    finished=datetime.now(UTC),
                    seconds=result.seconds,
                    timings=dict(result.timings),
                    environment=_environment(connection, result.environment),
                    command=command,
                )
            )
            _insert_many(
                connection,
                schema.metrics,
                (
                    {
                        "trial": spec.key,
                        "split": split,
                        "metric": name,
                        "value": None if np.isnan(value) else value,
                        "reason": reason or None,
                    }
                    for (split, name), (value, reason) in result.metrics.items()
                ),
            )
            _insert_many(
                connection,
                schema.predictions,
                (
                    {
                        "trial": spec.key,
                        "split": split,
                        "subjects": found.subjects.astype("<i4").tobytes(),
                        "outputs": found.values.shape[1],
                        "values": found.values.astype("<f8").tobytes(),
                    }
                    for split, found in result.predictions.items()
                ),
            )
            _insert_many(
                connection, schema.history, ({**row, "trial": spec.key} for row in result.history)
            )

    # ---------------------------------------------------------------- reading

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Connect in one transaction, so that all reads agree even if a run is writing."""
        with self.engine.connect() as connection:
            if isinstance(self.database, Path):
                connection.exec_driver_sql("BEGIN")  # Otherwise, each read would be its own.
            yield connection

    @_repeated
    def states(self, table: Table, keys: Iterable[str]) -> dict[str, str]:
        """Return the states of the units among `keys` that are stored in a table."""
        wanted = set(keys)
        with self.engine.connect() as connection:
            rows = connection.execute(select(table.c.key, table.c.state))
            return {row.key: row.state for row in rows if row.key in wanted}

    @_repeated
    def last_attempts(self) -> dict[str, str]:
        """Return the state of the latest attempt of each unit."""
        table = schema.attempts
        with self.engine.connect() as connection:
            rows = connection.execute(
                select(table.c.unit, table.c.state).order_by(table.c.finished)
            )
            return {row.unit: row.state for row in rows}

    @_repeated
    def best_params(self, study: str) -> dict[str, Any] | None:
        """Return the tuned settings of a study, None if there are none."""
        with self.engine.connect() as connection:
            query = select(schema.studies.c.best).where(schema.studies.c.key == study)
            row = connection.execute(query).first()
            return dict(row.best) if row is not None and row.best is not None else None

    def durations(self) -> list[tuple[dict[str, Any], int, float]]:
        """Return mean durations of finished trials as (spec of the arm, n_train, seconds)."""
        arms, trials = schema.arms.c, schema.trials.c
        query = (
            select(arms.spec, trials.n_train, func.avg(trials.seconds))
            .join(schema.arms, arms.key == trials.arm)
            .where(trials.state == DONE, trials.seconds.is_not(None))
            .group_by(arms.key, trials.n_train)
        )
        with self.engine.connect() as connection:
            return [
                (dict(spec), int(n), float(mean)) for spec, n, mean in connection.execute(query)
            ]

    def peaks(self) -> list[tuple[Arm, float]]:
        """Return the largest memory in MB that a trial of each arm needed, if it is known."""
        arms, trials = schema.arms.c, schema.trials.c
        without_files, resident = (
            func.max(trials.timings[name].as_float()) for name in ("peak_anon_mb", "peak_rss_mb")
        )
        query = (
            select(arms.spec, func.coalesce(without_files, resident))
            .join(schema.trials, arms.key == trials.arm)
            .where(trials.state == DONE)
            .group_by(arms.key)
        )
        with self.engine.connect() as connection:
            return [
                (arm_from_plain(spec), megabytes)
                for spec, megabytes in connection.execute(query)
                if megabytes is not None
            ]

    def voxels(self) -> dict[str, int]:
        """Return the number of voxels of a volume of each cohort, by its fingerprint."""
        table = schema.datasets.c
        with self.engine.connect() as connection:
            rows = connection.execute(select(table.fingerprint, table.shape))
            return {fingerprint: math.prod(shape) for fingerprint, shape in rows}

    def threads_of(self, arm: str, host: str) -> int | None:
        """Return the number of threads of the first trial of an arm on a machine, or None."""
        found = self._first_environment(schema.trials.c.arm == arm, host)
        return int(found["threads"]) if found else None

    def layout_of(self, arm: str, n_train: int, host: str) -> dict[str, str] | None:
        """Return the layout of the first trial of an arm at a size on a machine.

        It is empty if the trial has none, and None if there is no trial.
        """
        table = schema.trials.c
        found = self._first_environment((table.arm == arm) & (table.n_train == n_train), host)
        return found.get("layout", {}) if found else None

    @_repeated
    def _first_environment(self, condition: Any, host: str) -> dict[str, Any]:
        environments, trials = schema.environments.c, schema.trials.c
        first = (
            select(trials.environment, func.min(trials.finished).label("finished"))
            .where(condition, trials.state == DONE)
            .group_by(trials.environment)
            .subquery()
        )
        query = (
            select(environments.content)
            .join(first, first.c.environment == environments.key)
            .order_by(first.c.finished)
        )
        with self.engine.connect() as connection:
            for (content,) in connection.execute(query):
                if content.get("host") == host:
                    return dict(content)
        return {}

    @_repeated
    def frame(self, query: Any) -> pd.DataFrame:
        """Return the rows of a query or table."""
        if isinstance(query, Table):
            query = select(query)
        with self.engine.connect() as connection:
            result = connection.execute(query)
            return pd.DataFrame(result.fetchall(), columns=list(result.keys()))

    def predictions(self, trials: Iterable[str], split: str) -> dict[str, Predictions]:
        """Return the predictions of trials for one split, by the key of the trial."""
        wanted = set(trials)
        table = schema.predictions
        found = {}
        with self.engine.connect() as connection:
            for row in connection.execute(select(table).where(table.c.split == split)):
                if row.trial in wanted:
                    found[row.trial] = Predictions.from_row(row._mapping)
        return found


def _insert_once(connection: Connection, table: Table, **row: Any) -> None:
    primary = next(iter(table.primary_key))
    if connection.execute(select(primary).where(primary == row[primary.name])).first() is None:
        connection.execute(insert(table).values(**row))


def _insert_many(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    values = [dict(row) for row in rows]
    if values:
        connection.execute(insert(table), values)


def _text(words: str) -> str:
    """Return a text without NUL characters, which PostgreSQL cannot store."""
    return words.replace("\0", "")


def _environment(connection: Connection, content: Mapping[str, Any]) -> str | None:
    if not content:
        return None
    key = key_of(dict(content))
    _insert_once(connection, schema.environments, key=key, content=dict(content))
    return key
