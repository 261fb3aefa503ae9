"""``bench db``: maintenance of the database."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from bench.cli.options import Db

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.store.database import Database
    from bench.store.merge import MergeResult
    from bench.store.store import Store

app = typer.Typer(no_args_is_help=True, help="Maintain the database.")

Found = TypeVar("Found")


@app.command("mirror")
def mirror(
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="TRACKER=PLACE",
            help="Also copy finished trials to tensorboard=DIR or mlflow=URI; repeatable.",
        ),
    ] = None,
    db: Db = None,
) -> None:
    """Copy studies for optuna-dashboard, and trials to trackers."""
    from bench.store.mirror import mirror_all
    from bench.store.tracking import open_tracker, track_all

    trackers = [open_tracker(text) for text in track or ()]
    problems = _written(db, lambda store: mirror_all(store) + track_all(store, trackers))
    _warn(problems)
    if problems:
        raise typer.Exit(1)
    print("All finished studies were copied into Optuna's tables.")
    for tracker in trackers:
        print(f"All finished trials were copied to {tracker}.")


@app.command("upgrade")
def upgrade(db: Db = None) -> None:
    """Upgrade a database of an older version to the current schema."""
    # Databases are upgraded when they are opened for writing.
    database = _written(db, lambda store: store.database)
    print(f"{database} has the current schema.")


@app.command("check")
def check(db: Db = None) -> None:
    """Check integrity, keys and metrics of a database.

    The database is not changed. The exit code is 1 if there is a fault.
    """
    from bench.cli.showing import database
    from bench.store.check import check
    from bench.store.store import Store
    from registry.core import counted

    store = Store.for_reading(database(db))
    try:
        result = check(store)
    finally:
        store.close()
    for fault in result.faults:
        print(fault)
    print(
        f"{store.database}: {counted(len(result.faults), 'fault')} in "
        f"{counted(result.trials, 'finished trial')}, {counted(result.metrics, 'metric')} and "
        f"{counted(result.keys, 'key')}."
    )
    if result.faults:
        raise typer.Exit(1)


@app.command("copy")
def copy(
    target: Annotated[
        str, typer.Argument(metavar="FILE|URL", help="Database to be created or filled.")
    ],
    db: Db = None,
) -> None:
    """Copy a database to another file or server.

    Use `bench merge` to add results to a database that already contains some.
    """
    from bench.cli.showing import database
    from bench.store.merge import copy
    from bench.store.mirror import mirror_all
    from registry.core import counted

    with _sources([database(db)], target) as (source,):

        def fill(store: Store) -> tuple[int, list[str]]:
            return copy(store, source), mirror_all(store)

        trials, problems = _written(target, fill, create=True)
    print(f"{counted(trials, 'trial')} copied from {source.database}.")
    _warn(problems)


def merge(
    others: Annotated[
        list[str],
        typer.Argument(metavar="OTHER...", help="Databases whose results are added to --db."),
    ],
    db: Db = None,
) -> None:
    """Add the results of other databases to one, by their keys.

    The other databases are only read. Results that are stored in both are kept; if they differ,
    the conflict is reported and nothing is changed for it.
    """
    from bench.store.database import find_database
    from bench.store.merge import merge
    from bench.store.mirror import mirror_study
    from registry.core import counted

    with _sources([find_database(other) for other in others], db) as sources:

        def add(store: Store) -> tuple[list[MergeResult], list[str]]:
            results = [merge(store, source) for source in sources]
            studies = [key for result in results for key in result.studies]
            return results, [mirror_study(store, key) for key in studies]

        results, problems = _written(db, add, create=True)
    for source, result in zip(sources, results, strict=True):
        print(
            f"{source.database}: {counted(result.trials, 'trial')} and "
            f"{counted(len(result.studies), 'study', 'studies')} added."
        )
        for conflict in result.conflicts:
            print(f"  conflict: {conflict}")
    _warn(problems)
    if any(result.conflicts for result in results):
        raise typer.Exit(1)


@contextmanager
def _sources(others: Sequence[Database], db: str | None) -> Iterator[list[Store]]:
    """Open databases whose results are to be stored in another one, before that is changed."""
    from bench.cli.showing import database
    from bench.execute.provenance import refuse_tracked_file
    from bench.store.store import Store
    from registry.errors import UserError

    target = database(db)
    with ExitStack() as stack:
        stores = []
        for other in others:
            if _resolved(other) == _resolved(target):
                raise UserError(f"{other} is both source and target; specify another database.")
            stores.append(Store.for_reading(other))
            stack.callback(stores[-1].close)
        if isinstance(target, Path) and not all(map(_synthetic, stores)):
            refuse_tracked_file(target)
        yield stores


def _resolved(database: Database) -> Database:
    return database.resolve() if isinstance(database, Path) else database


def _synthetic(store: Store) -> bool:
    """Return whether a database contains no results of real participants."""
    from bench.store import schema
    from registry.core import catalogue

    names = {card.name for card in catalogue.datasets if card.synthetic}
    return all(each.get("adapter") in names for each in store.frame(schema.datasets)["settings"])


def _warn(problems: Sequence[str]) -> None:
    for problem in filter(None, problems):
        print(f"warning: {problem}")


def _written(db: str | None, change: Callable[[Store], Found], *, create: bool = False) -> Found:
    """Call `change` with a database that is open for writing; it must exist unless `create`."""
    from bench.cli.showing import database
    from bench.execute.lock import driver_lock
    from bench.store.database import check_writable, exists, write_errors
    from bench.store.store import Store
    from registry.errors import UserError

    target = database(db)
    if not create and not exists(target):
        raise UserError(f"The database {target} does not exist; specify another one with --db.")
    check_writable(target)
    with driver_lock(target), write_errors(target):
        store = Store.for_writing(target)
        try:
            return change(store)
        finally:
            store.close(leave_wal=True)
