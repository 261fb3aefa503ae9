"""Options that several commands have, each defined once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from bench.cli.help import DATA, EXECUTION, OUTPUT
from bench.cli.parsing import parse_pairs
from registry.errors import UserError

if TYPE_CHECKING:
    from bench.config import Config
    from bench.data.listing import CohortRequest

Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugins",
        metavar="FILE",
        help="Plugin file; repeat for several.",
        rich_help_panel=EXECUTION,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda",
        help="Device for networks.",
        rich_help_panel=EXECUTION,
    ),
]
Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="FILE|URL",
        help="Database file or sqlite:/// URL; default: that of bench.toml, or results.db.",
        rich_help_panel=OUTPUT,
    ),
]


def names_of(*kinds: str) -> Callable[[str], list[str]]:
    """Return what completes names, comma-separated, of ``models``, ``encoders`` or ``datasets``."""

    def complete(incomplete: str) -> list[str]:
        from bench.cli.catalogue import load_plugins
        from registry.core import catalogue

        load_plugins(None, strict=False)
        before, comma, _ = incomplete.rpartition(",")
        return [before + comma + card.name for kind in kinds for card in getattr(catalogue, kind)]

    return complete


@dataclass(frozen=True)
class DatasetOptions:
    """What the command line says about a dataset.

    A command that reads a dataset has these options when it is decorated by
    `takes_dataset_options`.
    """

    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Folder of the dataset.", rich_help_panel=DATA),
    ] = None
    table: Annotated[
        list[Path] | None,
        typer.Option(
            "--table",
            metavar="FILE",
            help="Table of the dataset; repeat for several. Tables in the folder are found.",
            rich_help_panel=DATA,
        ),
    ] = None
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="NAME", help="age, diagnosis or sex.", rich_help_panel=DATA
        ),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            metavar="A,B,...",
            help="Diagnoses that form the classes, as CN,AD.",
            rich_help_panel=DATA,
        ),
    ] = None
    visits: Annotated[
        str | None,
        typer.Option(
            "--visits",
            metavar="all|baseline|last",
            help="Which visits of a subject to use.",
            rich_help_panel=DATA,
        ),
    ] = None
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            metavar="mni|native",
            help="Space of the scans; default: as their names say.",
            rich_help_panel=DATA,
        ),
    ] = None
    register: Annotated[
        str | None,
        typer.Option(
            "--register",
            metavar="none|affine",
            help="Register the scans to the MNI152 template.",
            rich_help_panel=DATA,
        ),
    ] = None
    crop: Annotated[
        str | None,
        typer.Option(
            "--crop",
            metavar="none|brain",
            help="Cut the volumes to the box of the brain.",
            rich_help_panel=DATA,
        ),
    ] = None
    withdrawals: Annotated[
        Path | None,
        typer.Option(
            "--withdrawals",
            metavar="FILE",
            help="List of withdrawn subjects, text or Excel.",
            rich_help_panel=DATA,
        ),
    ] = None
    hold_out_site: Annotated[
        str | None,
        typer.Option(
            "--hold-out-site",
            metavar="SITE",
            help="Site whose subjects are the test set.",
            rich_help_panel=DATA,
        ),
    ] = None
    data_set: Annotated[
        list[str] | None,
        typer.Option(
            "--data-set",
            metavar="KEY=VALUE",
            help="Another option of the dataset; `bench show DATASET --all` lists them.",
            rich_help_panel=DATA,
        ),
    ] = None
    # People look for it, and are told who does it.
    skull_strip: Annotated[bool, typer.Option("--skull-strip", hidden=True)] = False

    def check(self) -> dict[str, str]:
        """Return the dataset's options by name.

        Raises
        ------
        UserError
            When an option is given both by ``--data-set`` and by its own flag, or skull stripping
            is asked for, which no tool does without a download.
        """
        if self.skull_strip:
            raise UserError(
                "--skull-strip is not done here, because every good tool for it needs files that "
                "are downloaded first; strip the scans with SynthStrip, HD-BET, FSL's BET or ANTs, "
                "and give the stripped ones."
            )
        options = parse_pairs("--data-set", self.data_set)
        names = ("visits", "classes", "crop", "space", "register", "withdrawals", "hold_out_site")
        given = {name: getattr(self, name) for name in names}
        given["table"] = "\n".join(map(str, self.table)) if self.table else None
        given = {name: str(value) for name, value in given.items() if value is not None}
        for name in given:
            if name in options:
                raise UserError(
                    f"{name} is given twice: by --data-set and by --{name.replace('_', '-')}."
                )
        return {**options, **given}

    def request(self, name: str, config: Config, *, new_split: bool = False) -> CohortRequest:
        """Return the cohort that is asked for under the name of a dataset.

        Raises
        ------
        UserError
            For an unknown dataset, or options that it does not take.
        """
        from bench.data.listing import cohort_request

        return cohort_request(
            name,
            config.data.get(name, {}),
            root=self.root,
            options=self.check(),
            target=self.target,
            new_split=new_split,
        )


def takes_dataset_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `DatasetOptions`, which it takes as one argument `dataset`."""
    own, shared = _parameters(command), _parameters(DatasetOptions)

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        dataset = DatasetOptions(**{name: given.pop(name) for name in shared})
        command(dataset=dataset, **given)

    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        parameters += shared.values() if name == "dataset" else [parameter]
    # What typer reads.
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_options


@functools.cache
def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters by name, with annotations that are evaluated."""
    hints = get_type_hints(function, include_extras=True)
    return {
        name: each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, each in inspect.signature(function).parameters.items()
    }
