"""``bench export``: results as tables for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Db


def export(
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Directory to write to, which must be new or empty."
        ),
    ],
    format_: Annotated[
        str, typer.Option("--format", metavar="parquet|csv", help="Format of the tables.")
    ] = "parquet",
    shareable: Annotated[
        bool,
        typer.Option("--shareable", help="Omit labels, covariates, paths and host names."),
    ] = False,
    repro: Annotated[
        bool,
        typer.Option(
            "--repro", help="Add what is needed to repeat the runs: specs, versions, digests."
        ),
    ] = False,
    db: Db = None,
) -> None:
    """Export trials, metrics, predictions and histories as tables."""
    from bench.cli.showing import database
    from bench.export.folder import FORMATS, export
    from bench.store.store import Store
    from registry.core import did_you_mean
    from registry.errors import UserError

    if format_ not in FORMATS:
        raise UserError(
            f"--format must be one of {', '.join(FORMATS)}, got {format_!r}"
            f"{did_you_mean(format_, FORMATS)}."
        )
    store = Store.for_reading(database(db))
    try:
        rows = export(store, out, format_=format_, shareable=shareable, repro=repro)
    finally:
        store.close()
    for name, n in rows.items():
        print(f"  {name}: {n} rows")
    print(f"Written to {out}; the tables are described in README.txt.")
