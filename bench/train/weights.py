"""Pretrained weights: a given file, an installed package, a cache, a download; or an error."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bench.files import atomic_write
from registry.cards import EncoderCard, Weights
from registry.errors import UserError

HUB_FILE = "model.safetensors"


class WeightsMissing(UserError):
    """No weights were found; the sentence names the ways to get them."""


def find_weights(card: EncoderCard, given: Mapping[str, str], cache: Path) -> Path:
    """Return the file of an encoder's pretrained weights.

    Looked for in this order: the file given for the encoder, the installed package its card
    names, the local caches (ours, Hugging Face's, torchvision's), a download. Never random numbers.

    Parameters
    ----------
    card : EncoderCard
        Its `weights` say where they come from.
    given : mapping
        Encoder name to file, from ``--weights`` and ``bench.toml``.
    cache : pathlib.Path
        The harness's cache folder.

    Raises
    ------
    WeightsMissing
        When none of the four has them, or the card has no weights at all.
    """
    found = locate(card, given, cache) or _downloaded(card, cache)
    if found is None and card.weights is None:
        raise WeightsMissing(
            f"The encoder {card.name} has no pretrained weights; give a file with "
            f"--weights {card.name}=FILE or choose a scratch model."
        )
    if found is None:
        assert card.weights is not None
        raise WeightsMissing(
            f"No pretrained weights for the encoder {card.name} ({card.weights.source}) were found "
            "and they could not be downloaded. Three ways to get them: give a file with "
            f"--weights {card.name}=FILE; on a machine with internet run `bench weights get "
            f"{card.name} --out DIR` and copy the file here; or choose one whose weights are "
            "an installed package (--encoder efficientnet-lite0)."
        )
    return found


def locate(card: EncoderCard, given: Mapping[str, str], cache: Path) -> Path | None:
    """Return the file of an encoder's weights on this machine, None when there is none.

    Raises
    ------
    UserError
        When a file was given for the encoder and does not exist.
    """
    if card.name in given:
        file = Path(given[card.name]).expanduser()
        if not file.is_file():
            raise UserError(f"The weights file {file} given for {card.name} does not exist.")
        return file
    if card.weights is None:
        return None
    return _in_package(card.weights) or _in_caches(card, cache)


def cached_file(card: EncoderCard, cache: Path) -> Path:
    """Return where a downloaded file of an encoder's weights is kept."""
    pickled = card.weights is not None and not card.weights.hub
    suffix = ".pth" if pickled else ".safetensors"
    return cache / "weights" / f"{card.name.replace('/', '--')}{suffix}"


def download_weights(card: EncoderCard, target: Path) -> Path:
    """Fetch an encoder's weights from Hugging Face or PyTorch into the file `target`.

    Raises
    ------
    UserError
        When the card names no place to download from, or that place cannot be reached.
    """
    weights = card.weights
    if weights is None or not (weights.hub or weights.torchvision):
        raise UserError(f"The encoder {card.name} names no place to download weights from.")
    if weights.hub:
        _download_from_hub(card, weights, target)
    else:
        _download_from_torchvision(card, weights, target)
    return target


def _download_from_hub(card: EncoderCard, weights: Weights, target: Path) -> None:
    from huggingface_hub import constants, hf_hub_download

    # The client would retry for half a minute, which nobody on a cluster without internet needs.
    if not _reachable(constants.ENDPOINT):
        raise UserError(
            f"The weights of {card.name} could not be downloaded: {constants.ENDPOINT} cannot be "
            "reached from here."
        )
    try:
        fetched = hf_hub_download(_repository(weights), HUB_FILE)
    except Exception as error:
        # The client raises a dozen unrelated types where there is no network.
        raise UserError(
            f"The weights of {card.name} could not be downloaded from {_repository(weights)}: "
            f"{type(error).__name__}."
        ) from None
    _copy(Path(fetched), target)


def _download_from_torchvision(card: EncoderCard, weights: Weights, target: Path) -> None:
    url = _torchvision_url(weights)
    if not _reachable(url):
        raise UserError(
            f"The weights of {card.name} could not be downloaded: {url} cannot be reached."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # The name of the file ends with the first digits of its sha256, which are checked.
    expected = Path(url).stem.rpartition("-")[2]
    try:
        torch.hub.download_url_to_file(url, str(target), hash_prefix=expected, progress=False)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"The weights of {card.name} could not be downloaded from {url}: "
            f"{type(error).__name__}."
        ) from None


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read a state dict without executing anything in the file.

    Raises
    ------
    UserError
        When the file is neither safetensors nor a plain state dict of tensors.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # Both libraries raise many types on broken files; the user needs the file's name.
        raise UserError(
            f"The weights file {file} cannot be read as tensors: {type(error).__name__}."
        ) from None
    for name in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"The weights file {file} holds no state dict of tensors.")
    return dict(state)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of tensors by name: the same on every machine and in every file format.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        The state dict of an encoder, weights loaded. BatchNorm's step counters are left out: they
        differ between files of equal weights.

    Returns
    -------
    str
        64 hexadecimal digits over names in order, dtypes, shapes and little-endian bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(n for n in tensors if not n.endswith("num_batches_tracked")):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # numpy has no bfloat16; its bits do.
        bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
        array = bits.numpy()
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def _in_package(weights: Weights) -> Path | None:
    if not weights.package:
        return None
    module, _, name = weights.package.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / name
    return file if file.is_file() else None


def _in_caches(card: EncoderCard, cache: Path) -> Path | None:
    ours = cached_file(card, cache)
    if ours.is_file():
        return ours
    weights = card.weights
    assert weights is not None
    if weights.hub:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(_repository(weights), HUB_FILE)
        if isinstance(found, str):
            return Path(found)
    if weights.torchvision:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(_torchvision_url(weights)).name
        return file if file.is_file() else None
    return None


def _downloaded(card: EncoderCard, cache: Path) -> Path | None:
    if card.weights is None or not (card.weights.hub or card.weights.torchvision):
        return None
    try:
        return download_weights(card, cached_file(card, cache))
    except UserError:
        # find_weights says it all in one sentence, with the other ways.
        return None


def _repository(weights: Weights) -> str:
    """Return the hub repository; timm's default tag stands in where the name has none."""
    prefix, _, name = weights.hub.partition("/")
    if prefix != "timm" or "." in name:
        return weights.hub
    import timm

    configuration = timm.models.get_pretrained_cfg(name)
    if configuration is None or not configuration.hf_hub_id:
        raise WeightsMissing(f"timm has no pretrained weights for {name}.")
    return str(configuration.hf_hub_id)


def _torchvision_url(weights: Weights) -> str:
    """Return the address of a file of torchvision's weights ``<model>.<tag>``."""
    from torchvision.models import get_model_weights

    model, _, tag = weights.torchvision.partition(".")
    try:
        return str(get_model_weights(model)[tag or "DEFAULT"].url)
    except (ValueError, KeyError):
        raise WeightsMissing(
            f"torchvision has no weights {weights.torchvision}; "
            "its page of models and pre-trained weights names those that exist."
        ) from None


def _reachable(address: str) -> bool:
    """Tell whether a host answers; a proxy is asked by the client itself."""
    if urllib.request.getproxies():
        return True
    url = urllib.parse.urlsplit(address)
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(source, "rb") as content, atomic_write(target) as stream:
        shutil.copyfileobj(content, stream)
