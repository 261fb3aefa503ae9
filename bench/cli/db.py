"""``bench db``: looking after the database."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look after the database.")


@app.command("mirror")
def mirror(
    db: Annotated[str | None, typer.Option("--db", help="Database file or sqlite:/// URL.")] = None,
) -> None:
    """Copy every finished study into Optuna's own tables, for optuna-dashboard."""
    from bench.config import load_config
    from bench.execute.lock import driver_lock
    from bench.store.engine import database_file
    from bench.store.mirror import mirror_all
    from bench.store.store import Store

    file = database_file(db or load_config().db)
    Store.for_reading(file).close()
    with driver_lock(file):
        store = Store.for_writing(file)
        problems = mirror_all(store)
        store.close(settle=True)
    for problem in problems:
        print(f"warning: {problem}")
    if problems:
        raise typer.Exit(1)
    print("All finished studies are mirrored.")
