"""``bench plot``: figures of stored results. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.catalogue import load_plugins
from bench.cli.options import Db, Plugins
from bench.cli.parsing import parse_names, parse_pairs
from bench.cli.showing import Where, database


def plot(
    kind: Annotated[
        str,
        typer.Argument(
            help="The kind of figure: learning-curves, forest, heatmap, predicted-true, roc, "
            "calibration, subjects, pareto or critical-difference."
        ),
    ],
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="Metric; default: the primary one."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", metavar="N", help="Training size; default: the primary one."),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--models", metavar="NAME,...", help="Show only these models."),
    ] = None,
    where: Where = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="PDF, SVG or PNG file to write; default: KIND.pdf."
        ),
    ] = None,
    plugins: Plugins = None,
    db: Db = None,
) -> None:
    """Plot a figure for a paper."""
    from bench.files import write_output
    from bench.report.plots import FigureRequest, check_figure, figure
    from bench.store.store import Store
    from registry.errors import UserError

    file = out or Path(f"{kind}.pdf")
    format_ = file.suffix.lower().lstrip(".")
    check_figure(kind, format_)
    if not file.parent.is_dir():
        raise UserError(
            f"The directory {file.parent} does not exist; create it or choose another --out."
        )
    request = FigureRequest(metric, size, tuple(parse_names(models)), parse_pairs("--where", where))
    load_plugins(plugins, strict=True)
    store = Store.for_reading(database(db))
    try:
        drawn = figure(store, kind, request, format_)
    finally:
        store.close()
    write_output(file, drawn.data)
    print(f"{drawn.description}\nWritten to {file}.")
