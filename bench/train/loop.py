"""The training loop of all networks."""

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
    """The epochs of a training run and their durations."""

    best_epoch: int = 0
    best_score: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "validate": 0.0})
    """Duration of training and validation, and on a CPU that of optimiser steps alone."""
    last: dict[str, torch.Tensor] = field(default_factory=dict)
    """State of the network after the last epoch."""


def planned_epochs(params: Mapping[str, Value], n_train: int, n_pool: int) -> int:
    """Return the number of epochs of a training run.

    With ``length="steps"``, training on `n_train` of `n_pool` subjects has about as many optimiser
    steps as training on all of them for `epochs` epochs.
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
    """Train a network and load the state of the best epoch (the first one in case of ties).

    Training is resumed from the checkpoint, if there is one. On a CPU, the results are bitwise
    identical to those of an uninterrupted run with the same number of threads and layout.

    Parameters
    ----------
    learner : Learner
        The network with its loss.
    train, validation : VolumeLoader
        Training and validation scans with targets.
    params : mapping
        The complete settings of the model.
    epochs : int
        The number of epochs; see `planned_epochs`.
    random_stream : str
        The seed of a trial or the stream of a study, from which the order of scans, augmentation
        and dropout are derived.
    on_epoch : callable
        Called with each epoch (from 1) and its selection score, including epochs from a
        checkpoint; may raise to prune.
    checkpoint : Checkpoint, optional
        The checkpoint to resume from and to save after each epoch.

    Raises
    ------
    Diverged
        If a loss or a validation prediction is not finite.
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
            # The state of the last epoch need not be copied, because it is not overwritten.
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
    """Everything that the next epoch depends on."""

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
        """Copy the state of the network as the best one."""
        # The tensors of the original state dict continue to change during training.
        self.best = {k: v.detach().clone() for k, v in self.learner.network.state_dict().items()}

    def saved(self) -> dict[str, Any]:
        """Return the state as tensors and plain values."""
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
        """Resume from a saved state, if there is one."""
        if saved is None:
            return
        self.learner.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.best = saved["best"]
        self.fit.best_epoch, self.fit.best_score = saved["best_epoch"], saved["best_score"]
        self.fit.history, self.fit.seconds = saved["history"], saved["seconds"]
        self.learner.micro_batch = min(self.learner.micro_batch, saved["micro_batch"])
        # Random states must be on the CPU, even if the other tensors were loaded to a GPU.
        torch.set_rng_state(saved["rng"].cpu())
        if saved["cuda_rng"] is not None:
            torch.cuda.set_rng_state(saved["cuda_rng"].cpu(), self.learner.device)


def _train_epoch(
    state: _State, train: VolumeLoader, epoch: int, random_stream: str, augment: Augment | None
) -> float:
    """Train for one epoch; return the mean loss over its scans."""
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
    # A GPU computes asynchronously, so that the duration of its steps is not known.
    if learner.device.type == "cpu":
        state.fit.seconds["steps"] = state.fit.seconds.get("steps", 0.0) + spent
    return float(total) / len(train)


def _stalled(result: TrainingResult, patience: int) -> bool:
    return bool(patience) and len(result.history) - result.best_epoch >= patience


def make_optimizer(network: nn.Module, params: Mapping[str, Value]) -> torch.optim.Optimizer:
    """Return the optimiser of all parameters that are not frozen."""
    free = [p for p in network.parameters() if p.requires_grad]
    lr, decay = float(params["lr"]), float(params["weight_decay"])
    # On a GPU, the optimiser updates all parameters in one kernel.
    fused = True if free and free[0].is_cuda else None
    if params["optimizer"] == "sgd":
        return torch.optim.SGD(free, lr=lr, weight_decay=decay, momentum=0.9, fused=fused)
    kind = torch.optim.Adam if params["optimizer"] == "adam" else torch.optim.AdamW
    return kind(free, lr=lr, weight_decay=decay, fused=fused)


def make_schedule(
    optimizer: torch.optim.Optimizer, params: Mapping[str, Value], steps: int
) -> LambdaLR:
    """Return the learning rate schedule: linear warm-up, then constant or cosine decay to zero."""
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
    """Run one step without effect, so that the initialisation of a GPU is not timed."""
    learner.network.eval()
    volumes, targets = next(loader.batches(np.arange(len(loader)), learner.batch_size))
    learner.loss(volumes, targets).backward()  # type: ignore[no-untyped-call]
    learner.network.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
