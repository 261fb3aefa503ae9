"""The built-in models and their shared options, whose defaults are those of the papers."""

from __future__ import annotations

from collections.abc import Mapping

from registry.cards import Constraints, Dimension, Float, Int, ModelCard, Option, Value

COMMON: dict[str, Option] = {
    "val_size": Option(
        "proportional",
        "number of validation subjects: a third of the training size, or all at every size",
        choices=("proportional", "full"),
    ),
    "select": Option(
        "loss",
        "validation metric that selects the best epoch and settings: MAE or log loss, or accuracy "
        "(for classes, as in the papers)",
        choices=("loss", "accuracy"),
    ),
}
"""Options of all models."""

RECIPE: dict[str, Option] = {
    "optimizer": Option("adam", "optimiser", choices=("adam", "adamw", "sgd")),
    "lr": Option(1e-4, "learning rate", low=1e-8, high=10.0),
    "weight_decay": Option(1e-4, "weight decay", low=0.0, high=10.0),
    "batch_size": Option(8, "number of volumes per step", low=1, high=4096),
    "epochs": Option(100, "number of passes over the training set", low=1, high=100_000),
    "length": Option(
        "epochs",
        "what is equal for all training sizes: the number of epochs, or the number of optimiser "
        "steps (those of `epochs` epochs at the largest size)",
        choices=("epochs", "steps"),
    ),
    "schedule": Option("constant", "learning rate schedule", choices=("constant", "cosine")),
    "warmup": Option(
        0.0, "fraction of the steps with a linearly increasing learning rate", low=0.0, high=1.0
    ),
    "clip": Option(0.0, "maximum gradient norm, 0 for no clipping", low=0.0, high=1e6),
    "early_stopping": Option(
        0, "number of epochs without improvement before stopping, 0 for no early stopping", low=0
    ),
    "loss": Option(
        "mse", "loss for age (for classes, it is always cross-entropy)", choices=("mse", "l1")
    ),
    "class_weights": Option(
        "none", "weights of the classes in the loss", choices=("none", "balanced")
    ),
    "bn": Option(
        "recalibrate",
        "BatchNorm statistics at evaluation: re-estimated on training scans, running averages, "
        "or those of the initial encoder",
        choices=("recalibrate", "running", "frozen"),
    ),
}
"""Options of all networks, used by the training loop."""

