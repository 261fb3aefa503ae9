"""Rendering a report from a database to the terminal or a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.report.table import Report
    from bench.store.database import Database
    from bench.store.store import Store

Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="Output format: terminal, markdown, latex, html, csv or json.",
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help="Select a protocol if there are several, for example dataset=adni; repeatable.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write to this file.")]
Standalone = Annotated[
    bool,
    typer.Option("--standalone", help="Write a complete LaTeX document, not one for \\input."),
]
Wide = Annotated[
    bool, typer.Option("--wide", help="Print all columns, even if lines exceed the terminal.")
]


def show(
    db: str | None,
    build: Callable[[Store], Report],
    format_: str = "terminal",
    out: Path | None = None,
    *,
    standalone: bool = False,
    wide: bool = False,
    plugins: list[Path] | None = None,
) -> None:
    """Build a report from a database and print it or write it to a file.

    Raises
    ------
    UserError
        For an unknown format or a missing directory, or raised by `build`.
    """
    from bench.cli.catalogue import load_plugins
    from bench.files import write_output
    from bench.report.render import FORMATS, render
    from bench.store.store import Store
    from registry.core import did_you_mean
    from registry.errors import UserError

    if format_ not in FORMATS:
        raise UserError(
            f"--format must be one of {', '.join(FORMATS)}, got {format_!r}"
            f"{did_you_mean(format_, FORMATS)}."
        )
    if standalone and format_ != "latex":
        raise UserError(f"--standalone requires --format latex, got {format_}.")
    if wide and format_ != "terminal":
        raise UserError(
            f"--wide requires --format terminal; the format {format_} always has all columns."
        )
    if out is not None and not out.parent.is_dir():
        raise UserError(
            f"The directory {out.parent} does not exist; create it or choose another --out."
        )
    load_plugins(plugins, strict=True)
    store = Store.for_reading(database(db))
    try:
        report = build(store)
    finally:
        store.close()
    if out is None:
        styled = sys.stdout.isatty()
        sys.stdout.write(render(report, format_, styled=styled, standalone=standalone, wide=wide))
        return
    # The name includes the directory, so that several files of one paper have different labels.
    name = " ".join([*out.parent.parts[-1:], out.stem])
    text = render(report, format_, standalone=standalone, name=name, wide=wide)
    write_output(out, text.encode())
    print(f"Written to {out}.")


def database(db: str | None) -> Database:
    """Return the database according to ``--db``, the configuration or the default."""
    from bench.config import load_config
    from bench.store.database import find_database

    return find_database(db or load_config().db)
