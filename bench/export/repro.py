"""Information for repeating the runs of a database and verifying that the cohort is the same."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from sqlalchemy import Connection, select

from bench.export.shareable import argv_without_places
from bench.export.tables import stored_rows
from bench.report.reproduce import reproduce_command
from bench.spec import Arm, arm_from_plain
from bench.store import schema

FORMAT = 1

HOW = (
    "The key of a trial is a hash of everything that determines its results: the fingerprint of "
    "the cohort, the model, its settings, the training size and the seed. If a repeated trial has "
    "the same key, it was computed from the same scans, labels and split.",
    "manifest_digest is the sha256 of the usable scans: ids, labels and the bytes of their files. "
    "split_digest is the sha256 of the JSON list of [subject_id, side], sorted by subject id. "
    "To compare them with those of a repetition, use `bench export --repro` there.",
    "reproduce is a command that repeats a trial, including tuning, and stores it in "
    "reproduced.db. Replace words in capitals by your own paths. Plugins, cohorts and weights that "
    "were defined in bench.toml must be defined there, too.",
    "Predictions are bitwise identical with the same versions, number of threads and type of "
    "processor; otherwise, they differ by rounding.",
)


def bundle(connection: Connection, *, shareable: bool) -> dict[str, Any]:
    """Return the content of ``repro.json``, except for the digests of the tables.

    Parameters
    ----------
    connection : Connection
        A connection in the same transaction as that of the tables.
    shareable : bool
        Whether to omit what `bench.export.shareable` lists.
    """

    def by_key(name: str, table: Any, key: str) -> dict[str, dict[str, Any]]:
        rows = stored_rows(connection, name, table, shareable=shareable)
        return {str(row.pop(key)): _plain(row) for row in rows}

    return {
        "format": FORMAT,
        "slicebench": version("slicebench"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "how": list(HOW),
        "datasets": by_key("datasets", schema.datasets, "fingerprint"),
        "arms": by_key("arms", schema.arms, "key"),
        "studies": by_key("studies", schema.studies, "key"),
        "commands": by_key("commands", schema.commands, "id"),
        "environments": by_key("environments", schema.environments, "key"),
        "trials": _trials(connection, shareable=shareable),
    }


def _trials(connection: Connection, *, shareable: bool) -> dict[str, dict[str, Any]]:
    arms = {row.key: arm_from_plain(row.spec) for row in connection.execute(select(schema.arms))}
    names = {row.fingerprint: row.name for row in connection.execute(select(schema.datasets))}
    commands = {row.id: row.argv for row in connection.execute(select(schema.commands))}
    threads = {
        row.key: row.content.get("threads")
        for row in connection.execute(select(schema.environments))
    }
    found = {}
    for row in stored_rows(connection, "trials", schema.trials, shareable=shareable):
        argv = commands.get(row["command"])
        if argv is not None and shareable:
            argv = argv_without_places(argv)
        arm: Arm = arms[row["arm"]]
        command = argv and reproduce_command(
            argv,
            arm,
            names[arm.fingerprint],
            row["n_train"],
            row["seed"],
            threads.get(row["environment"]),
        )
        found[row["key"]] = {
            **{name: row[name] for name in _OF_TRIAL},
            "reproduce": command,
        }
    return found


_OF_TRIAL = (
    *("arm", "study", "n_train", "seed", "state", "params", "best_epoch", "epochs"),
    *("environment", "command"),
)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }
