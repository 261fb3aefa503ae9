"""``bench weights``: what pretrained weights there are, and fetching them with internet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Plugins

app = typer.Typer(no_args_is_help=True, help="List or download pretrained weights.")


@app.command("list")
def list_weights(plugins: Plugins = None) -> None:
    """List encoders with pretrained weights, and where these are."""
    from bench.cli.catalogue import load_plugins
    from bench.config import load_config
    from bench.train.encoder import encoder_handle
    from bench.train.weights import locate
    from registry.core import catalogue

    config = load_config()
    load_plugins(plugins, strict=True)
    for card in catalogue.encoders:
        if card.weights is None and card.name not in config.weights:
            continue
        file = locate(card, config.weights, config.cache)
        source = card.weights.source if card.weights else "[weights] of bench.toml"
        licence = card.weights.licence if card.weights else "not stated"
        print(f"{card.name}\n  source   {source}\n  licence  {licence}")
        if file is None:
            print(
                f"  here     no; `bench weights get {card.name} --out DIR` where there is internet"
            )
        else:
            print(f"  here     {file}\n  sha256   {encoder_handle(card, file).weights_digest()}")


@app.command("get")
def get(
    encoder: Annotated[str, typer.Argument(help="An encoder; also timm/NAME or torchvision/NAME.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to put the file in.")],
    plugins: Plugins = None,
) -> None:
    """Download the weights of an encoder into a file."""
    from bench.cli.catalogue import load_plugins
    from bench.train.weights import cached_file, download_weights
    from registry.core import catalogue

    load_plugins(plugins, strict=True)
    card = catalogue.encoder(encoder)
    file = download_weights(card, out / cached_file(card, out).name)
    print(f"{file}\nUse it with --weights {encoder}={file.name}")
