"""The one training loop of every network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from bench.spec import seed_for
from bench.train.checkpoint import Checkpoint
from bench.train.learner import Learner
from bench.train.loader import Augment, VolumeLoader, augmentation
from bench.train.selection import Diverged, selection_score
from registry.cards import Value


@dataclass
class TrainingResult:
    """What a training run was: its epochs and where its time went."""

    best_epoch: int = 0
    best_score: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "validate": 0.0})
    """Of training and validation, and on a CPU of the optimiser's steps alone."""
    last: dict[str, torch.Tensor] = field(default_factory=dict)
    """The network's state after the last epoch."""


def planned_epochs(params: Mapping[str, Value], n_train: int, n_pool: int) -> int:
    """Return the epochs of a run: as they are, or stretched to equal optimiser steps.

    With ``length="steps"`` a run on `n_train` of `n_pool` subjects takes about as many steps as
    `epochs` epochs over the whole pool.
    """
    epochs = int(params["epochs"])
    return epochs if params["length"] == "epochs" else math.ceil(epochs * n_pool / n_train)


def fit(
    learner: Learner,
    train: VolumeLoader,
    validation: VolumeLoader,
    params: Mapping[str, Value],
    *,
    epochs: int,
    random_stream: str,
    on_epoch: Callable[[int, float], None],
    checkpoint: Checkpoint | None = None,
) -> TrainingResult:
    """Train, keep the best epoch by validation (ties to the earlier), and leave it loaded.

    A run that is taken up from its checkpoint goes on as if it had never been interrupted: on a
    CPU, with as many threads and the same layout, to the last bit.

    Parameters
    ----------
    learner : Learner
        The network with its loss.
    train, validation : VolumeLoader
        Both with targets.
    params : mapping
        The resolved recipe.
    epochs : int
        How many, from `planned_epochs`.
    random_stream : str
        What the order of batches and dropout derive from: the seed, or the study's own stream.
    on_epoch : callable
        Given the epoch (from 1) and its selection score, also of epochs taken up from a
        checkpoint; may raise to prune.
    checkpoint : Checkpoint, optional
        Where the run stands, kept at the end of an epoch.

    Raises
    ------
    Diverged
        When a loss or a validation prediction is not finite.
    """
    assert validation.targets is not None
    truth = validation.targets.cpu().numpy()
    steps = -(-len(train) // learner.batch_size)
    state = _State(learner, params, steps * epochs, random_stream)
    if checkpoint is not None:
        state.take_up(checkpoint.load(learner.device))
    result = state.fit
    for line in result.history:
        on_epoch(int(line["epoch"]), line["validation"])
    if learner.device.type == "cuda":
        _warm_up(learner, train)
    augment = augmentation(params, random_stream)
    patience = int(params["early_stopping"])
    while len(result.history) < epochs and not _stalled(result, patience):
        epoch = len(result.history) + 1
        started = time.perf_counter()
        mean_loss = _train_epoch(state, train, epoch, random_stream, augment)
        trained = time.perf_counter()
        if not math.isfinite(mean_loss):
            raise Diverged(f"diverged: the training loss is {mean_loss} in epoch {epoch}")
        learner.recalibrate(train)
        predictions = learner.predict(validation)
        if not np.isfinite(predictions).all():
            raise Diverged(f"diverged: a validation prediction is not finite in epoch {epoch}")
        score = selection_score(learner.task, truth, predictions, str(params["select"]))
        if score < result.best_score:
            result.best_epoch, result.best_score = epoch, score
            # The last epoch is there already: nothing to go back to, nothing to copy.
            if epoch < epochs:
                state.keep_best()
        done = time.perf_counter()
        result.history.append(
            {
                "epoch": epoch,
                "train_loss": mean_loss,
                "validation": score,
                "seconds": done - started,
            }
        )
        result.seconds["train"] += trained - started
        result.seconds["validate"] += done - trained
        if checkpoint is not None and epoch < epochs and checkpoint.due:
            checkpoint.save(state.saved())
        on_epoch(epoch, score)
    result.last = {k: v.detach().clone() for k, v in learner.network.state_dict().items()}
    if result.best_epoch < len(result.history):
        learner.network.load_state_dict(state.best)
    if checkpoint is not None:
        checkpoint.remove()
    return result


class _State:
    """All that the next epoch depends on."""

    def __init__(
        self, learner: Learner, params: Mapping[str, Value], steps: int, random_stream: str
    ) -> None:
        self.learner = learner
        self.optimizer = make_optimizer(learner.network, params)
        self.schedule = make_schedule(self.optimizer, params, steps)
        self.clip = float(params["clip"])
        self.fit = TrainingResult()
        self.best: dict[str, torch.Tensor] = {}
        torch.manual_seed(seed_for("noise", random_stream))

    def keep_best(self) -> None:
        """Copy the network's state as the best so far."""
        # A state dict of its own: what it holds would otherwise go on being trained.
        self.best = {k: v.detach().clone() for k, v in self.learner.network.state_dict().items()}

    def saved(self) -> dict[str, Any]:
        """Return everything as tensors and plain values."""
        cuda = self.learner.device.type == "cuda"
        return {
            "network": self.learner.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "best": self.best,
            "best_epoch": self.fit.best_epoch,
            "best_score": self.fit.best_score,
            "history": self.fit.history,
            "seconds": self.fit.seconds,
            "micro_batch": self.learner.micro_batch,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.learner.device) if cuda else None,
        }

    def take_up(self, saved: Mapping[str, Any] | None) -> None:
        """Go on where `saved` ended."""
        if saved is None:
            return
        self.learner.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.best = saved["best"]
        self.fit.best_epoch, self.fit.best_score = saved["best_epoch"], saved["best_score"]
        self.fit.history, self.fit.seconds = saved["history"], saved["seconds"]
        self.learner.micro_batch = saved["micro_batch"]
        # Generators take their states from the CPU, wherever the rest was loaded to.
        torch.set_rng_state(saved["rng"].cpu())
        if saved["cuda_rng"] is not None:
            torch.cuda.set_rng_state(saved["cuda_rng"].cpu(), self.learner.device)


