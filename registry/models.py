"""The built-in models and the settings that they share. Defaults are the papers' recipe."""

from __future__ import annotations

from collections.abc import Mapping

from registry.cards import Constraints, Dimension, Float, Int, ModelCard, Option, Value

COMMON: dict[str, Option] = {
    "val_size": Option(
        "proportional",
        "validation subjects: a third of the training size, or all of them at every size",
        choices=("proportional", "full"),
    ),
    "select": Option(
        "loss",
        "best epoch and best trial by validation MAE or log loss, or by accuracy (classes, as in "
        "the papers)",
        choices=("loss", "accuracy"),
    ),
}
"""Options of every model."""

RECIPE: dict[str, Option] = {
    "optimizer": Option("adam", "optimiser", choices=("adam", "adamw", "sgd")),
    "lr": Option(1e-4, "learning rate", low=1e-8, high=10.0),
    "weight_decay": Option(1e-4, "weight decay", low=0.0, high=10.0),
    "batch_size": Option(8, "volumes a step", low=1, high=4096),
    "epochs": Option(100, "passes over the training set", low=1, high=100_000),
    "length": Option(
        "epochs",
        "what stays equal across training sizes: the epochs, or the optimiser steps that so many "
        "epochs of the largest size take",
        choices=("epochs", "steps"),
    ),
    "schedule": Option("constant", "learning rate over time", choices=("constant", "cosine")),
    "warmup": Option(0.0, "share of the steps in which the rate rises from 0", low=0.0, high=1.0),
    "clip": Option(0.0, "largest norm of the gradient, 0 for no limit", low=0.0, high=1e6),
    "early_stopping": Option(0, "epochs without improvement before stopping, 0 = off", low=0),
    "loss": Option("mse", "loss for age; classes always have cross-entropy", choices=("mse", "l1")),
    "class_weights": Option("none", "weight of a class in the loss", choices=("none", "balanced")),
    "bn": Option(
        "recalibrate",
        "BatchNorm at evaluation: statistics re-estimated on the training subset, running ones, "
        "or those the encoder came with",
        choices=("recalibrate", "running", "frozen"),
    ),
}
"""Options of every network: the training loop's."""

AUGMENT: dict[str, Option] = {
    "flip": Option(False, "mirror left and right at random", later=True),
    "shift": Option(
        0.0, "largest random shift along each axis, voxels", low=0, high=64, later=True
    ),
    "rotate": Option(
        0.0, "largest random rotation about each axis, degrees", low=0, high=180, later=True
    ),
    "intensity": Option(
        0.0, "largest random change of scale and offset of the signal", low=0, high=1, later=True
    ),
    "noise": Option(0.0, "standard deviation of added noise", low=0, high=10, later=True),
    "drop_slices": Option(
        0.0, "share of slices that become background at random", low=0, high=0.99, later=True
    ),
}
"""Random changes of training volumes, off as in the papers."""

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Slicing axis: its place among the volume's three."""

SLICING: dict[str, Option] = {
    "axis": Option("sagittal", "slicing axis", choices=tuple(AXES)),
    "normalise": Option(
        "none",
        "what the encoder sees: the z-scored volume, or the volume brought to [0, 1] and "
        "normalised by the encoder's mean and std",
        choices=("none", "imagenet"),
    ),
    "freeze": Option(False, "do not train the encoder"),
    "head_width": Option(64, "hidden units of the head", low=1, high=65_536),
    "slice_chunk": Option(
        0,
        "slices of a volume that the encoder takes at once, computed again in the backward pass: "
        "less memory, more time; 0 for all; BatchNorm then sees a chunk at a time",
        low=0,
        high=4096,
        later=True,
    ),
}
STRIDE = {
    "stride": Option(1, "use every k-th slice", low=1, high=4096),
    "skip_empty": Option(
        False,
        "leave out the slices at either end that are background in every training volume",
        later=True,
    ),
}

SLICE2D: dict[str, Option] = {
    **SLICING,
    **STRIDE,
    "pool": Option("mean", "pooling over slices", choices=("mean", "max", "attention")),
    "position": Option(
        "none",
        "position embedding: one learned vector a slice, or fixed sinusoids",
        choices=("none", "learned", "sinusoidal"),
    ),
    "position_norm": Option(
        False,
        "LayerNorm over slices and features after the position embedding (part of the papers' "
        "embedding, on in the -pos models); position=none position_norm=true is the norm alone; "
        "without it and with pool=mean the embedding only adds a constant",
    ),
}
FEWSLICE: dict[str, Option] = {
    **SLICING,
    "k": Option(3, "slices around the middle one", low=1, high=4096),
    "spacing": Option(4, "distance of neighbours among them, in slices", low=1, high=4096),
    "form": Option(
        "average",
        "embed each slice and average, or make the slices the channels of one image",
        choices=("average", "channels"),
    ),
}
POSITION: dict[str, Value] = {"position": "learned", "position_norm": True}

