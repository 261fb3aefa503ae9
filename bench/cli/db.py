"""``bench db``: maintenance of the database."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from bench.cli.options import Db

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.store.merge import MergeResult
    from bench.store.store import Store

app = typer.Typer(no_args_is_help=True, help="Maintain the database.")

Found = TypeVar("Found")


@app.command("mirror")
def mirror(db: Db = None) -> None:
    """Copy finished studies into the tables of optuna-dashboard."""
    from bench.store.mirror import mirror_all

    problems = _written(db, mirror_all)
    for problem in problems:
        print(f"warning: {problem}")
    if problems:
        raise typer.Exit(1)
    print("All finished studies were copied into Optuna's tables.")


@app.command("upgrade")
def upgrade(db: Db = None) -> None:
    """Upgrade a database of an older version to the current schema."""
    # Databases are upgraded when they are opened for writing.
    file = _written(db, lambda store: store.file)
    print(f"{file} has the current schema.")


@app.command("check")
def check(db: Db = None) -> None:
    """Check integrity, keys and metrics of a database.

    The database is not changed. The exit code is 1 if there is a fault.
    """
    from bench.cli.showing import database
    from bench.store.check import check
    from bench.store.store import Store
    from registry.core import counted

    file = database(db)
    store = Store.for_reading(file)
    try:
        result = check(store)
    finally:
        store.close()
    for fault in result.faults:
        print(fault)
    print(
        f"{file}: {counted(len(result.faults), 'fault')} in "
        f"{counted(result.trials, 'finished trial')}, {counted(result.metrics, 'metric')} and "
        f"{counted(result.keys, 'key')}."
    )
    if result.faults:
        raise typer.Exit(1)


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
    from bench.cli.showing import database
    from bench.execute.provenance import refuse_tracked_file
    from bench.store.engine import database_file
    from bench.store.merge import merge
    from bench.store.mirror import mirror_study
    from bench.store.store import Store
    from registry.core import counted
    from registry.errors import UserError

    file = database(db)
    with ExitStack() as stack:
        # All of them are opened before anything is changed.
        sources = []
        for other in map(database_file, others):
            if other.resolve() == file.resolve():
                raise UserError(f"{other} cannot be merged with itself; specify another --db.")
            sources.append(Store.for_reading(other))
            stack.callback(sources[-1].close)
        if not all(map(_synthetic, sources)):
            refuse_tracked_file(file)

        def add(store: Store) -> tuple[list[MergeResult], list[str]]:
            results = [merge(store, source) for source in sources]
            studies = [key for result in results for key in result.studies]
            return results, [mirror_study(store, key) for key in studies]

        results, problems = _written(db, add, create=True)
    for source, result in zip(sources, results, strict=True):
        print(
            f"{source.file}: {counted(result.trials, 'trial')} and "
            f"{counted(len(result.studies), 'study', 'studies')} added to {file}."
        )
        for conflict in result.conflicts:
            print(f"  conflict: {conflict}")
    for problem in filter(None, problems):
        print(f"warning: {problem}")
    if any(result.conflicts for result in results):
        raise typer.Exit(1)


def _synthetic(store: Store) -> bool:
    """Return whether a database contains no results of real participants."""
    from bench.store import schema
    from registry.core import catalogue

    names = {card.name for card in catalogue.datasets if card.synthetic}
    return all(each.get("adapter") in names for each in store.frame(schema.datasets)["settings"])


def _written(db: str | None, change: Callable[[Store], Found], *, create: bool = False) -> Found:
    """Call `change` with a database that is open for writing; it must exist unless `create`."""
    from bench.cli.showing import database
    from bench.execute.lock import driver_lock
    from bench.store.engine import check_writable, write_errors
    from bench.store.store import Store
    from registry.errors import UserError

    file = database(db)
    if not create and not file.exists():
        raise UserError(f"The database {file} does not exist; specify another one with --db.")
    check_writable(file)
    with driver_lock(file), write_errors(file):
        store = Store.for_writing(file)
        try:
            return change(store)
        finally:
            store.close(leave_wal=True)
