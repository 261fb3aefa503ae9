"""Saving trained weights, and predicting with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save

from bench.spec import Component, arm_from_plain, plain
from bench.train.encoder import encoder_handle
from bench.train.learner import Learner
from bench.train.loader import VolumeLoader
from bench.train.numerics import configure
from bench.unit import Unit
from registry.cards import EncoderCard, ModelCard, Value
from registry.core import catalogue, plugin_digest, resolve
from registry.errors import UserError
from registry.models import complete_params

SPEC = "slicebench"


def save_weights(
    file: Path,
    state: dict[str, torch.Tensor],
    unit: Unit,
    params: dict[str, Value],
    shape: tuple[int, ...],
    learner: Learner,
) -> None:
    """Write the state of a network as safetensors, with its arm and target scale in the header."""
    spec = {
        "trial": unit.key,
        "arm": plain(unit.arm),
        "params": params,
        "shape": list(shape),
        "mean": learner.mean,
        "scale": learner.scale,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # Written as bytes, because safetensors does not distinguish a full disk from other errors.
    file.write_bytes(save(tensors, metadata={SPEC: json.dumps(spec, allow_nan=False)}))


def read_spec(file: Path) -> dict[str, Any]:
    """Return the header written by `save_weights`.

    Raises
    ------
    UserError
        If the file was not written by `save_weights`.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            spec: dict[str, Any] = json.loads((tensors.metadata() or {})[SPEC])
    except Exception as error:
        # Several libraries raise different types of errors here.
        raise UserError(
            f"The file {file} does not contain weights saved by `bench run --keep-weights` "
            f"({type(error).__name__})."
        ) from None
    return spec


def predict_with(
    file: Path, volumes: NDArray[np.float16], rows: NDArray[np.int64], device: torch.device
) -> NDArray[np.float64]:
    """Return the predictions of saved weights for scans of any cohort with the same grid.

    Parameters
    ----------
    file : pathlib.Path
        A file written by `save_weights`.
    volumes : array (N, D, H, W)
        The cohort.
    rows : array of int (n,)
        The scans to predict.
    device : torch.device
        The device to use.

    Returns
    -------
    array (n, k)
        The predictions; see `Learner.predict`.

    Raises
    ------
    UserError
        If the volumes have another shape than those used for training, or the code of the model
        was changed.
    """
    spec = read_spec(file)
    shape = tuple(spec["shape"])
    if tuple(volumes.shape[1:]) != shape:
        raise UserError(
            f"The trial was trained on volumes of {'x'.join(map(str, shape))} voxels, but these "
            f"have {'x'.join(map(str, volumes.shape[1:]))}; prepare the cohort with the same "
            "settings."
        )
    arm = arm_from_plain(spec["arm"])
    card = catalogue.model(arm.model.name)
    _refuse_other_code("model", arm.model, card)
    handle = None
    if arm.encoder is not None:
        # The trained weights replace the initial ones.
        handle = encoder_handle(catalogue.encoder(arm.encoder.name), None)
        _refuse_other_code("encoder", arm.encoder, handle.card)
    params = complete_params(card, spec["params"])
    configure(device, deterministic=False)
    network = resolve(card.target)(params, arm.task, shape, handle)
    with safe_open(file, framework="pt") as tensors:
        state = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    try:
        network.load_state_dict(state)
    except RuntimeError:
        # Other versions of libraries may have different layers.
        raise UserError(
            f"The weights in {file} do not match the model {card.name} as built with the installed "
            "libraries; install the versions that `bench report` lists for the trial."
        ) from None
    learner = Learner(
        network,
        arm.task,
        params,
        np.array([spec["mean"] - spec["scale"], spec["mean"] + spec["scale"]])
        if arm.task.kind == "regression"
        else np.arange(len(arm.task.classes), dtype=np.float64),
        device=device,
        precision=arm.precision or "fp32",
    )
    return learner.predict(VolumeLoader(volumes, rows, None, device))


def _refuse_other_code(kind: str, trained: Component, card: ModelCard | EncoderCard) -> None:
    if (plugin_digest(card), card.version) != (trained.plugin, trained.version):
        where = f" ({card.plugin})" if card.plugin else ""
        raise UserError(
            f"The code of the {kind} {trained.name}{where} has changed since the trial was "
            "trained. Restore that code, or run the trial again."
        )
