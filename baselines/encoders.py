"""2D encoders: ``build(card, pretrained)`` maps (B, C, H, W) to pooled features (B, feature_dim).

`pretrained` is None for random initialisation, else a state dict; it is loaded strictly.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.blocks import Trunk
from baselines.contracts import Card
from baselines.weights import load_strictly

Pretrained = Mapping[str, Tensor] | None


def build_own(card: Card, pretrained: Pretrained) -> nn.Module:
    """Build the papers' own encoder: five blocks and a 1x1 convolution to 64 features."""
    return _loaded(Trunk(dims=2, channels=card.channels), card, pretrained)


def build_resnet18(card: Card, pretrained: Pretrained) -> nn.Module:
    """Build ResNet-18 with 512 features.

    Random weights start as torchvision's do, whose network the papers trained; timm would start
    every residual branch at zero.
    """
    return _loaded(_timm("resnet18", card, zero_init_last=False), card, pretrained)


def build_efficientnet_lite0(card: Card, pretrained: Pretrained) -> nn.Module:
    """Build EfficientNet-Lite0 with 1280 features."""
    return _loaded(_timm("tf_efficientnet_lite0", card), card, pretrained)


def build_timm(card: Card, pretrained: Pretrained) -> nn.Module:
    """Build the timm model that a card ``timm/<name>`` names, without its classifier.

    A model of fixed input size (most transformers) is given slices resized to it, bilinearly.

    Raises
    ------
    ValueError
        When timm knows no such model, or `pretrained` does not fit it.
    """
    model = _timm(card.name.removeprefix("timm/"), card)
    _loaded(model, card, pretrained)
    config = model.default_cfg
    return Resized(model, config["input_size"][1:]) if config["fixed_input_size"] else model


class Resized(nn.Module):
    """An encoder behind a bilinear resize to its fixed input size (H, W)."""

    def __init__(self, encoder: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, feature_dim)."""
        return self.encoder(F.interpolate(x, self.size, mode="bilinear", align_corners=False))


def _timm(name: str, card: Card, **options: Any) -> Any:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=1)
        hint = f"did you mean 'timm/{near[0]}'" if near else "see timm.list_models()"
        raise ValueError(f"timm has no model {architecture!r}; {hint}.")
    return timm.create_model(name, num_classes=0, in_chans=card.channels, **options)


def _loaded(model: nn.Module, card: Card, pretrained: Pretrained) -> nn.Module:
    if pretrained is not None:
        load_strictly(model, pretrained, card.name)
    return model
