"""Facts about a protocol that answer items of checklists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import select

from bench.report.evidence import Evidence, load_evidence
from bench.report.family import TestPlan, plan_tests
from bench.report.select import Protocol, Row, read_rows
from bench.report.tables.failures import Failure, find_failures
from bench.report.tables.leaderboard import best_first
from bench.report.words import one_line
from bench.stats.metric import Metric
from bench.stats.metrics import metric_of
from bench.store import schema
from bench.store.store import DONE, Store
from registry.errors import UserError


@dataclass(frozen=True)
class Item:
    """One item of a checklist.

    Parameters
    ----------
    name, question : str
        The number and subject of the item, and the question it asks.
    answer : str
        The answer, as far as the database contains it.
    remaining : str
        What the authors still have to answer; empty if nothing remains.
    """

    name: str
    question: str
    answer: str = ""
    remaining: str = ""

    @property
    def state(self) -> str:
        """``answered``, ``partly`` or ``open``."""
        if not self.remaining:
            return "answered"
        return "partly" if self.answer else "open"

    @property
    def text(self) -> str:
        """The answer followed by what remains to be answered."""
        remaining = f"To be answered: {self.remaining}" if self.remaining else ""
        return " ".join(part for part in (self.answer, remaining) if part)


@dataclass(frozen=True)
class ProtocolFacts:
    """A protocol, and the facts about it that checklists need."""

    protocol: Protocol
    rows: tuple[Row, ...]
    """The models, best first."""
    test_plan: TestPlan
    evidence: Evidence | None
    """None if the runs cannot be compared."""
    failures: tuple[Failure, ...]
    people: tuple[Mapping[str, Any], ...]
    """``subject, side, truth, age, sex, site`` of all subjects."""
    test_sets: int
    """The number of different test sets of the runs."""
    misplaced: int
    """The number of subjects that were predicted in a set to which they do not belong."""
    environments: tuple[Mapping[str, Any], ...]
    hours: float
    """Hours of training of the finished runs."""
    tuning_hours: float
    budgets: tuple[int, ...]
    """The number of Optuna trials of each finished study."""
    others: int
    """The number of protocols of this database that are not shown."""
    commands: int
    """The number of commands that requested one of the arms."""

    @property
    def data(self) -> Mapping[str, Any]:
        """The record of the cohort."""
        return self.protocol.dataset

    @property
    def settings(self) -> Mapping[str, Any]:
        """The cohort's settings."""
        return dict(self.data["settings"])

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in order; empty for regression."""
        return tuple(one_line(name) for name in self.data["classes"])

    @property
    def primary(self) -> Metric:
        """The primary metric."""
        return metric_of(self.protocol.primary_metric)

    @property
    def size(self) -> str:
        """The primary training size as shown in a report."""
        return self.protocol.size_label(self.protocol.primary_size)

    def on(self, side: str) -> list[Mapping[str, Any]]:
        """Return the subjects of the training pool, the validation set or the test set."""
        return [person for person in self.people if person["side"] == side]

    def values(self, name: str) -> tuple[str, ...]:
        """Return the different values of an entry in the environments of the runs."""
        found = {one_line(str(e[name])) for e in self.environments if e.get(name) is not None}
        return tuple(sorted(found))


def load_facts(store: Store, protocol: Protocol, others: int) -> ProtocolFacts:
    """Read the facts that checklists need.

    Parameters
    ----------
    store : Store
        Open for reading.
    protocol : Protocol
        The protocol of the report.
    others : int
        The number of other protocols of the database.
    """
    evidence: Evidence | None
    try:
        evidence = load_evidence(store, protocol)
    except UserError:
        # Checklists also report on runs that cannot be compared.
        evidence = None
    metric = metric_of(protocol.primary_metric)
    rows = best_first(protocol, evidence, metric) if evidence is not None else protocol.rows
    table = schema.subjects
    people = read_rows(
        store, select(table).where(table.c.fingerprint == protocol.dataset["fingerprint"])
    )
    done = {trial["key"] for trial in protocol.trials if trial["state"] == DONE}
    test_sets, misplaced = _sides(store, done, {p["subject"]: p["side"] for p in people})
    arms = {row.key for row in protocol.rows}
    studies = [row for row in read_rows(store, select(schema.studies)) if row["arm"] in arms]
    return ProtocolFacts(
        protocol=protocol,
        rows=tuple(rows),
        test_plan=plan_tests(protocol, rows, None),
        evidence=evidence,
        failures=find_failures(store, protocol),
        people=tuple(people),
        test_sets=test_sets,
        misplaced=misplaced,
        environments=_environments(store, done),
        hours=_hours(read_rows(store, select(schema.trials.c.key, schema.trials.c.seconds)), done),
        tuning_hours=_hours(studies, {row["key"] for row in studies}),
        budgets=_budgets(store, {row["key"] for row in studies if row["state"] == DONE}),
        others=others,
        commands=sum(
            bool(arms & set(row["arms"]))
            for row in read_rows(store, select(schema.commands.c.arms))
        ),
    )


def _sides(store: Store, trials: set[str], side: Mapping[int, str]) -> tuple[int, int]:
    """Return the number of different test sets, and of subjects predicted in a wrong set."""
    table = schema.predictions.c
    found: set[tuple[str, bytes]] = set()
    with store.engine.connect() as connection:
        for row in connection.execute(select(table.trial, table.split, table.subjects)):
            if row.trial in trials:
                found.add((row.split, row.subjects))
    wrong = {
        subject
        for split, subjects in found
        for subject in np.frombuffer(subjects, "<i4").tolist()
        if side.get(subject, split) != split
    }
    return sum(split == "test" for split, _ in found), len(wrong)


def _environments(store: Store, trials: set[str]) -> tuple[Mapping[str, Any], ...]:
    query = select(schema.trials.c.key, schema.environments.c.content).join_from(
        schema.trials, schema.environments
    )
    rows = read_rows(store, query)
    return tuple(row["content"] for row in rows if row["key"] in trials)


def _budgets(store: Store, studies: set[str]) -> tuple[int, ...]:
    numbers = [row["study"] for row in read_rows(store, select(schema.tuning_trials.c.study))]
    return tuple(numbers.count(study) for study in sorted(studies))


def _hours(rows: Sequence[Mapping[str, Any]], keys: set[str]) -> float:
    return sum(row["seconds"] or 0.0 for row in rows if row["key"] in keys) / 3600
