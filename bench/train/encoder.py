"""The handle with which models build their encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.train.weights import read_tensors, tensors_digest
from registry.cards import EncoderCard
from registry.core import resolve
from registry.errors import UserError


@dataclass(frozen=True)
class EncoderHandle:
    """Properties of an encoder for models; `make` builds it with its weights."""

    card: EncoderCard
    state: dict[str, Tensor] | None
    """The pretrained tensors, None for random initialisation."""
    feature_dim: int
    mean: tuple[float, ...] | None
    """Channel means of the pretraining images, from the card or from timm."""
    std: tuple[float, ...] | None
    """Channel standard deviations of the pretraining images, from the card or from timm."""

    @property
    def name(self) -> str:
        """The name of the encoder."""
        return self.card.name

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return self.card.channels

    @property
    def min_size(self) -> int:
        """Minimum height and width of a slice."""
        return self.card.min_size

    @property
    def position_at(self) -> str:
        """Where slice models add their position embedding."""
        return self.card.position_at

    def make(self) -> nn.Module:
        """Build the encoder with pretrained or randomly initialised weights."""
        return _build(self.card, self.state)

    def weights_digest(self) -> str:
        """Return the digest of the pretrained tensors after loading, empty if there are none.

        Raises
        ------
        UserError
            If the digest differs from that on the card, or some layers are initialised randomly.
        """
        if self.state is None:
            return ""
        digests = set()
        for seed in range(2):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                digests.add(tensors_digest(self.make().state_dict()))
        if len(digests) > 1:
            raise UserError(
                f"The encoder {self.name} does not load all of its pretrained weights: its "
                "build(card, pretrained) must load `pretrained` into all layers."
            )
        (digest,) = digests
        stated = self.card.weights.sha256 if self.card.weights else ""
        if stated and stated != digest:
            raise UserError(
                f"The weights found for the encoder {self.name} are not the expected ones (sha256 "
                f"{digest[:12]} instead of {stated[:12]}); specify the right file with --weights "
                f"{self.name}=FILE."
            )
        return digest


def encoder_handle(card: EncoderCard, weights: Path | None) -> EncoderHandle:
    """Return the handle of an encoder.

    Parameters
    ----------
    card : EncoderCard
        The encoder.
    weights : pathlib.Path or None
        File of pretrained weights; None for random initialisation.

    Raises
    ------
    UserError
        If the encoder cannot be built, the weights do not match it, or its output does not have
        the shape ``(B, feature_dim)``.
    """
    state = read_tensors(weights) if weights is not None else None
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        side = max(card.min_size, 32)
        module = _build(card, state).eval()
        try:
            features = module(torch.zeros(1, card.channels, side, side))
        except Exception as error:
            # A plugin may raise anything; the message names the encoder.
            raise UserError(
                f"The encoder {card.name} failed for a ({card.channels}, {side}, {side}) slice: "
                f"{type(error).__name__}: {error}"
            ) from error
    if features.ndim != 2 or features.shape[0] != 1:
        raise UserError(
            f"The encoder {card.name} must return the shape (B, feature_dim), but returned "
            f"{tuple(features.shape)} for one slice; add global pooling and Flatten at its end."
        )
    known = getattr(module, "pretrained_cfg", None) or {}
    return EncoderHandle(
        card=card,
        state=state,
        feature_dim=int(features.shape[1]),
        mean=card.mean or known.get("mean"),
        std=card.std or known.get("std"),
    )


def _build(card: EncoderCard, state: dict[str, Tensor] | None) -> nn.Module:
    try:
        module = resolve(card.target)(card, state)
    except UserError:
        raise
    except ValueError as error:
        # The message of the builder is meant for the user.
        raise UserError(str(error)) from error
    except Exception as error:
        raise UserError(
            f"The encoder {card.name} cannot be built: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        raise UserError(
            f"The build function of the encoder {card.name} must return a torch.nn.Module, not "
            f"{type(module).__name__}."
        )
    return module
