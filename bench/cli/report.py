"""``bench report`` and ``bench status``: stored results. Does not import torch."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Db, Plugins, Work
from bench.cli.parsing import parse_pairs
from bench.cli.progress import stoppable
from bench.cli.showing import Format, Out, Standalone, Where, Wide, database, show

if TYPE_CHECKING:
    from bench.report.table import Report
    from bench.store.store import Store

WITH_APPENDIX = ("html", "csv", "json")
WATCH = 10.0
"""Seconds between two looks at the jobs."""
SHOWN = 8
"""Number of running units that are listed."""


def report(
    format_: Format = "terminal",
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="Metric, or all; default: the primary one."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="MODEL", help="Compare all models with this one only."),
    ] = None,
    where: Where = None,
    out: Out = None,
    checklist: Annotated[
        str | None,
        typer.Option(
            "--checklist",
            metavar="NAME",
            help="Print a checklist with answers: claim, comparison or tripod-ai.",
        ),
    ] = None,
    standalone: Standalone = False,
    wide: Wide = False,
    plugins: Plugins = None,
    db: Db = None,
) -> None:
    """Print the leaderboard and tests of the differences."""
    from bench.report.build import build_report
    from bench.report.checklists import build_checklist
    from registry.errors import UserError

    if checklist is not None and (metric, reference) != (None, None):
        raise UserError(
            "--checklist uses the declared primary analysis; remove --metric and --reference."
        )
    chosen = parse_pairs("--where", where)

    def build(store: Store) -> Report:
        if checklist is not None:
            return build_checklist(store, checklist, chosen)
        return build_report(
            store,
            metric=metric,
            reference=reference,
            where=chosen,
            appendix=format_ in WITH_APPENDIX,
            pictures=format_ == "html",
        )

    show(db, build, format_, out, standalone=standalone, wide=wide, plugins=plugins)


def status(
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Repeat this until the jobs of `bench run --detach` have ended."
        ),
    ] = False,
    wide: Wide = False,
    db: Db = None,
    work: Work = None,
) -> None:
    """Print which trials are stored, running, failed or missing."""
    from bench.report.status import build_status

    with stoppable():
        while True:
            if watch and sys.stdout.isatty():
                print("\033[2J\033[H", end="")
            show(db, build_status, wide=wide)
            if not _print_jobs(db, work) or not watch:
                return
            time.sleep(WATCH)


def _print_jobs(db: str | None, work: Path | None) -> int:
    """Print the progress of the jobs of a database, and return the number that have not ended."""
    from bench.execute.jobs import count_jobs
    from bench.execute.settings import work_folder
    from bench.plan_file import kept_plans
    from bench.store import schema
    from bench.store.store import Store
    from registry.core import counted

    where = database(db)
    if work is None and not isinstance(where, Path):
        return 0
    folder = work_folder(where, work)
    plans = kept_plans(folder)
    if not plans:
        return 0
    store = Store.for_reading(where)
    try:
        trials = store.states(schema.trials, [key for plan in plans for key in plan.keys])
        studies = store.states(schema.studies, [key for plan in plans for key in plan.studies])
    finally:
        store.close()
    left = 0
    for plan in plans:
        found = count_jobs(plan, folder, {**trials, **studies})
        print(
            f"{counted(len(plan.keys) + len(plan.studies), 'unit')} on other machines: "
            f"{found.stored} stored, {found.finished} finished and not stored yet, "
            f"{len(found.running)} running, {found.waiting} waiting"
        )
        for words in found.running[:SHOWN]:
            print(f"  {words}")
        if len(found.running) > SHOWN:
            print(f"  and {len(found.running) - SHOWN} more")
        left += found.left
    return left
