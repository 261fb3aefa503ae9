"""The command line, one module per group of commands.

Other libraries than typer are imported inside functions, so that commands start quickly.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from bench.cli import (
    catalogue,
    compare,
    data,
    db,
    export,
    ingest,
    plan,
    plot,
    predict,
    report,
    run,
    streams,
    weights,
)
from bench.cli.help import GroupedCommand
from registry.errors import UserError

app = typer.Typer(
    name="bench",
    no_args_is_help=True,
    # Help formatted by rich would take a third of the start-up time.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run", cls=GroupedCommand, epilog=run.EXAMPLES)(run.run)
app.command("plan", cls=GroupedCommand)(plan.plan)
app.command("ingest")(ingest.ingest)
app.command("predict", cls=GroupedCommand)(predict.predict)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("power")(compare.power)
app.command("plot")(plot.plot)
app.command("export")(export.export)
app.command("merge")(db.merge)
app.command("status")(report.status)
app.command("show")(catalogue.show)
app.add_typer(catalogue.app, name="list")
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
app.add_typer(db.app, name="db")


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"slicebench {version('slicebench')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    log_level: Annotated[
        str,
        typer.Option(
            "--log-level",
            metavar="LEVEL",
            help="Minimum level of log messages: debug, info, warning, error or critical.",
        ),
    ] = "warning",
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Find out which architecture to train, given how many brain scans you have."""
    import logging

    levels = ("debug", "info", "warning", "error", "critical")
    if log_level not in levels:
        raise UserError(f"--log-level must be one of {', '.join(levels)}, got {log_level!r}.")
    logging.basicConfig(level=log_level.upper(), format="%(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Run the command; errors caused by the user are printed, with exit code 2."""
    # --debug is accepted anywhere on the command line.
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    streams.prepare()
    try:
        _refuse_deleted_folder()
        try:
            app(prog_name="bench")
        finally:
            # A closed pipe or a full disk must raise here, where the error is handled.
            sys.stdout.flush()
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # As in `bench report | head`, which is not an error.
        streams.forget_output()
        sys.exit(0)
    except OSError as error:
        if debug:
            traceback.print_exc()
        streams.forget_output()
        what = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        print(f"Error: {what}", file=sys.stderr)
        sys.exit(2)


def _refuse_deleted_folder() -> None:
    try:
        os.getcwd()
    except OSError:
        raise UserError(
            "The working directory no longer exists; change to another one and run the command "
            "again."
        ) from None
