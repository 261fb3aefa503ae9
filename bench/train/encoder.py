"""The handle by which an encoder reaches a model."""

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
    """What a model may know of its encoder; `make` returns the module, weights loaded."""

    card: EncoderCard
    state: dict[str, Tensor] | None
    """The pretrained tensors, None for random initialisation."""
    feature_dim: int
    mean: tuple[float, ...] | None
    """Channel means of the pretraining images: the card's, else what timm says of the model."""
    std: tuple[float, ...] | None
    """Channel standard deviations, likewise."""

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self.card.name

    @property
    def channels(self) -> int:
        """Channels the encoder expects."""
        return self.card.channels

    @property
    def min_size(self) -> int:
        """Smallest height and width of a slice."""
        return self.card.min_size

    @property
    def position_at(self) -> str:
        """Where a slice model puts its position embedding."""
        return self.card.position_at

    def make(self) -> nn.Module:
        """Build the encoder, from the random state as it is or with its pretrained tensors."""
        return _build(self.card, self.state)

    def weights_digest(self) -> str:
        """Return the digest of the pretrained tensors as the encoder holds them; empty if random.

        Raises
        ------
        UserError
            When the card states another digest: the file is not what it claims to be. Also when
            the encoder is left with random numbers.
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
                f"The encoder {self.name} does not start from the weights that it was given: its "
                "build(card, pretrained) must load `pretrained` into all of its layers."
            )
        (digest,) = digests
        stated = self.card.weights.sha256 if self.card.weights else ""
        if stated and stated != digest:
            raise UserError(
                f"The weights found for {self.name} are not those its card states (sha256 "
                f"{digest[:12]} instead of {stated[:12]}); give the right file with --weights."
            )
        return digest


def encoder_handle(card: EncoderCard, weights: Path | None) -> EncoderHandle:
    """Make the handle of an encoder.

    Parameters
    ----------
    card : EncoderCard
        The encoder.
    weights : pathlib.Path or None
        File of pretrained weights; None for random initialisation.

    Raises
    ------
    UserError
        When the encoder cannot be built, the file does not fit it, or its output is not
        ``(B, feature_dim)``.
    """
    state = read_tensors(weights) if weights is not None else None
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        side = max(card.min_size, 32)
        module = _build(card, state).eval()
        try:
            features = module(torch.zeros(1, card.channels, side, side))
        except Exception as error:
            # Whatever a stranger's network raises, the user needs to know whose fault it is.
            raise UserError(
                f"The encoder {card.name} fails on a ({card.channels}, {side}, {side}) slice: "
                f"{type(error).__name__}: {error}"
            ) from error
    if features.ndim != 2 or features.shape[0] != 1:
        raise UserError(
            f"The encoder {card.name} must return (B, feature_dim) but returns "
            f"{tuple(features.shape)} for one slice; end it with a global pool and Flatten."
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
        # A builder's own sentence about what it was given.
        raise UserError(str(error)) from error
    except Exception as error:
        raise UserError(
            f"The encoder {card.name} cannot be built: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        raise UserError(f"The encoder {card.name} returns no torch module.")
    return module
