"""2D encoders: ``build(card, pretrained)`` maps (B, C, H, W) to pooled features (B, feature_dim).

`pretrained` is None for random initialisation, otherwise a state dict, which is loaded strictly.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import timm
import torch.nn.functional as F
import torchvision.models
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

    Random weights are initialised as in torchvision, whose network the papers used; timm's default
    would initialise all residual branches with zero.
    """
    return _loaded(_timm("resnet18", card, zero_init_last=False), card, pretrained)


def build_efficientnet_lite0(card: Card, pretrained: Pretrained) -> nn.Module:
    """Build EfficientNet-Lite0 with 1280 features."""
    return _loaded(_timm("tf_efficientnet_lite0", card), card, pretrained)


def build_timm(card: Card, pretrained: Pretrained) -> nn.Module:
    """Build the timm model of a card ``timm/<name>``, without its classifier.

    For models with a fixed input size (most transformers), slices are resized bilinearly.

    Raises
    ------
    ValueError
        If timm has no such model, or if `pretrained` does not match it.
    """
    model = _timm(card.name.removeprefix("timm/"), card)
    _loaded(model, card, pretrained)
    config = model.default_cfg
    return Resized(model, config["input_size"][1:]) if config["fixed_input_size"] else model


def build_torchvision(card: Card, pretrained: Pretrained) -> nn.Module:
    """Build the torchvision classifier of a card ``torchvision/<name>``, without its head.

    The features are the input of its last layer. The dropout before that layer is also removed,
    because slice models have their own. For transformers, slices are resized bilinearly to the
    input size of the pretraining.

    Raises
    ------
    ValueError
        If torchvision has no such model or weights, if the card does not have three channels, or
        if `pretrained` does not match the model.
    """
    published = torchvision_weights(card.name.removeprefix("torchvision/"))
    name = card.name.removeprefix("torchvision/").partition(".")[0]
    if card.channels != 3:
        raise ValueError(f"torchvision's {name} needs 3 channels, got {card.channels}.")
    height, width = published.meta["min_size"]
    options: dict[str, Any] = {}
    if name in ("inception_v3", "googlenet"):
        # With `transform_input`, they rescale inputs to [-1, 1], as their weights require.
        options = {
            "aux_logits": False,
            "transform_input": pretrained is not None,
            "init_weights": pretrained is None,
        }
    elif name.startswith("vit_"):
        options = {"image_size": height}
    model = torchvision.models.get_model(name, weights=None, **options)
    transforms = published.transforms()
    model.default_cfg = {"classifier": _without_classifier(model)}
    model.pretrained_cfg = {"mean": tuple(transforms.mean), "std": tuple(transforms.std)}
    _loaded(model, card, pretrained)
    return Resized(model, (height, width)) if height >= SMALLEST_TRANSFORMER else model


SMALLEST_TRANSFORMER = 224
"""Smallest input size of torchvision's transformers; all other models accept smaller inputs."""


def torchvision_weights(name: str) -> Any:
    """Return torchvision's entry for the weights ``<model>.<tag>``, the default without a tag.

    Raises
    ------
    ValueError
        If torchvision has no such classifier, or no such weights for it.
    """
    architecture, _, tag = name.partition(".")
    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=1)
        hint = f"did you mean 'torchvision/{near[0]}'?" if near else "see torchvision's model page."
        raise ValueError(f"torchvision has no classifier {architecture!r}; {hint}")
    weights = torchvision.models.get_model_weights(architecture)
    if tag and tag not in weights.__members__:
        raise ValueError(
            f"torchvision has no weights {tag!r} for {architecture}; "
            f"choose one of {', '.join(weights.__members__)}."
        )
    return weights[tag or "DEFAULT"]


def _without_classifier(model: nn.Module) -> str:
    """Replace the classification layer by the identity and return its name."""
    classes = 1000
    name = [
        name
        for name, module in model.named_modules()
        if getattr(module, "out_features", getattr(module, "out_channels", 0)) == classes
        and isinstance(module, nn.Linear | nn.Conv2d)
    ][-1]
    parent_name, _, own_name = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    for child_name, child in list(parent.named_children()):
        if child_name == own_name or isinstance(child, nn.Dropout):
            setattr(parent, child_name, nn.Identity())
    return name


class Resized(nn.Module):
    """An encoder with a fixed input size (H, W), to which slices are resized bilinearly."""

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
        hint = f"did you mean 'timm/{near[0]}'?" if near else "see timm.list_models()."
        raise ValueError(f"timm has no model {architecture!r}; {hint}")
    return timm.create_model(name, num_classes=0, in_chans=card.channels, **options)


def _loaded(model: nn.Module, card: Card, pretrained: Pretrained) -> nn.Module:
    if pretrained is not None:
        load_strictly(model, pretrained, card.name)
    return model
