"""Questions that need torch, asked before anything is trained."""

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
    """Build a network as its trials will and pass noise through it once.

    Parameters
    ----------
    card, arm : ModelCard, Arm
        What is checked.
    shape : tuple of int
        (D, H, W) of the cohort.
    weights : str
        File of the encoder's pretrained weights, empty for none.

    Raises
    ------
    UserError
        When it cannot be built, fails, or returns the wrong shape or values that are not finite.
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
            # A builder's own sentence about its settings or the volume's shape.
            raise UserError(f"The model {card.name}: {error}") from error
        except Exception as error:
            # Whatever a stranger's network raises, the user needs to know whose fault it is.
            raise UserError(
                f"The model {card.name} fails on volumes of shape {shape}: "
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ) from error
    found = tuple(getattr(outputs, "shape", ()))
    if found != wanted:
        raise UserError(
            f"The model {card.name} must return shape {wanted} for {PROBE_BATCH} volumes but "
            f"returns {found}; its build() receives task.n_outputs."
        )
    if not torch.isfinite(outputs).all():
        raise UserError(f"The model {card.name} returns values that are not finite on noise.")


def parameter_count(
    card: ModelCard,
    params: dict[str, bool | int | float | str],
    task: Task,
    shape: tuple[int, int, int],
    encoder: str | None,
) -> int:
    """Return how many parameters a network has, frozen ones included; no memory is filled."""
    handle: EncoderHandle | None = None
    if encoder is not None:
        handle = encoder_handle(catalogue.encoder(encoder), None)
    with torch.device("meta"):
        network = resolve(card.target)(complete_params(card, params), task, shape, handle)
    return count.parameter_count(network)
