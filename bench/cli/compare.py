"""``bench compare`` and ``bench power``: comparing two models, and planning further runs."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.options import Db, Plugins
from bench.cli.parsing import parse_pairs
from bench.cli.showing import Format, Out, Standalone, Where, Wide, show


def compare(
    a: Annotated[str, typer.Argument(help="A model, or the label of its row in the report.")],
    b: Annotated[str, typer.Argument(help="Another model.")],
    format_: Format = "terminal",
    where: Where = None,
    out: Out = None,
    standalone: Standalone = False,
    wide: Wide = False,
    plugins: Plugins = None,
    db: Db = None,
) -> None:
    """Test whether one model is better than another."""
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
        list[str] | None,
        typer.Argument(help="Two models; default: all pairs of the primary family of tests."),
    ] = None,
    difference: Annotated[
        float | None,
        typer.Option(
            "--difference",
            metavar="X",
            help="Difference to detect, in units of the primary metric.",
        ),
    ] = None,
    wanted: Annotated[
        float, typer.Option("--power", metavar="P", help="Desired power of the test.")
    ] = 0.8,
    format_: Format = "terminal",
    where: Where = None,
    out: Out = None,
    standalone: Standalone = False,
    wide: Wide = False,
    plugins: Plugins = None,
    db: Db = None,
) -> None:
    """Estimate the seeds and test subjects that are needed.

    These are numbers for detecting a difference, based on the variances of stored trials.
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