SPACE: dict[str, Dimension] = {
    "lr": Float(1e-5, 1e-2, log=True),
    "weight_decay": Float(1e-6, 1e-2, log=True),
    "dropout": Float(0.0, 0.7),
}
"""Search space of every network: the same dimensions, so that none is tuned harder."""

SMOKE: dict[str, Value] = {"batch_size": 2, "epochs": 1}


def dropout(rate: float) -> dict[str, Option]:
    """Return the dropout option with a default rate."""
    return {"dropout": Option(rate, "dropout before the last embedding", low=0.0, high=0.95)}


def slice2d(
    name: str,
    summary: str,
    encoder: str = "resnet18",
    pretrained: bool = False,
    defaults: Mapping[str, Value] | None = None,
) -> ModelCard:
    """Return the card of a 2D-slice model; with the papers' own encoder it has their dropout."""
    own = encoder == "own"
    return ModelCard(
        name=name,
        target="baselines.slice2d:build",
        summary=summary,
        encoder=encoder,
        encoder_fixed=own,
        pretrained=pretrained,
        options={**SLICE2D, **dropout(0.5 if own else 0.0)},
        defaults=defaults or {},
        space=SPACE,
        smoke={**SMOKE, "stride": 8},
    )


def fewslice(name: str, summary: str, pretrained: bool) -> ModelCard:
    """Return the card of a few-slice model."""
    return ModelCard(
        name=name,
        target="baselines.fewslice:build",
        summary=summary,
        encoder="resnet18",
        pretrained=pretrained,
        options={**FEWSLICE, **dropout(0.0)},
        space=SPACE,
        smoke=SMOKE,
    )


MODELS: tuple[ModelCard, ...] = (
    slice2d("slice2d-imagenet", "2D encoder from ImageNet on every slice, mean", pretrained=True),
    slice2d("slice2d-scratch", "2D encoder from random weights on every slice, mean"),
    slice2d(
        "slice2d-imagenet-pos",
        "slice2d-imagenet with position embeddings",
        pretrained=True,
        defaults=POSITION,
    ),
    slice2d("slice2d-scratch-pos", "slice2d-scratch with position embeddings", defaults=POSITION),
    slice2d("slice2d-own", "the papers' own encoder on every slice, mean", encoder="own"),
    slice2d(
        "slice2d-own-pos",
        "slice2d-own with position embeddings",
        encoder="own",
        defaults=POSITION,
    ),
    ModelCard(
        name="slice-lstm",
        target="baselines.slice_lstm:build",
        summary="the papers' own encoder on every slice, an LSTM over slices in order",
        encoder="own",
        encoder_fixed=True,
        options={**SLICING, **STRIDE, **dropout(0.5)},
        defaults={"clip": 1.0},
        space=SPACE,
        smoke={**SMOKE, "stride": 8},
    ),
    fewslice("fewslice-imagenet", "2D encoder from ImageNet on a few middle slices", True),
    fewslice("fewslice-scratch", "2D encoder from random weights on a few middle slices", False),
    ModelCard(
        name="cnn3d",
        target="baselines.cnn3d:build",
        summary="the papers' 3D-CNN on the whole volume",
        options=dropout(0.0),
        space=SPACE,
        smoke=SMOKE,
    ),
    ModelCard(
        name="linear-voxels",
        target="baselines.estimators:build_linear_voxels",
        summary="ridge or logistic regression on principal components of block-averaged voxels",
        kind="estimator",
        options={
            "block": Option(2, "edge of the blocks that are averaged, in voxels", low=1, high=64),
            "n_components": Option(50, "principal components at most", low=1, high=10_000),
            "penalty": Option(
                0.1, "ridge's alpha, or 1/C of the logistic model", low=1e-8, high=1e8
            ),
        },
        space={"n_components": Int(5, 200, log=True), "penalty": Float(1e-4, 1e2, log=True)},
        smoke={"block": 8},
        deterministic=True,
    ),
    ModelCard(
        name="prior",
        target="baselines.estimators:build_prior",
        summary="the training mean or class frequencies, whatever the scan",
        kind="estimator",
        constraints=Constraints(min_train=1),
        deterministic=True,
    ),
)


def slice_plane(axis: str) -> tuple[int, int]:
    """Return the places of the two axes that a slice across `axis` has."""
    first, second = (place for name, place in AXES.items() if name != axis)
    return first, second


def model_options(card: ModelCard) -> dict[str, Option]:
    """Return every option that a model takes: its own, the common ones, and a network's recipe."""
    recipe = {**RECIPE, **AUGMENT} if card.kind == "network" else {}
    return {**COMMON, **recipe, **card.options}


def complete_params(card: ModelCard, params: Mapping[str, Value]) -> dict[str, Value]:
    """Return the settings of a spec together with those that it leaves out at their default."""
    later = {name: option.default for name, option in model_options(card).items() if option.later}
    return later | dict(params)
