"""``bench list`` and ``bench show``: what there is, without importing torch to list it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import Plugins

if TYPE_CHECKING:
    from registry.cards import Card, EncoderCard, ModelCard
    from registry.core import Registry

app = typer.Typer(
    no_args_is_help=True, help="List models, encoders, datasets, metrics or executors."
)


def load_plugins(files: list[Path] | None, *, strict: bool) -> None:
    """Load installed plugins, those of the configuration and those named.

    With `strict`, a named file that fails to load is the user's error; otherwise it stays listed
    as broken and harms nothing else.
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
    """List the models under comparison."""
    load_plugins(plugins, strict=False)
    from registry.core import catalogue

    rows = [
        [card.name, _encoder_words(card), card.summary, catalogue.models.origin(card.name)]
        for card in catalogue.models
    ]
    print_listing(["model", "encoder", "what it is", "from"], rows)


@app.command("encoders")
def encoders(plugins: Plugins = None) -> None:
    """List the 2D encoders; timm/NAME and torchvision/NAME reach the models of both libraries."""
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
    rows.append(["timm/<name>", "timm's", "any image model of timm", "timm"])
    rows.append(
        ["torchvision/<name>", "torchvision's", "any classifier of torchvision", "torchvision"]
    )
    print_listing(["encoder", "weights", "what it is", "from"], rows)


@app.command("datasets")
def datasets(plugins: Plugins = None) -> None:
    """List the dataset adapters and the embedded synthetic cohorts."""
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
        rows.append([name, str(entry.get("target", "")), f"{entry.get('adapter')}", "bench.toml"])
    print_listing(["dataset", "target", "what it is", "from"], rows)


@app.command("metrics")
def metrics(plugins: Plugins = None) -> None:
    """List the metrics by which models are compared."""
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
    print_listing(["metric", "label", "tasks", "better", "tested", "from"], rows)


@app.command("executors")
def executors(plugins: Plugins = None) -> None:
    """List where units of work can run."""
    load_plugins(plugins, strict=False)
    from registry.core import catalogue

    rows = [[c.name, c.summary, catalogue.executors.origin(c.name)] for c in catalogue.executors]
    print_listing(["executor", "what it is", "from"], rows)


def show(
    name: Annotated[str, typer.Argument(help="A model, an encoder or a dataset.")],
    plugins: Plugins = None,
) -> None:
    """Show a card: defaults, options, search space and parameter count."""
    load_plugins(plugins, strict=False)
    from registry.core import catalogue, did_you_mean
    from registry.errors import UserError

    if name in catalogue.models:
        _show_model(catalogue.model(name))
    elif name in catalogue.encoders or name.startswith(("timm/", "torchvision/")):
        _show_encoder(catalogue.encoder(name))
    elif name in catalogue.datasets:
        from registry.datasets import options_of

        card = catalogue.dataset(name)
        _print_fields([*_common(card, catalogue.datasets), ("targets", ", ".join(card.targets))])
        _print_options(options_of(card), card.defaults)
    elif name == "plan":
        _show_plan()
    else:
        names = [c.name for r in _registries() for c in r]
        raise UserError(
            f"There is no model, encoder or dataset {name!r}{did_you_mean(name, names)}; "
            "`bench list models|encoders|datasets` shows what there is."
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
    return [("name", card.name), ("what it is", card.summary), ("from", origin)]


def _show_model(card: ModelCard) -> None:
    from bench.plan import resolve_params
    from registry.cards import Task
    from registry.core import catalogue
    from registry.models import options_of

    params = resolve_params(card, {})
    fields = _common(card, catalogue.models)
    fields += [
        ("kind", card.kind),
        ("encoder", _encoder_words(card)),
        ("initialised from", "pretrained weights" if card.pretrained else "random numbers"),
        ("tasks", ", ".join(card.constraints.tasks)),
    ]
    if card.kind == "network":
        from bench.train.probe import parameter_count

        shape = (91, 109, 91)
        count = parameter_count(card, params, Task("age", "regression"), shape, card.encoder)
        fields.append(("parameters", f"{count:,} on {shape[0]} x {shape[1]} x {shape[2]}"))
    _print_fields(fields)
    _print_options(options_of(card), card.defaults)
    if card.space:
        print_listing(
            ["tuned", "search space"], [[name, str(dim)] for name, dim in card.space.items()]
        )


def _show_plan() -> None:
    """Print how fast networks were found to be on this machine, and what was chosen."""
    import json

    from bench.config import load_config

    files = sorted((load_config().cache / "layouts").glob("[!.]*.json"))
    measured = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    # Older ones were known by less of the code; they are not used any more.
    measured = [found for found in measured if "libraries" in found]
    if not measured:
        print("Nothing was measured here yet: runs of 120 steps or more are measured at first.")
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
        print_listing(["memory format", "way", "s a step", "s to compile", ""], rows)


def _show_encoder(card: EncoderCard) -> None:
    from bench.train.encoder import encoder_handle
    from registry.core import catalogue

    weights = card.weights
    fields = _common(card, catalogue.encoders)
    fields += [
        ("channels", str(card.channels)),
        ("smallest slice", f"{card.min_size} x {card.min_size}"),
        ("features", str(encoder_handle(card, None).feature_dim)),
        ("weights", f"{weights.source}, {weights.licence}" if weights else "none"),
        ("pretrained on", card.pretraining or "-"),
        ("position embedding on", card.position_at),
    ]
    _print_fields(fields)


def _print_options(options: Any, defaults: Any) -> None:
    rows = [
        [name, str(defaults.get(name, option.default)), option.range_text, option.help]
        for name, option in options.items()
    ]
    if rows:
        print_listing(["setting", "default", "range", "what it does"], rows)


def _print_fields(fields: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        print(f"{name:{width}}  {value}")
    print()


def print_listing(head: list[str], rows: list[list[str]]) -> None:
    """Print aligned columns, then the plugins that failed to load."""
    from registry.core import catalogue

    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        print(
            "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    for origin, why in catalogue.broken.items():
        print(f"broken: {origin}: {why}")
    print()
