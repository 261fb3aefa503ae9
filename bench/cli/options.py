"""Options that are shared by several commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
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
        help="Plugin file; repeatable.",
        rich_help_panel=EXECUTION,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda",
        help="Device for training networks.",
        rich_help_panel=EXECUTION,
    ),
]
Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="FILE|URL",
        help="Database file or postgresql:// URL; default: db in bench.toml, or results.db.",
        rich_help_panel=OUTPUT,
    ),
]
Work = Annotated[
    Path | None,
    typer.Option(
        "--work",
        metavar="DIR",
        help="Directory of unfinished results; default: <database>.work; required for a server.",
        rich_help_panel=OUTPUT,
    ),
]


def names_of(*kinds: str) -> Callable[[str], list[str]]:
    """Return a completion function for names, separated by commas.

    Parameters
    ----------
    *kinds : str
        One or several of ``models``, ``encoders`` and ``datasets``.
    """

    def complete(incomplete: str) -> list[str]:
        from bench.cli.catalogue import load_plugins
        from registry.core import catalogue

        load_plugins(None, strict=False)
        before, comma, _ = incomplete.rpartition(",")
        return [before + comma + card.name for kind in kinds for card in getattr(catalogue, kind)]

    return complete


@dataclass(frozen=True)
class DatasetOptions:
    """The options of all commands that read a dataset; see `expand_options`."""

    root: Annotated[
        Path | None,
        typer.Option(
            "--root", metavar="DIR", help="Root directory of the dataset.", rich_help_panel=DATA
        ),
    ] = None
    table: Annotated[
        list[Path] | None,
        typer.Option(
            "--table",
            metavar="FILE",
            help="Table of the dataset, in addition to those in its root directory; repeatable.",
            rich_help_panel=DATA,
        ),
    ] = None
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="NAME",
            help="What to predict: age, diagnosis or sex.",
            rich_help_panel=DATA,
        ),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            metavar="A,B,...",
            help="Diagnoses that form the classes, for example CN,AD.",
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
            help="Space of the scans; default: according to their file names.",
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
            help="Crop the volumes to the bounding box of the brain.",
            rich_help_panel=DATA,
        ),
    ] = None
    withdrawals: Annotated[
        Path | None,
        typer.Option(
            "--withdrawals",
            metavar="FILE",
            help="File with the ids of withdrawn subjects, text or Excel.",
            rich_help_panel=DATA,
        ),
    ] = None
    hold_out_site: Annotated[
        str | None,
        typer.Option(
            "--hold-out-site",
            metavar="SITE",
            help="Site whose subjects form the test set.",
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
    # Hidden, because it only explains why there is no skull stripping.
    skull_strip: Annotated[bool, typer.Option("--skull-strip", hidden=True)] = False

    def check(self) -> dict[str, str]:
        """Return the options of the dataset by name.

        Raises
        ------
        UserError
            If an option is given twice, by ``--data-set`` and by its own flag, or if skull
            stripping is requested.
        """
        if self.skull_strip:
            raise UserError(
                "--skull-strip is not supported, because good tools for it require additional "
                "downloads. Use SynthStrip, HD-BET, FSL's BET or ANTs first, and use the resulting "
                "scans."
            )
        options = parse_pairs("--data-set", self.data_set)
        names = ("visits", "classes", "crop", "space", "register", "withdrawals", "hold_out_site")
        given = {name: getattr(self, name) for name in names}
        given["table"] = "\n".join(map(str, self.table)) if self.table else None
        given = {name: str(value) for name, value in given.items() if value is not None}
        for name in given:
            if name in options:
                raise UserError(
                    f"{name} was given twice, with --data-set and with --{name.replace('_', '-')}; "
                    "remove one of them."
                )
        return {**options, **given}

    def request(self, name: str, config: Config, *, new_split: bool = False) -> CohortRequest:
        """Return the cohort that these options describe.

        Raises
        ------
        UserError
            For an unknown dataset or invalid options.
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


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter whose type is a dataclass of options by the fields of that class.

    Parameters
    ----------
    command : callable
        A command with parameters such as ``dataset: DatasetOptions``.
    """
    own = _parameters(command)
    groups: dict[str, tuple[Any, dict[str, inspect.Parameter]]] = {
        name: (each.annotation, _parameters(each.annotation))
        for name, each in own.items()
        if inspect.isclass(each.annotation) and is_dataclass(each.annotation)
    }

    @functools.wraps(command)
    def expanded(**given: Any) -> None:
        made = {
            name: options(**{field: given.pop(field) for field in fields})
            for name, (options, fields) in groups.items()
        }
        command(**made, **given)

    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        parameters += groups[name][1].values() if name in groups else [parameter]
    # typer reads the signature and the annotations.
    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {each.name: each.annotation for each in parameters}
    return expanded


@functools.cache
def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters by name, with evaluated annotations."""
    hints = get_type_hints(function, include_extras=True)
    return {
        name: each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, each in inspect.signature(function).parameters.items()
    }
