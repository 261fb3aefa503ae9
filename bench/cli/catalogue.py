"""``bench list`` and ``bench show``: the available models, encoders, datasets etc."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import Plugins, names_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.cards import Card, DatasetCard, Dimension, EncoderCard, ModelCard, Option, Value
    from registry.core import Registry

SHOWN = 16
"""Number of settings that are printed without ``--all``."""

app = typer.Typer(
    no_args_is_help=True, help="List models, encoders, datasets, metrics or executors."
)


def load_plugins(files: list[Path] | None, *, strict: bool) -> None:
    """Load installed plugins, configured plugins and the given plugin files.

    If a given file cannot be loaded, `strict` raises an error; otherwise, it is only listed as
    broken.
    """
    from bench.config import load_config
    from registry.core import PluginError, catalogue

    catalogue.load_entry_points()
    for path in load_config().plugins:
        catalogue.load_file(path)
    for file in files or []:
        catalogue.load_file(file)
        why = catalogue.broken.get(str(file.resolve()))
        if strict and why:
            raise PluginError(f"The plugin file {file} cannot be loaded: {why}.")
    if list(catalogue.metrics):
        from bench.plugin_metrics import add_plugin_metrics

        add_plugin_metrics()


@app.command("models")
def models(plugins: Plugins = None) -> None:
    """List the models that can be compared."""
    load_plugins(plugins, strict=False)
    from registry.core import catalogue

    rows = [
        [card.name, _encoder_words(card), card.summary, catalogue.models.origin(card.name)]
        for card in catalogue.models
    ]
    print_listing(["model", "encoder", "description", "defined in"], rows)


@app.command("encoders")
def encoders(plugins: Plugins = None) -> None:
    """List the 2D encoders.

    All models of timm and torchvision are available as timm/NAME and torchvision/NAME.
    """
    load_plugins(plugins, strict=False)
    from registry.core import catalogue

    rows = [
        [
            card.name,
            card.weights.source if card.weights else "-",
            card.summary,
            catalogue.encoders.origin(card.name),
        ]
        for card in catalogue.encoders
    ]
    rows.append(["timm/NAME", "timm", "any image model of timm", "timm"])
    rows.append(
        ["torchvision/NAME", "torchvision", "any image classifier of torchvision", "torchvision"]
    )
    print_listing(["encoder", "weights", "description", "defined in"], rows)


@app.command("datasets")
def datasets(plugins: Plugins = None) -> None:
    """List the dataset adapters and synthetic cohorts."""
    load_plugins(plugins, strict=False)
    from bench.config import load_config
    from registry.core import catalogue

    rows = [
        [card.name, card.default_target, card.summary, catalogue.datasets.origin(card.name)]
        for card in catalogue.datasets
    ]
    for name, entry in load_config().data.items():
        if name in catalogue.datasets:
            continue
        adapter = f"the dataset {entry.get('adapter')}, with the options in bench.toml"
        rows.append([name, str(entry.get("target", "")), adapter, "bench.toml"])
    print_listing(["dataset", "default target", "description", "defined in"], rows)


@app.command("metrics")
def metrics(plugins: Plugins = None) -> None:
    """List the metrics for comparing models."""
    load_plugins(plugins, strict=False)
    from bench.stats.metrics import METRICS
    from registry.core import catalogue

    rows = [
        [
            metric.name,
            metric.title,
            ", ".join(metric.tasks),
            "higher" if metric.higher_is_better else "lower",
            "yes" if metric.tested else "no",
            catalogue.metrics.origin(metric.name),
        ]
        for metric in METRICS.values()
    ]
    print_listing(["metric", "label", "tasks", "better", "tested", "defined in"], rows)


@app.command("executors")
def executors(plugins: Plugins = None) -> None:
    """List the executors, which run units of work."""
    load_plugins(plugins, strict=False)
    from registry.core import catalogue

    rows = [[c.name, c.summary, catalogue.executors.origin(c.name)] for c in catalogue.executors]
    print_listing(["executor", "description", "defined in"], rows)


def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A model, an encoder or a dataset.",
            autocompletion=names_of("models", "encoders", "datasets"),
        ),
    ],
    all_: Annotated[
        bool, typer.Option("--all", help=f"Print all settings, not only the first {SHOWN}.")
    ] = False,
    plugins: Plugins = None,
) -> None:
    """Describe a model, an encoder or a dataset, with its settings."""
    load_plugins(plugins, strict=False)
    from registry.core import catalogue, did_you_mean, library_card
    from registry.errors import UserError

    if name in catalogue.models:
        _show_model(catalogue.model(name), all_=all_)
    elif name in catalogue.encoders or library_card(name):
        _show_encoder(catalogue.encoder(name))
    elif name in catalogue.datasets:
        _show_dataset(catalogue.dataset(name), all_=all_)
    elif name == "plan":
        _show_plan()
    else:
        names = [c.name for r in _registries() for c in r]
        raise UserError(
            f"There is no model, encoder or dataset {name!r}{did_you_mean(name, names)}; "
            "`bench list models`, `encoders` or `datasets` lists all names."
        )


def _registries() -> list[Any]:
    from registry.core import catalogue

    return [catalogue.models, catalogue.encoders, catalogue.datasets]


def _encoder_words(card: ModelCard) -> str:
    if card.encoder is None:
        return "-"
    return f"{card.encoder} (fixed)" if card.encoder_fixed else card.encoder


def _common(card: Card, registry: Registry[Any]) -> list[tuple[str, str]]:
    origin = registry.origin(card.name)
    return [("name", card.name), ("description", card.summary), ("defined in", origin)]


def _show_dataset(card: DatasetCard, *, all_: bool) -> None:
    from registry.core import catalogue
    from registry.datasets import dataset_options

    _print_fields([*_common(card, catalogue.datasets), ("targets", ", ".join(card.targets))])
    _print_settings(card, {**card.options, **dataset_options(card)}, all_=all_)


def _show_model(card: ModelCard, *, all_: bool) -> None:
    from bench.plan import resolve_params
    from registry.cards import Task
    from registry.core import catalogue
    from registry.models import model_options

    params = resolve_params(card, {})
    fields = _common(card, catalogue.models)
    fields += [
        ("kind", card.kind),
        ("encoder", _encoder_words(card)),
        ("initialisation", "pretrained weights" if card.pretrained else "random"),
        ("tasks", ", ".join(card.constraints.tasks)),
    ]
    if card.kind == "network":
        from bench.train.probe import parameter_count

        shape = (91, 109, 91)
        count = parameter_count(card, params, Task("age", "regression"), shape, card.encoder)
        voxels = f"{shape[0]} x {shape[1]} x {shape[2]} voxels"
        fields.append(("parameters", f"{count:,} for volumes of {voxels}"))
    _print_fields(fields)
    # Options of the model itself and tuned options are printed first.
    options = model_options(card)
    first = [*card.options, *card.space]
    _print_settings(card, {name: options[name] for name in [*first, *options]}, all_=all_)
    if card.space:
        rows = [[name, _range_of(dimension)] for name, dimension in card.space.items()]
        print_listing(["tuned setting", "search space"], rows)


def _range_of(dimension: Dimension) -> str:
    from registry.cards import Choice

    if isinstance(dimension, Choice):
        return ", ".join(map(str, dimension.values))
    scale = ", on a log scale" if dimension.log else ""
    return f"{dimension.low:g} to {dimension.high:g}{scale}"


def _show_plan() -> None:
    """Print the layouts measured on this machine and the choices."""
    import json

    from bench.config import load_config

    files = sorted((load_config().cache / "layouts").glob("[!.]*.json"))
    measured = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    # Files of early versions do not contain the versions of libraries and are no longer used.
    measured = [found for found in measured if "libraries" in found]
    if not measured:
        print(
            "No network was timed on this machine yet. This is done at the start of runs of at "
            "least 120 steps."
        )
    for found in measured:
        encoder = f" [{found['encoder']['name']}]" if found["encoder"] else ""
        print(
            f"{found['model']['name']}{encoder} on {'x'.join(map(str, found['shape']))}, "
            f"{found['precision']}, {found['steps']} steps, {found['threads']} threads of "
            f"{found['device']}, torch {found['torch']}"
        )
        rows = []
        for line in found["measured"]:
            chosen = {name: line[name] for name in found["layout"]} == found["layout"]
            seconds = [
                "-" if line[what] is None else f"{line[what]:.3f}" for what in ("step", "compile")
            ]
            way = line["memory_format"].removesuffix("_format")
            compiled = f"compiled ({line['mode']})" if line["mode"] else "eager"
            rows.append([way, compiled, *seconds, line["note"] or ("chosen" if chosen else "")])
        print_listing(
            ["memory format", "execution", "seconds per step", "seconds to compile", ""], rows
        )


def _show_encoder(card: EncoderCard) -> None:
    from bench.train.encoder import encoder_handle
    from registry.core import catalogue

    weights = card.weights
    fields = _common(card, catalogue.encoders)
    fields += [
        ("channels", str(card.channels)),
        ("minimum slice size", f"{card.min_size} x {card.min_size} voxels"),
        ("features", str(encoder_handle(card, None).feature_dim)),
        ("weights", f"{weights.source}, {weights.licence}" if weights else "none"),
        ("pretrained on", card.pretraining or "-"),
        ("position embedding added to", card.position_at),
    ]
    _print_fields(fields)


def _print_settings(
    card: ModelCard | DatasetCard, options: Mapping[str, Option], *, all_: bool
) -> None:
    """Print the settings in the order of `options`; without `all_`, only the first ones."""
    rows = [
        [name, _text(card.defaults.get(name, option.default)), option.range_text, option.help]
        for name, option in options.items()
    ]
    if not rows:
        return
    shown = rows if all_ else rows[:SHOWN]
    print_listing(["setting", "default", "range", "description"], shown)
    if len(shown) < len(rows):
        left = len(rows) - len(shown)
        print(f"{left} more settings are listed by `bench show {card.name} --all`.\n")


def _text(value: Value) -> str:
    """Return a value as it is written on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _print_fields(fields: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        print(f"{name:{width}}  {value}")
    print()


def print_listing(head: list[str], rows: list[list[str]]) -> None:
    """Print aligned columns, followed by the plugins that could not be loaded."""
    from registry.core import catalogue

    *widths, last = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    indent = sum(width + 2 for width in widths)
    if sys.stdout.isatty():
        # Lines are only wrapped on a terminal, not in files or pipes.
        last = min(last, max(30, shutil.get_terminal_size().columns - indent))
    for *cells, text in [head, ["-" * width for width in [*widths, last]], *rows]:
        start = "".join(f"{cell:{width}}  " for cell, width in zip(cells, widths, strict=True))
        lines = textwrap.wrap(text, last or 1, break_on_hyphens=False) or [""]
        print(
            "\n".join(
                f"{start if not i else ' ' * indent}{line}".rstrip() for i, line in enumerate(lines)
            )
        )
    for origin, why in catalogue.broken.items():
        print(f"warning: the plugin {origin} could not be loaded: {why}")
    print()
