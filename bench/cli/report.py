"""``bench report`` and ``bench status``: what the store says. No torch is imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.parsing import parse_pairs

Db = Annotated[str | None, typer.Option("--db", help="Database file or sqlite:/// URL.")]


def report(
    format_: Annotated[
        str, typer.Option("--format", help="terminal, markdown, latex, html, csv or json.")
    ] = "terminal",
    metric: Annotated[
        str | None, typer.Option("--metric", help="A metric, or all; default: the primary one.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", help="Compare every model with this one only.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option("--where", help="Choose among protocols, key=value.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write to this file.")] = None,
    db: Db = None,
) -> None:
    """Print the leaderboard and the tests of the differences."""
    from bench.report.render import FORMATS, render
    from bench.report.tables import build_report
    from bench.store.store import Store
    from registry.core import did_you_mean
    from registry.errors import UserError

    if format_ not in FORMATS:
        raise UserError(
            f"--format {format_}: it is one of {', '.join(FORMATS)}"
            f"{did_you_mean(format_, FORMATS)}."
        )
    store = Store.for_reading(_file(db))
    try:
        found = build_report(
            store, metric=metric, reference=reference, where=parse_pairs("--where", where)
        )
    finally:
        store.close()
    if out is None:
        sys.stdout.write(render(found, format_, styled=sys.stdout.isatty()))
        return
    text = render(found, format_)
    if not out.parent.is_dir():
        raise UserError(
            f"The folder {out.parent} does not exist; create it or choose another --out."
        )
    out.write_text(text, encoding="utf-8")
    print(f"Written to {out}.")


def status(db: Db = None) -> None:
    """Show what is stored, what failed and what is missing."""
    from bench.report.render import render
    from bench.report.status import build_status
    from bench.store.store import Store

    store = Store.for_reading(_file(db))
    try:
        found = build_status(store)
    finally:
        store.close()
    sys.stdout.write(render(found, "terminal", styled=sys.stdout.isatty()))


def _file(db: str | None) -> Path:
    from bench.config import load_config
    from bench.store.engine import database_file

    return database_file(db or load_config().db)
