"""``bench db``: maintenance of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import typer

from bench.cli.options import Db

if TYPE_CHECKING:
    from collections.abc import Callable

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


def _written(db: str | None, change: Callable[[Store], Found]) -> Found:
    """Call `change` with an existing database that is open for writing."""
    from bench.cli.showing import database
    from bench.execute.lock import driver_lock
    from bench.store.engine import check_writable, write_errors
    from bench.store.store import Store
    from registry.errors import UserError

    file = database(db)
    if not file.exists():
        raise UserError(f"The database {file} does not exist; specify another one with --db.")
    check_writable(file)
    with driver_lock(file), write_errors(file):
        store = Store.for_writing(file)
        try:
            return change(store)
        finally:
            store.close(leave_wal=True)
