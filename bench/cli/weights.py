"""``bench weights``: what pretrained weights there are, and fetching them with internet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="List or fetch pretrained weights.")


@app.command("list")
def list_weights() -> None:
    """List encoders with pretrained weights and where they are on this machine."""
    from bench.config import load_config
    from bench.train.encoder import encoder_handle
    from bench.train.weights import locate
    from registry.core import catalogue

    config = load_config()
    catalogue.load_entry_points()
    for card in catalogue.encoders:
        if card.weights is None:
            continue
        file = locate(card, config.weights, config.cache)
        print(f"{card.name}\n  source   {card.weights.source}\n  licence  {card.weights.licence}")
        if file is None:
            print(
                f"  here     no; `bench weights get {card.name} --out DIR` where there is internet"
            )
        else:
            print(f"  here     {file}\n  sha256   {encoder_handle(card, file).weights_digest()}")


@app.command("get")
def get(
    encoder: Annotated[str, typer.Argument(help="An encoder; also timm/NAME or torchvision/NAME.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to put the file in.")],
) -> None:
    """Fetch an encoder's weights into a file to carry to a machine without internet."""
    from bench.train.weights import cached_file, download_weights
    from registry.core import catalogue

    catalogue.load_entry_points()
    card = catalogue.encoder(encoder)
    file = download_weights(card, out / cached_file(card, out).name)
    print(f"{file}\nUse it with --weights {encoder}={file.name}")
