"""``bench report`` and ``bench status``: stored results. Does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Db, Plugins
from bench.cli.parsing import parse_pairs
from bench.cli.showing import Format, Out, Standalone, Where, Wide, show

if TYPE_CHECKING:
    from bench.report.table import Report
    from bench.store.store import Store

WITH_APPENDIX = ("html", "csv", "json")


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


def status(wide: Wide = False, db: Db = None) -> None:
    """Print which trials are stored, failed or missing."""
    from bench.report.status import build_status

    show(db, build_status, wide=wide)
