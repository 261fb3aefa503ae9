"""Pretrained weights from a file, an installed package, a cache or a download."""

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
    """No pretrained weights were found; the message explains how to get them."""


def find_weights(card: EncoderCard, given: Mapping[str, str], cache: Path) -> Path:
    """Return the file of an encoder's pretrained weights.

    They are searched in this order: the file given by the user, the installed package named on the
    card, the local caches (of slicebench, Hugging Face and torchvision), and a download.

    Parameters
    ----------
    card : EncoderCard
        The encoder.
    given : mapping
        Names of encoders to files, from ``--weights`` and ``bench.toml``.
    cache : pathlib.Path
        The cache directory.

    Raises
    ------
    WeightsMissing
        If they are not found.
    """
    found = locate(card, given, cache) or _downloaded(card, cache)
    if found is None and card.weights is None:
        raise WeightsMissing(
            f"The encoder {card.name} has no pretrained weights; provide a file with --weights "
            f"{card.name}=FILE, or choose a model without pretraining."
        )
    if found is None:
        assert card.weights is not None
        raise WeightsMissing(
            f"The pretrained weights of the encoder {card.name} ({card.weights.source}) were not "
            "found and could not be downloaded. Either provide a file with --weights "
            f"{card.name}=FILE, which you can get by running `bench weights get {card.name} --out "
            "DIR` on a machine with internet access, or use an encoder whose weights are installed "
            "as a package (--encoder efficientnet-lite0)."
        )
    return found


def locate(card: EncoderCard, given: Mapping[str, str], cache: Path) -> Path | None:
    """Return the local file of an encoder's weights, None if there is none.

    Raises
    ------
    UserError
        If the file given by the user does not exist.
    """
    if card.name in given:
        file = Path(given[card.name]).expanduser()
        if not file.is_file():
            raise UserError(
                f"The file {file} with weights of the encoder {card.name} does not exist; check "
                "--weights and [weights] in bench.toml."
            )
        return file
    if card.weights is None:
        return None
    return _in_package(card.weights) or _in_caches(card, cache)


def cached_file(card: EncoderCard, cache: Path) -> Path:
    """Return the path of the downloaded weights of an encoder."""
    pickled = card.weights is not None and not card.weights.hub
    suffix = ".pth" if pickled else ".safetensors"
    return cache / "weights" / f"{card.name.replace('/', '--')}{suffix}"


def download_weights(card: EncoderCard, target: Path) -> Path:
    """Download the weights of an encoder from Hugging Face or PyTorch to the file `target`.

    Raises
    ------
    UserError
        If there is no download for the encoder, or it failed.
    """
    weights = card.weights
    if weights is None or not (weights.hub or weights.torchvision):
        raise UserError(f"There is no download of weights for the encoder {card.name}.")
    if weights.hub:
        _download_from_hub(card, weights, target)
    else:
        _download_from_torchvision(card, weights, target)
    return target


def _download_from_hub(card: EncoderCard, weights: Weights, target: Path) -> None:
    from huggingface_hub import constants, hf_hub_download

    # Without internet access, the client would retry for half a minute.
    if not _reachable(constants.ENDPOINT):
        raise UserError(
            f"The weights of {card.name} could not be downloaded, because {constants.ENDPOINT} "
            "cannot be reached from this machine; run this command on one with internet access."
        )
    try:
        fetched = hf_hub_download(_repository(weights), HUB_FILE)
    except Exception as error:
        # The client raises many unrelated types of errors.
        raise UserError(
            f"The weights of {card.name} could not be downloaded from {_repository(weights)}: "
            f"{type(error).__name__}."
        ) from None
    _copy(Path(fetched), target)


def _download_from_torchvision(card: EncoderCard, weights: Weights, target: Path) -> None:
    url = _torchvision_url(weights)
    if not _reachable(url):
        raise UserError(
            f"The weights of {card.name} could not be downloaded, because {url} cannot be reached "
            "from this machine; run this command on one with internet access."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # The file name ends with the first digits of its sha256.
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
        If the file is neither safetensors nor a state dict of tensors.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # Both libraries raise many types of errors for damaged files.
        raise UserError(
            f"The weights file {file} cannot be read ({type(error).__name__}); it must be a "
            "safetensors file or a state dict saved by torch."
        ) from None
    for name in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"The weights file {file} does not contain a state dict of tensors.")
    return dict(state)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of named tensors, which does not depend on the machine or file format.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        The state dict of an encoder. Step counters of BatchNorm are ignored, because they may
        differ between files with equal weights.

    Returns
    -------
    str
        64 hexadecimal digits computed from the sorted names, data types, shapes and little-endian
        bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(n for n in tensors if not n.endswith("num_batches_tracked")):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # numpy does not support bfloat16, so its bits are used.
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
        # find_weights raises an error that lists all ways to get the weights.
        return None


def _repository(weights: Weights) -> str:
    """Return the hub repository, which for timm includes the default tag if there is none."""
    prefix, _, name = weights.hub.partition("/")
    if prefix != "timm" or "." in name:
        return weights.hub
    import timm

    configuration = timm.models.get_pretrained_cfg(name)
    if configuration is None or not configuration.hf_hub_id:
        raise WeightsMissing(f"timm has no pretrained weights for {name}.")
    return str(configuration.hf_hub_id)


def _torchvision_url(weights: Weights) -> str:
    """Return the URL of torchvision's weights ``<model>.<tag>``."""
    from torchvision.models import get_model_weights

    model, _, tag = weights.torchvision.partition(".")
    try:
        return str(get_model_weights(model)[tag or "DEFAULT"].url)
    except (ValueError, KeyError):
        raise WeightsMissing(
            f"torchvision has no weights {weights.torchvision}; the available ones are listed in "
            "its documentation under models and pre-trained weights."
        ) from None


def _reachable(address: str) -> bool:
    """Return whether a host can be reached; with a proxy, this is left to the client."""
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