AUGMENT: dict[str, Option] = {
    "flip": Option(False, "augmentation: randomly flip left and right", later=True),
    "shift": Option(
        0.0,
        "augmentation: maximum random shift along each axis, in voxels",
        low=0,
        high=64,
        later=True,
    ),
    "rotate": Option(
        0.0,
        "augmentation: maximum random rotation about each axis, in degrees",
        low=0,
        high=180,
        later=True,
    ),
    "intensity": Option(
        0.0,
        "augmentation: maximum random change of the scale and offset of intensities",
        low=0,
        high=1,
        later=True,
    ),
    "noise": Option(
        0.0, "augmentation: standard deviation of added noise", low=0, high=10, later=True
    ),
    "drop_slices": Option(
        0.0,
        "augmentation: fraction of slices randomly replaced by background",
        low=0,
        high=0.99,
        later=True,
    ),
}
"""Augmentations of training volumes, which the papers do not use."""

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Slicing axes and their positions among the three axes of a volume."""

SLICING: dict[str, Option] = {
    "axis": Option("sagittal", "slicing axis", choices=tuple(AXES)),
    "normalise": Option(
        "none",
        "input of the encoder: the standardised volume, or the volume scaled to [0, 1] and "
        "normalised with the mean and std of the encoder's pretraining",
        choices=("none", "imagenet"),
    ),
    "freeze": Option(False, "do not train the encoder"),
    "head_width": Option(64, "number of hidden units of the head", low=1, high=65_536),
    "slice_chunk": Option(
        0,
        "number of slices per forward pass of the encoder, 0 for all; chunks are recomputed in the "
        "backward pass (less memory, more time) and BatchNorm normalises each chunk separately",
        low=0,
        high=4096,
        later=True,
    ),
}
STRIDE = {
    "stride": Option(1, "use every k-th slice", low=1, high=4096),
    "skip_empty": Option(
        False,
        "omit the first and last slices that are background in all training volumes",
        later=True,
    ),
}

SLICE2D: dict[str, Option] = {
    **SLICING,
    **STRIDE,
    "pool": Option("mean", "pooling over slices", choices=("mean", "max", "attention")),
    "position": Option(
        "none",
        "position embedding: one learned vector per slice, or fixed sinusoids",
        choices=("none", "learned", "sinusoidal"),
    ),
    "position_norm": Option(
        False,
        "LayerNorm over slices and features after the position embedding, as in the papers and in "
        "the -pos models; with position=none it is used alone; without it and with pool=mean, the "
        "embedding only adds a constant",
    ),
}
FEWSLICE: dict[str, Option] = {
    **SLICING,
    "k": Option(3, "number of slices, centred on the middle one", low=1, high=4096),
    "spacing": Option(4, "distance between neighbouring slices", low=1, high=4096),
    "form": Option(
        "average",
        "average the embeddings of the slices, or use the slices as channels of one image",
        choices=("average", "channels"),
    ),
}
POSITION: dict[str, Value] = {"position": "learned", "position_norm": True}

SPACE: dict[str, Dimension] = {
    "lr": Float(1e-5, 1e-2, log=True),
    "weight_decay": Float(1e-6, 1e-2, log=True),
    "dropout": Float(0.0, 0.7),
}
"""Search space of all networks, so that they are tuned equally well."""

SMOKE: dict[str, Value] = {"batch_size": 2, "epochs": 1}


def dropout(rate: float) -> dict[str, Option]:
    """Return the dropout option with a default rate."""
    return {"dropout": Option(rate, "dropout rate before the last embedding", low=0.0, high=0.95)}


def slice2d(
    name: str,
    summary: str,
    encoder: str = "resnet18",
    pretrained: bool = False,
    defaults: Mapping[str, Value] | None = None,
) -> ModelCard:
    """Return the card of a 2D-slice model; the papers use dropout only with their own encoder."""
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
    slice2d(
        "slice2d-imagenet",
        "2D encoder pretrained on ImageNet for every slice, mean over slices",
        pretrained=True,
    ),
    slice2d(
        "slice2d-scratch",
        "randomly initialised 2D encoder for every slice, mean over slices",
    ),
    slice2d(
        "slice2d-imagenet-pos",
        "slice2d-imagenet with position embeddings",
        pretrained=True,
        defaults=POSITION,
    ),
    slice2d("slice2d-scratch-pos", "slice2d-scratch with position embeddings", defaults=POSITION),
    slice2d(
        "slice2d-own",
        "the papers' encoder for every slice, mean over slices",
        encoder="own",
    ),
    slice2d(
        "slice2d-own-pos",
        "slice2d-own with position embeddings",
        encoder="own",
        defaults=POSITION,
    ),
    ModelCard(
        name="slice-lstm",
        target="baselines.slice_lstm:build",
        summary="the papers' encoder for every slice, LSTM over slices",
        encoder="own",
        encoder_fixed=True,
        options={**SLICING, **STRIDE, **dropout(0.5)},
        defaults={"clip": 1.0},
        space=SPACE,
        smoke={**SMOKE, "stride": 8},
    ),
    fewslice("fewslice-imagenet", "2D encoder pretrained on ImageNet for central slices", True),
    fewslice("fewslice-scratch", "randomly initialised 2D encoder for central slices", False),
    ModelCard(
        name="cnn3d",
        target="baselines.cnn3d:build",
        summary="the papers' 3D-CNN for the whole volume",
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
            "block": Option(2, "side length of the averaged blocks, in voxels", low=1, high=64),
            "n_components": Option(
                50, "maximum number of principal components", low=1, high=10_000
            ),
            "penalty": Option(
                0.1, "alpha of ridge regression, or 1/C of logistic regression", low=1e-8, high=1e8
            ),
        },
        space={"n_components": Int(5, 200, log=True), "penalty": Float(1e-4, 1e2, log=True)},
        smoke={"block": 8},
        deterministic=True,
    ),
    ModelCard(
        name="prior",
        target="baselines.estimators:build_prior",
        summary="mean or class frequencies of the training set, independent of the scan",
        kind="estimator",
        constraints=Constraints(min_train=1),
        deterministic=True,
    ),
)


def slice_plane(axis: str) -> tuple[int, int]:
    """Return the positions of the two axes of a slice perpendicular to `axis`."""
    first, second = (place for name, place in AXES.items() if name != axis)
    return first, second


def model_options(card: ModelCard) -> dict[str, Option]:
    """Return all options of a model: its own, the common ones, and those of training networks."""
    recipe = {**RECIPE, **AUGMENT} if card.kind == "network" else {}
    return {**COMMON, **recipe, **card.options}


def complete_params(card: ModelCard, params: Mapping[str, Value]) -> dict[str, Value]:
    """Add the options that a spec omits because they have their default value."""
    later = {name: option.default for name, option in model_options(card).items() if option.later}
    return later | dict(params)
