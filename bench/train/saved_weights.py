"""Trained weights with the spec that makes them a model again."""

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
    """Write a network's state as safetensors, its arm and target scale in the header."""
    spec = {
        "trial": unit.key,
        "arm": plain(unit.arm),
        "params": params,
        "shape": list(shape),
        "mean": learner.mean,
        "scale": learner.scale,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # As bytes: the library's own writer does not tell a full disk from other errors.
    file.write_bytes(save(tensors, metadata={SPEC: json.dumps(spec, allow_nan=False)}))


def read_spec(file: Path) -> dict[str, Any]:
    """Return what `save_weights` wrote into the header.

    Raises
    ------
    UserError
        When the file is none of ours.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            spec: dict[str, Any] = json.loads((tensors.metadata() or {})[SPEC])
    except Exception as error:
        # The library raises its own types, json and dict theirs; the user needs the file's name.
        raise UserError(
            f"{file} holds no weights kept by bench run: {type(error).__name__}."
        ) from None
    return spec


def predict_with(
    file: Path, volumes: NDArray[np.float16], rows: NDArray[np.int64], device: torch.device
) -> NDArray[np.float64]:
    """Return the predictions (n, k) of kept weights on scans of any cohort of the same grid.

    Parameters
    ----------
    file : pathlib.Path
        From `save_weights`.
    volumes : array (N, D, H, W)
        The cohort.
    rows : array of int (n,)
        Which scans.
    device : torch.device
        Where to compute.

    Raises
    ------
    UserError
        When the volumes have another shape than those trained on, or the model is not the one that
        was trained.
    """
    spec = read_spec(file)
    shape = tuple(spec["shape"])
    if tuple(volumes.shape[1:]) != shape:
        raise UserError(
            f"The trial was trained on volumes of {'x'.join(map(str, shape))} voxels, these have "
            f"{'x'.join(map(str, volumes.shape[1:]))}; prepare the cohort with the same settings."
        )
    arm = arm_from_plain(spec["arm"])
    card = catalogue.model(arm.model.name)
    _refuse_other_code("model", arm.model, card)
    handle = None
    if arm.encoder is not None:
        # The trained tensors replace whatever it starts with.
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
        # Libraries build other layers in other versions.
        raise UserError(
            f"The weights in {file} do not fit the model {card.name} as it is built here; use the "
            "versions of libraries that the trial's record names (`bench report`)."
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
            f"The {kind} {trained.name}{where} is not the one that the trial was trained with: its "
            "code has changed since. Use that code, or run the trial again."
        )
