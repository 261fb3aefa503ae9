"""``bench ingest``: storing results that were computed elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import Db, Work

if TYPE_CHECKING:
    from bench.plan_file import PlanFile


def ingest(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="Directory of `bench plan` with the results of its parts.",
            show_default=False,
        ),
    ] = None,
    db: Db = None,
    work: Work = None,
) -> None:
    """Store results that were computed elsewhere.

    With a directory of `bench plan`, the results of the parts that were run are added to --db.
    Otherwise, what the jobs of `bench run --detach` have finished is stored.
    """
    from bench.cli import db as databases
    from bench.cli.showing import database
    from bench.execute.settings import work_folder
    from bench.plan_file import kept_plans, read_plan
    from registry.errors import UserError

    if folder is None:
        plans = kept_plans(work_folder(database(db), work))
        if not plans:
            print(f"There is nothing to collect for {database(db)}.")
        for plan in plans:
            _collect(context, plan, db, work)
        return
    planned = read_plan(folder)
    parts = sorted(folder.glob("*.db"))
    if not parts:
        raise UserError(
            f"There are no results in {folder}; run a part of the plan with `bench run --from "
            "DIR`, and copy its database into the directory."
        )
    try:
        databases.merge([str(part) for part in parts], db)
    finally:
        _say_coverage(planned, db)


def _collect(context: typer.Context, plan: PlanFile, db: str | None, work: Path | None) -> None:
    """Store the outcomes of a plan by ``bench run``, with the options that it was started with."""
    words = ["--from", str(plan.folder), "--collect"]
    for option, value in (("--db", db), ("--work", work)):
        words += [] if value is None else [option, str(value)]
    group: Any = context.find_root().command
    run = group.get_command(context, "run")
    with run.make_context("run", words, parent=context.parent) as inner:
        run.invoke(inner)


def _say_coverage(plan: PlanFile, db: str | None) -> None:
    from bench.cli.showing import database
    from bench.store import schema
    from bench.store.store import Store

    store = Store.for_reading(database(db))
    try:
        stored = store.states(schema.trials, list(plan.keys))
    finally:
        store.close()
    print(f"{len(stored)} of {len(plan.keys)} trials of the plan are stored in {database(db)}.")
