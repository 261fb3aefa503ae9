"""``bench compare`` and ``bench power``: two models, and what it takes to tell them apart."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.options import Db, Plugins
from bench.cli.parsing import parse_pairs
from bench.cli.showing import Format, Out, Standalone, Where, Wide, show


def compare(
    a: Annotated[str, typer.Argument(help="A model, or the label of its row.")],
    b: Annotated[str, typer.Argument(help="Another.")],
    format_: Format = "terminal",
    where: Where = None,
    out: Out = None,
    standalone: Standalone = False,
    wide: Wide = False,
    plugins: Plugins = None,
    db: Db = None,
) -> None:
    """Say whether A is better than B, and how certain that is."""
    from bench.report.comparison import build_comparison

    chosen = parse_pairs("--where", where)
    show(
        db,
        lambda store: build_comparison(store, a, b, chosen),
        format_,
        out,
        standalone=standalone,
        wide=wide,
        plugins=plugins,
    )


def power(
    models: Annotated[
        list[str] | None, typer.Argument(help="Two models; none for the whole family.")
    ] = None,
    difference: Annotated[
        float | None,
        typer.Option(
            "--difference", metavar="X", help="A difference that matters, in the primary metric."
        ),
    ] = None,
    wanted: Annotated[
        float, typer.Option("--power", metavar="P", help="The probability of finding it.")
    ] = 0.8,
    format_: Format = "terminal",
    where: Where = None,
    out: Out = None,
    standalone: Standalone = False,
    wide: Wide = False,
    plugins: Plugins = None,
    db: Db = None,
) -> None:
    """Estimate the seeds and test subjects that a difference takes.

    The variances are those of the stored trials.
    """
    from bench.report.planning import build_planning

    chosen = parse_pairs("--where", where)
    show(
        db,
        lambda store: build_planning(
            store, models or [], chosen, difference=difference, wanted=wanted
        ),
        format_,
        out,
        standalone=standalone,
        wide=wide,
        plugins=plugins,
    )