def _train_epoch(
    state: _State, train: VolumeLoader, epoch: int, random_stream: str, augment: Augment | None
) -> float:
    """Take the steps of one epoch; return the mean loss over its scans."""
    learner = state.learner
    learner.train_mode()
    order = np.random.default_rng(seed_for("order", random_stream, epoch)).permutation(len(train))
    total = torch.zeros((), device=learner.device)
    spent = 0.0
    for volumes, targets in train.batches(order, learner.batch_size, epoch=epoch, augment=augment):
        begun = time.perf_counter()
        state.optimizer.zero_grad(set_to_none=True)
        loss = learner.backward(volumes, targets)
        if state.clip:
            nn.utils.clip_grad_norm_(learner.network.parameters(), state.clip)
        state.optimizer.step()
        state.schedule.step()
        spent += time.perf_counter() - begun
        total += loss * len(targets)
    # A GPU computes while the clock of the CPU goes on: there the steps' own time is not known.
    if learner.device.type == "cpu":
        state.fit.seconds["steps"] = state.fit.seconds.get("steps", 0.0) + spent
    return float(total) / len(train)


def _stalled(result: TrainingResult, patience: int) -> bool:
    return bool(patience) and len(result.history) - result.best_epoch >= patience


def make_optimizer(network: nn.Module, params: Mapping[str, Value]) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over what is not frozen."""
    free = [p for p in network.parameters() if p.requires_grad]
    lr, decay = float(params["lr"]), float(params["weight_decay"])
    # One kernel for all parameters on a GPU; a CPU keeps torch's default.
    fused = True if free and free[0].is_cuda else None
    if params["optimizer"] == "sgd":
        return torch.optim.SGD(free, lr=lr, weight_decay=decay, momentum=0.9, fused=fused)
    kind = torch.optim.Adam if params["optimizer"] == "adam" else torch.optim.AdamW
    return kind(free, lr=lr, weight_decay=decay, fused=fused)


def make_schedule(
    optimizer: torch.optim.Optimizer, params: Mapping[str, Value], steps: int
) -> LambdaLR:
    """Return the learning rate's course: linear warm-up, then constant or half a cosine to zero."""
    warm = int(float(params["warmup"]) * steps)
    cosine = params["schedule"] == "cosine"

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        if not cosine:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return LambdaLR(optimizer, factor)


def _warm_up(learner: Learner, loader: VolumeLoader) -> None:
    """Run one step that leaves no trace, so that the GPU's first-call costs are not timed."""
    learner.network.eval()
    volumes, targets = next(loader.batches(np.arange(len(loader)), learner.batch_size))
    learner.loss(volumes, targets).backward()  # type: ignore[no-untyped-call]
    learner.network.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
