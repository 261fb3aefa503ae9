"""Checks of networks before training."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.spec import Arm
from bench.train import count
from bench.train.encoder import EncoderHandle, encoder_handle
from registry.cards import ModelCard, Task
from registry.core import catalogue, resolve
from registry.errors import UserError
from registry.models import complete_params

PROBE_BATCH = 2


def check_network(card: ModelCard, arm: Arm, shape: tuple[int, int, int], weights: str) -> None:
    """Build a network and run it once with random input.

    Parameters
    ----------
    card, arm : ModelCard, Arm
        The model to check.
    shape : tuple of int
        The shape (D, H, W) of the volumes.
    weights : str
        File of the encoder's pretrained weights, empty for random initialisation.

    Raises
    ------
    UserError
        If the network cannot be built, raises an error, or returns the wrong shape or values that
        are not finite.
    """
    handle = None
    if arm.encoder is not None:
        file = Path(weights) if weights else None
        handle = encoder_handle(catalogue.encoder(arm.encoder.name), file)
    wanted = (PROBE_BATCH, arm.task.n_outputs)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            params = complete_params(card, arm.params)
            network = resolve(card.target)(params, arm.task, shape, handle).eval()
            outputs = network(torch.randn(PROBE_BATCH, 1, *shape))
        except UserError:
            raise
        except ValueError as error:
            # The message of the builder about its settings or the shape is meant for the user.
            raise UserError(f"The model {card.name}: {error}") from error
        except Exception as error:
            # A plugin may raise anything; the message names the model.
            raise UserError(
                f"The model {card.name} failed for volumes of shape {shape}: "
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ) from error
    found = tuple(getattr(outputs, "shape", ()))
    if found != wanted:
        raise UserError(
            f"The model {card.name} must return the shape {wanted} for {PROBE_BATCH} volumes, but "
            f"returned {found}; use task.n_outputs in its build function."
        )
    if not torch.isfinite(outputs).all():
        raise UserError(
            f"The model {card.name} returned values that are not finite for random input; check "
            "its initialisation and settings."
        )


def parameter_count(
    card: ModelCard,
    params: dict[str, bool | int | float | str],
    task: Task,
    shape: tuple[int, int, int],
    encoder: str | None,
) -> int:
    """Return the number of parameters of a network, without allocating memory for them."""
    handle: EncoderHandle | None = None
    if encoder is not None:
        handle = encoder_handle(catalogue.encoder(encoder), None)
    with torch.device("meta"):
        network = resolve(card.target)(complete_params(card, params), task, shape, handle)
    return count.parameter_count(network)
