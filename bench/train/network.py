"""Training of the network of a unit."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.spec import canonical_json, plain, seed_for
from bench.train.augment import is_on
from bench.train.checkpoint import Checkpoint
from bench.train.count import multiply_adds, parameter_count
from bench.train.encoder import encoder_handle
from bench.train.features import features_of
from bench.train.layout import Workload, fastest_layout, usable
from bench.train.learner import Learner
from bench.train.loader import VolumeLoader
from bench.train.loop import fit, planned_epochs
from bench.train.numerics import (
    configure,
    device_for,
    environment,
    libraries,
    peak_vram_mb,
)
from bench.train.saved_weights import save_weights
from bench.unit import Environment, FitResult, Layout, Progress, Unit
from registry.cards import ModelCard, Value
from registry.core import catalogue, resolve
from registry.models import (
    AUGMENT,
    COMMON,
    RECIPE,
    SLICING,
    STRIDE,
    complete_params,
    slice_plane,
)

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
SLICE_OPTIONS = {*SLICING, *STRIDE, "k", "spacing", "form", "first_slice", "last_slice"} - {
    "head_width"
}
"""Settings of the built-in models that affect slice features."""
SHARED = {*COMMON, *RECIPE, *AUGMENT}
"""Settings of the training loop, which do not; all other settings of a plugin may."""


class NetworkFitter:
    """Fits the network of a unit."""

    def __init__(self, unit: Unit, card: ModelCard) -> None:
        self.unit = unit
        self.card = card
        self.device = device_for(unit.device)
        configure(self.device, deterministic=unit.deterministic)
        self.precision = unit.arm.precision or "fp32"
        self.volumes = np.load(unit.data.volumes, mmap_mode="r")
        self.shape = self.volumes.shape[1:]
        self.layout: Layout | None = None
        self.notes: list[str] = []
        """Notes to the user about how the unit was computed."""
        self.ready = 0.0
        """Value of `time.perf_counter` when the last training started."""
        self.loaders = self._make_loaders(self.volumes)
        encoder = unit.arm.encoder
        self.handle = None
        if encoder is not None:
            weights = Path(unit.weights) if unit.weights else None
            self.handle = encoder_handle(catalogue.encoder(encoder.name), weights)
        self.code = {
            "model": plain(unit.arm.model),
            "encoder": plain(encoder),
            "libraries": libraries([card, self.handle.card if self.handle else None]),
        }
        """The code that affects results, which identifies cached features and layouts."""

    def environment(self) -> Environment:
        """Return the hardware and software in use and, once chosen, the layout."""
        return environment(self.device, self.unit.threads, self.layout)

    def _make_loaders(self, volumes: NDArray[np.generic]) -> dict[str, VolumeLoader]:
        data = self.unit.data
        sides: dict[str, tuple[list[int], list[float] | None]] = {
            "train": (data.train_rows, data.train_targets),
            "validation": (data.validation_rows, data.validation_targets),
            "test": (data.test_rows, None),
        }
        return {
            side: VolumeLoader(
                volumes,
                np.asarray(rows, dtype=np.int64),
                None if targets is None else np.asarray(targets, dtype=np.float64),
                self.device,
            )
            for side, (rows, targets) in sides.items()
        }

    def _build(self, params: Mapping[str, Value]) -> nn.Module:
        """Build the network, with an initialisation that depends only on the random stream."""
        torch.manual_seed(seed_for("init", self.unit.random_stream))
        network: nn.Module = resolve(self.card.target)(
            dict(params), self.unit.arm.task, self.shape, self.handle
        )
        return network

    def _fit(self, params: Mapping[str, Value], on_epoch: Callable[[int, int, float], None]) -> Any:
        unit = self.unit
        params = complete_params(self.card, params)
        if params.get("skip_empty"):
            params |= self._filled_slices(str(params["axis"]))
        epochs = planned_epochs(params, unit.data.n_train, unit.data.n_pool)
        network = self._build(params)
        loaders, cached = self.loaders, False
        if _head_alone(network, params) and (not self.card.plugin or self._splits(network)):
            loaders, cached = self._feature_loaders(network, params), True
        self.layout = self._layout(params, epochs, cached)
        learner = Learner(
            network,
            unit.arm.task,
            params,
            np.asarray(unit.data.train_targets, dtype=np.float64),
            device=self.device,
            precision=self.precision,
            layout=self.layout,
            from_features=cached,
        )
        learner.halve(unit.halvings)
        identity = canonical_json(
            [unit.key, unit.random_stream, epochs, dict(params), asdict(self.layout)]
        )
        self.ready = time.perf_counter()
        found = fit(
            learner,
            loaders["train"],
            loaders["validation"],
            params,
            epochs=epochs,
            random_stream=unit.random_stream,
            on_epoch=lambda epoch, score: on_epoch(epoch, epochs, score),
            checkpoint=Checkpoint(Path(unit.folder) / CHECKPOINT, identity),
        )
        return learner, found, loaders, params

    def _layout(self, params: Mapping[str, Value], epochs: int, cached: bool) -> Layout:
        unit = self.unit
        if unit.layout is not None and usable(unit.layout, self.device, self._note):
            return unit.layout
        if cached:
            # For the head alone, the layout makes no difference.
            return Layout()
        steps = -(-len(self.loaders["train"]) // int(params["batch_size"])) * epochs
        arm = unit.arm
        # Tuned settings do not affect the duration of a step.
        fixed = {name: value for name, value in params.items() if name not in arm.space}
        workload = Workload(
            build=lambda: self._build(params),
            task=arm.task,
            params=params,
            precision=self.precision,
            shape=tuple(self.shape),
            device=self.device,
            steps=steps,
            identity={
                **self.code,
                "params": fixed,
                "outputs": arm.task.n_outputs,
                "shape": list(self.shape),
                "precision": self.precision,
            },
        )
        return fastest_layout(workload, Path(unit.cache) / "layouts", self._note)

    def _note(self, words: str) -> None:
        if words not in self.notes:
            self.notes.append(words)

    def _feature_loaders(
        self, network: nn.Module, params: Mapping[str, Value]
    ) -> dict[str, VolumeLoader]:
        data = self.unit.data
        rows = np.unique([*data.train_rows, *data.validation_rows, *data.test_rows])
        taken = {
            name: value
            for name, value in params.items()
            if (name not in SHARED if self.card.plugin else name in SLICE_OPTIONS)
        }
        features = features_of(
            network,
            self.volumes,
            rows,
            identity={
                **self.code,
                "fingerprint": self.unit.arm.fingerprint,
                "volumes": data.volumes,
                "params": taken,
            },
            folder=Path(self.unit.cache) / "features",
            device=self.device,
            precision=self.precision,
        )
        return self._make_loaders(features)

    def _splits(self, network: nn.Module) -> bool:
        """Return whether a plugin's network consists of frozen slice features and a head.

        This is checked because a plugin may have unrelated attributes `slices` and `predict`.
        """
        tried: Any = copy.deepcopy(network).to(self.device)
        volume = self.loaders["train"].volumes_at(np.arange(1))
        with torch.random.fork_rng(), torch.no_grad():
            try:
                whole, features = tried.eval()(volume), tried.slices(volume)
                head, trained = tried.predict(features), tried.train().slices(volume)
            except Exception as error:
                # The attributes have another meaning.
                logger.warning("slice features are not cached: %s: %s", type(error).__name__, error)
                return False
        frozen = not any(parameter.requires_grad for parameter in network.slices.parameters())  # type: ignore[union-attr]
        return frozen and _alike(whole, head) and _alike(features, trained)

    def _filled_slices(self, axis: str) -> dict[str, Value]:
        """Return the first and the last slice that is not background in every training volume."""
        others = tuple(1 + i for i in slice_plane(axis))
        filled = np.zeros(1, bool)
        for row in self.unit.data.train_rows:
            volume = self.volumes[row : row + 1]
            filled = filled | (volume.max(others) > volume.min())[0]
        places = np.flatnonzero(filled)
        if not len(places):
            raise ValueError("skip_empty=true, but all slices of all training volumes are empty")
        return {"first_slice": int(places[0]), "last_slice": int(places[-1])}

    def score(
        self, params: Mapping[str, Value], on_epoch: Callable[[int, int, float], None]
    ) -> float:
        """Train with some settings and return the validation score."""
        return float(self._fit(params, on_epoch)[1].best_score)

    def trial(self, folder: Path, report: Progress) -> FitResult:
        """Train the network, and predict validation and test set."""

        def on_epoch(epoch: int, epochs: int, score: float) -> None:
            report(f"epoch {epoch}/{epochs}", epoch / epochs)

        learner, found, loaders, params = self._fit(self.unit.params, on_epoch)
        started = time.perf_counter()
        predictions = {side: learner.predict(loaders[side]) for side in ("validation", "test")}
        predicted = time.perf_counter() - started
        unit = self.unit
        states = {"best": learner.network.state_dict(), "last": found.last}
        for which in unit.keep:
            file = folder / f"{which}.safetensors"
            save_weights(file, states[which], unit, params, self.shape, learner)
        scans = len(unit.data.train_rows) * len(found.history)
        timings = {
            **found.seconds,
            "predict": predicted,
            "volumes_per_s": scans / max(found.seconds["train"], 1e-9),
            **peak_vram_mb(self.device),
            **_arithmetic(learner.network, tuple(self.shape)),
        }
        if learner.micro_batch < learner.batch_size:
            timings["micro_batch"] = learner.micro_batch
        return FitResult(predictions, timings, found.best_epoch, len(found.history), found.history)


def _arithmetic(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    counts = {"parameters": parameter_count(network)}
    try:
        counts["multiply_adds"] = multiply_adds(network, shape)
    except Exception as error:
        # The network of a plugin may not support the meta device.
        logger.warning("multiply-adds could not be counted: %s", type(error).__name__)
    return counts


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def _head_alone(network: nn.Module, params: Mapping[str, Value]) -> bool:
    """Return whether only the layers after a frozen encoder are trained."""
    return bool(
        params.get("freeze")
        and hasattr(network, "slices")
        and hasattr(network, "predict")
        and not is_on(params)
    )
