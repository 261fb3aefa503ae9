"""Machines and software versions of the runs, and the commands that reproduce them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from bench.report.evidence import Evidence
from bench.report.reproduce import reproduce_command
from bench.report.select import Protocol, Row, read_rows
from bench.report.table import Cell, Column, Table
from bench.report.words import digits_of, number, one_line
from bench.stats.metric import Metric
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
    "threads": "threads per run",
    "system": "system",
}
"""The shown entries of a run's environment, with titles."""


def machine_of(environment: Mapping[str, Any]) -> str:
    """Return the recorded GPU of a run or, if there is none, its processor."""
    what = environment.get("gpu") or environment.get("cpu") or environment.get("machine")
    return one_line(str(what)) if what else "an unrecorded machine"


def environments_of(store: Store, protocol: Protocol) -> list[dict[str, Any]]:
    """Return the different environments of a protocol's runs, with shown entries only."""
    trials, environments = schema.trials.c, schema.environments.c
    arms = [row.key for row in protocol.rows]
    used = select(trials.environment).where(trials.arm.in_(arms))
    rows = read_rows(store, select(environments.content).where(environments.key.in_(used)))
    shown = [{name: row["content"].get(name) for name in SHOWN} for row in rows]
    return [dict(pairs) for pairs in dict.fromkeys(tuple(each.items()) for each in shown)]


def environment_table(environments: Sequence[Mapping[str, Any]], name: str) -> Table:
    """Return the table of machines and versions, one row per environment."""
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


def trial_table(
    store: Store, protocol: Protocol, evidence: Evidence, metric: Metric, name: str
) -> Table:
    """Return every stored run with its score and the command that reproduces it."""
    arms = {row.key: row for row in protocol.rows}
    table = schema.trials.c
    query = (
        select(
            *(table.key, table.arm, table.n_train, table.seed, table.state, table.best_epoch),
            *(table.seconds, schema.commands.c.argv, schema.environments.c.content),
        )
        .join(schema.commands, table.command == schema.commands.c.id, isouter=True)
        .join(schema.environments, table.environment == schema.environments.c.key, isouter=True)
        .where(table.arm.in_(list(arms)))
        .order_by(table.n_train, table.seed)
    )
    order = {key: place for place, key in enumerate(arms)}
    trials = sorted(read_rows(store, query), key=lambda trial: order[trial["arm"]])
    return Table(
        name=name,
        title="All runs, with the command that reproduces each",
        columns=(
            Column("arm", "model"),
            Column("n_train", "train n", numeric=True),
            Column("seed", "seed", numeric=True),
            Column("state", "state"),
            Column("score", metric.label, numeric=True),
            Column("best_epoch", "best epoch", numeric=True),
            Column("seconds", "seconds", numeric=True),
            Column("key", "key"),
            Column("command", "command"),
        ),
        rows=tuple(
            _trial(trial, arms[trial["arm"]], protocol, evidence, metric) for trial in trials
        ),
    )


def _trial(
    trial: Mapping[str, Any], row: Row, protocol: Protocol, evidence: Evidence, metric: Metric
) -> tuple[Cell, ...]:
    score = evidence.scores.get((trial["key"], metric.name), float("nan"))
    threads = (trial["content"] or {}).get("threads")
    command = ""
    if trial["argv"]:
        cohort = str(protocol.dataset["name"])
        command = reproduce_command(
            trial["argv"], row.arm, cohort, trial["n_train"], trial["seed"], threads
        )
    epoch, seconds = trial["best_epoch"], trial["seconds"]
    return (
        Cell(row.label),
        Cell(str(trial["n_train"]), {"value": trial["n_train"]}),
        Cell(str(trial["seed"]), {"value": trial["seed"]}),
        Cell(trial["state"]),
        Cell(number(score, digits_of(metric)), {"value": score}),
        Cell("" if epoch is None else str(epoch), {"value": epoch}),
        Cell("" if seconds is None else number(seconds, 1), {"value": seconds}),
        Cell(trial["key"]),
        Cell(one_line(command)),
    )


def _word(value: Any) -> str:
    return "n/a" if value is None else one_line(str(value))
