"""``bench data``: checking and preparing cohorts before training."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.catalogue import load_plugins
from bench.cli.help import EXECUTION, OUTPUT, GroupedCommand
from bench.cli.options import DatasetOptions, Plugins, expand_options

if TYPE_CHECKING:
    import pandas as pd

    from bench.config import Config
    from bench.data.listing import CohortRequest

app = typer.Typer(
    no_args_is_help=True, help="Check, list, preview and prepare the scans of a dataset."
)

Name = Annotated[str, typer.Argument(help="A dataset, or a name defined in bench.toml.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="Number of processes that read scans; default: the number of cores.",
        rich_help_panel=EXECUTION,
    ),
]


@app.command("check", cls=GroupedCommand)
@expand_options
def check(
    name: Name,
    dataset: DatasetOptions,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write the report, with images of scans, to an HTML file.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write the manifest to a CSV file.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    workers: Workers = None,
    plugins: Plugins = None,
) -> None:
    """Read all scans; report problems and which are used."""
    from bench.cli.progress import Ticker
    from bench.data.inspect import inspect
    from bench.data.listing import list_scans
    from bench.files import write_output
    from bench.report.cohort import build_cohort_report
    from bench.report.render import render
    from registry.errors import UserError

    config, request = _request(name, dataset, plugins)
    for option, file in (("--html", html), ("--out", out)):
        if file is not None:
            _refuse_missing_folder(option, file)
    listing = list_scans(request, config.cache, Ticker(f"{name}: making scan"))
    found = inspect(listing, config.cache, Ticker(f"{name}: reading scan"), workers)
    report = build_cohort_report(found)
    sys.stdout.write(render(report, "terminal", styled=sys.stdout.isatty()))
    if html is not None:
        write_output(html, render(report, "html").encode())
        print(f"Written to {html}.")
    if out is not None:
        print(_write_manifest(found.scans, request.target, out))
    if found.problem:
        raise UserError(found.problem)


@app.command("manifest", cls=GroupedCommand)
@expand_options
def manifest(
    name: Name,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="CSV file to write.", rich_help_panel=OUTPUT),
    ],
    dataset: DatasetOptions,
    plugins: Plugins = None,
) -> None:
    """List all scans with their labels and the reasons for exclusion.

    Voxels are not read. If `check` or `prepare` was run before, the list is the one used by `run`.
    """
    from bench.cli.progress import Ticker
    from bench.data.inspect import stored_inspection
    from bench.data.listing import list_scans
    from bench.data.manifest import count_flow

    config, request = _request(name, dataset, plugins)
    _refuse_missing_folder("--out", out)
    listing = list_scans(request, config.cache, Ticker(f"{name}: making scan"))
    known = stored_inspection(listing)
    print(_write_manifest(known.scans, request.target, out))
    for reason, count in count_flow(known.scans["reason"]):
        print(f"  left out: {reason}: {count}")
    for warning in known.warnings:
        print(f"  warning: {warning}")
    if known.unread:
        print(
            f"  {known.unread} of the used scans were not read yet and may turn out to be "
            "unreadable. To read them, run `bench data check` or `bench data prepare`."
        )
    elif known.problem:
        print(f"  not usable with these options: {known.problem}")


def _write_manifest(scans: pd.DataFrame, target: str, out: Path) -> str:
    """Write one row per scan and return a summary."""
    from bench.data.cache import as_csv
    from bench.data.listing import manifest_table
    from bench.files import write_output
    from registry.core import counted

    rows = manifest_table(scans, target)
    write_output(out, as_csv(rows))
    used = rows[rows["used"] == "yes"]
    return (
        f"Found {counted(len(rows), 'scan')}; used: {counted(len(used), 'scan')} of "
        f"{counted(used['subject_id'].nunique(), 'subject')}. Written to {out}."
    )


@app.command("prepare", cls=GroupedCommand)
@expand_options
def prepare(
    name: Name,
    dataset: DatasetOptions,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Verify the checksums of stored volumes.",
            rich_help_panel=EXECUTION,
        ),
    ] = False,
    workers: Workers = None,
    plugins: Plugins = None,
) -> None:
    """Prepare the volumes for training, once.

    After an interruption, the same command resumes.
    """
    from bench.cli.progress import Ticker, stoppable
    from bench.data.cohort import open_cohort

    config, request = _request(name, dataset, plugins)
    start = time.monotonic()
    with stoppable():
        cohort = open_cohort(
            request,
            config.cache,
            Ticker(f"{name}: preparing scan"),
            workers=workers,
            verify=verify,
        )
    for what, count in cohort.flow:
        print(f"  {what}: {count}")
    for warning in cohort.warnings:
        print(f"  warning: {warning}")
    print(f"  {_saving(request, cohort.shape)}")
    size = cohort.volumes_file.stat().st_size / 1e9
    print(f"{name} is ready: {size:.2f} GB, in {time.monotonic() - start:.0f} s.")


def _saving(request: CohortRequest, shape: tuple[int, int, int]) -> str:
    """Return the shape of a volume and how much cropping saves."""
    from math import prod

    from bench.data.volume import GRIDS

    words = " x ".join(map(str, shape)) + " voxels"
    whole = GRIDS[str(request.options["grid"])].shape
    if shape == whole:
        return words
    less = 1 - prod(shape) / prod(whole)
    return f"{words} after cropping from {' x '.join(map(str, whole))} ({less:.0%} fewer)"


@app.command("preview", cls=GroupedCommand)
@expand_options
def preview(
    name: Name,
    dataset: DatasetOptions,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="PNG, PDF or SVG file to write.", rich_help_panel=OUTPUT
        ),
    ] = Path("preview.png"),
    plugins: Plugins = None,
) -> None:
    """Plot scans of a few subjects before and after preparation.

    The plotted slices are those used by the models.
    """
    from bench.cli.progress import Ticker
    from bench.data.listing import list_scans
    from bench.data.preview import draw

    config, request = _request(name, dataset, plugins)
    _refuse_missing_folder("--out", out)
    listing = list_scans(request, config.cache, Ticker(f"{name}: making scan"))
    for note in draw(listing, out):
        print(f"  {note}")
    print(f"Written to {out}.")


@app.command("list")
def list_() -> None:
    """List configured datasets and whether they are prepared."""
    from bench.cli.catalogue import print_listing
    from bench.config import load_config
    from bench.data.prepared import prepared_caches

    config = load_config()
    rows = []
    for name, entry in config.data.items():
        root = Path(str(entry.get("root", ""))).expanduser() if entry.get("root") else None
        there = "-" if root is None else str(root) if root.is_dir() else f"{root} (missing)"
        tables = [Path(line).name for line in str(entry.get("table", "")).splitlines()]
        adapter = str(entry.get("adapter", name))
        ready = prepared_caches(config.cache, adapter, root)
        rows.append([name, adapter, there, ", ".join(tables) or "-", "; ".join(ready) or "no"])
    if not rows:
        print(
            "No dataset is configured. Add it to bench.toml, for example:\n\n"
            '  [data.adni]\n  root = "/data/ADNI"\n\n'
            "or set the environment variable BENCH_ROOT_ADNI, or use --root."
        )
        return
    print_listing(["dataset", "adapter", "root", "tables", "prepared"], rows)


def _request(
    name: str, dataset: DatasetOptions, plugins: list[Path] | None
) -> tuple[Config, CohortRequest]:
    from bench.config import load_config

    config = load_config()
    load_plugins(plugins, strict=True)
    return config, dataset.request(name, config)


def _refuse_missing_folder(option: str, file: Path) -> None:
    from registry.errors import UserError

    if not file.absolute().parent.is_dir():
        raise UserError(
            f"The directory {file.parent} does not exist; create it or choose another {option}."
        )
