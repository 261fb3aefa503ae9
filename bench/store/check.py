"""Checking a database: integrity, references, keys, and metrics against predictions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Table, func, select

from bench.spec import Arm, StudySpec, TrialSpec, arm_from_plain, key_of
from bench.stats.metrics import METRICS, compute
from bench.store import schema
from bench.store.store import DONE, Predictions, Store
from registry.core import counted
from registry.errors import UserError

RELATIVE_TOLERANCE = 1e-9
"""Metrics computed with other versions of numpy may differ by rounding."""


@dataclass
class CheckResult:
    """The faults of a database, one sentence each, and what was checked."""

    faults: list[str] = field(default_factory=list)
    keys: int = 0
    trials: int = 0
    metrics: int = 0


def check(store: Store) -> CheckResult:
    """Check a database without changing it.

    The checks are SQLite's own integrity check, references between rows, keys, which are computed
    again from the specifications, and metrics, which are computed again from the predictions.

    Parameters
    ----------
    store : Store
        Open for reading.
    """
    result = CheckResult()
    parts: tuple[Callable[[Store, CheckResult], None], ...]
    parts = (_check_integrity, _check_references, _check_keys, _check_metrics)
    for part in parts:
        try:
            part(store, result)
        except UserError as error:
            # Part of the file is damaged; the other checks may still be possible.
            result.faults.append(str(error))
    result.faults = list(dict.fromkeys(result.faults))
    return result


def _check_integrity(store: Store, result: CheckResult) -> None:
    """Run the integrity check of SQLite; a server checks its own files."""
    if store.engine.dialect.name != "sqlite":
        return
    with store.engine.connect() as connection:
        found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    for words in found:
        if words != "ok":
            result.faults.append(f"SQLite reports: {'; '.join(str(words).splitlines())}.")


def _check_references(store: Store, result: CheckResult) -> None:
    """Look for rows that refer to a row which does not exist."""
    for table in schema.metadata.sorted_tables:
        for key in sorted(table.foreign_keys, key=lambda key: key.parent.name):
            target = key.column
            lost = (
                select(key.parent, func.count())
                .select_from(table.outerjoin(target.table, key.parent == target))
                .where(key.parent.is_not(None), target.is_(None))
                .group_by(key.parent)
                .order_by(key.parent)
            )
            with store.engine.connect() as connection:
                for value, n in connection.execute(lost):
                    result.faults.append(
                        f"{table.name} has {counted(n, 'row')} with {key.parent.name} {value}, "
                        f"which is missing in {target.table.name}."
                    )


def _check_keys(store: Store, result: CheckResult) -> None:
    """Compare keys with those of the stored specifications."""

    def compare(kind: str, stored: str, computed: str) -> None:
        result.keys += 1
        if stored != computed:
            result.faults.append(
                f"The key of {kind} {stored} does not match its specification, which has the key "
                f"{computed}."
            )

    arms: dict[str, Arm] = {}
    for row in _rows(store, schema.arms):
        try:
            arm = arm_from_plain(row.spec)
            compare("arm", row.key, arm.key)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            result.faults.append(f"The specification of arm {row.key} cannot be read ({error}).")
            continue
        arms[row.key] = arm
        encoder = arm.encoder.name if arm.encoder else None
        if (row.model, row.encoder, row.fingerprint) != (arm.model.name, encoder, arm.fingerprint):
            result.faults.append(
                f"Model, encoder or cohort of arm {row.key} do not match its specification."
            )
    for row in _rows(store, schema.environments):
        compare("environment", row.key, key_of(row.content))
    for row in _rows(store, schema.studies):
        if row.arm in arms:
            compare("study", row.key, StudySpec(arms[row.arm], row.n_train, row.seed).key)
    for row in _rows(store, schema.trials):
        if row.arm in arms:
            compare("trial", row.key, TrialSpec.of(arms[row.arm], row.n_train, row.seed).key)


def _check_metrics(store: Store, result: CheckResult) -> None:
    """Compute the metrics of finished trials from their predictions."""
    cohorts = {row.key: row.fingerprint for row in _rows(store, schema.arms)}
    done = {row.key: row.arm for row in _rows(store, schema.trials) if row.state == DONE}
    stored: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for row in _rows(store, schema.metrics):
        value = np.nan if row.value is None else row.value
        stored[row.trial, row.split].append((row.metric, value))
    # True values by subject, for the training, validation and test subjects of each cohort.
    truths: dict[tuple[str | None, str], dict[int, float]] = defaultdict(dict)
    for row in _rows(store, schema.subjects):
        truths[row.fingerprint, row.side][row.subject] = row.truth
    result.trials = len(done)
    left = {(trial, "test") for trial in done} | {each for each in stored if each[0] in done}
    for row in _rows(store, schema.predictions):
        if row.trial not in done:
            continue
        left.discard((row.trial, row.split))
        where = f"of trial {row.trial} for its {row.split} subjects"
        try:
            truth, values = _matched(row, truths[cohorts.get(done[row.trial]), row.split])
        except ValueError as error:
            result.faults.append(f"The predictions {where} {error}.")
            continue
        for name, value in stored[row.trial, row.split]:
            if name not in METRICS and not name.startswith("auc_"):
                continue  # The metric of a newer version.
            result.metrics += 1
            try:
                computed = compute(name, truth, values).value
            except ValueError as error:
                result.faults.append(f"{name} {where} cannot be computed: {error}.")
                continue
            if not np.isclose(value, computed, RELATIVE_TOLERANCE, 1e-12, equal_nan=True):
                result.faults.append(
                    f"{name} {where} is stored as {value:.12g}, but their predictions give "
                    f"{computed:.12g}."
                )
    for trial, split in sorted(left):
        result.faults.append(f"Trial {trial} is done, but has no predictions of {split} subjects.")


def _matched(
    row: Any, members: Mapping[int, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the true and predicted values of a row of predictions.

    Parameters
    ----------
    row : Row
        A row of `schema.predictions`.
    members : mapping
        The true values of the subjects that may be predicted.

    Raises
    ------
    ValueError
        If they do not belong together; the message continues "The predictions ...".
    """
    try:
        found = Predictions.from_row(row._mapping)
    except (ValueError, TypeError):
        raise ValueError("are damaged") from None
    subjects, values = found.subjects, found.values
    if len(subjects) != len(values):
        raise ValueError(f"are {len(values)} for {len(subjects)} subjects")
    unknown = [subject for subject in subjects.tolist() if subject not in members]
    if unknown:
        raise ValueError(
            f"include subjects that are not {row.split} subjects of its cohort, such as "
            f"{unknown[0]}"
        )
    if row.split == "test" and len(set(subjects.tolist())) != len(members):
        raise ValueError(f"are {len(subjects)} instead of {len(members)}")
    truth = np.array([members[subject] for subject in subjects.tolist()], dtype=np.float64)
    return truth, values[:, 0] if values.shape[1] == 1 else values


def _rows(store: Store, table: Table) -> Iterator[Any]:
    """Yield the rows of a table, a thousand at a time."""
    query = select(table).order_by(*table.primary_key)
    with store.engine.connect().execution_options(yield_per=1000) as connection:
        try:
            yield from connection.execute(query)
        except (ValueError, TypeError) as error:
            # JSON or a time that cannot be decoded.
            raise UserError(
                f"{table.name} contains a value that cannot be read: {error}."
            ) from None
