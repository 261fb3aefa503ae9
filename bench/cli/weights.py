"""``bench weights``: listing and downloading pretrained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Plugins

app = typer.Typer(no_args_is_help=True, help="List or download pretrained weights.")


@app.command("list")
def list_weights(plugins: Plugins = None) -> None:
    """List encoders with pretrained weights, and their files."""
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
                "  file     not available; run "
                f"`bench weights get {card.name} --out DIR` with internet access"
            )
        else:
            print(f"  file     {file}\n  sha256   {encoder_handle(card, file).weights_digest()}")


@app.command("get")
def get(
    encoder: Annotated[
        str, typer.Argument(help="An encoder, including timm/NAME and torchvision/NAME.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory for the file.")],
    plugins: Plugins = None,
) -> None:
    """Download the weights of an encoder to a file."""
    from bench.cli.catalogue import load_plugins
    from bench.train.weights import cached_file, download_weights
    from registry.core import catalogue

    load_plugins(plugins, strict=True)
    card = catalogue.encoder(encoder)
    file = download_weights(card, out / cached_file(card, out).name)
    print(f"{file}\nUse it with --weights {encoder}={file.name}")
