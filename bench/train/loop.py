"""The one training loop of every network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from bench.spec import seed_for
from bench.train.feed import Feed
from bench.train.learner import Learner
from bench.train.selection import Diverged, selection_score
from registry.cards import Value


@dataclass
class Fit:
    """What a training run was: its epochs and where its time went."""

    best_epoch: int = 0
    best_score: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "validate": 0.0})


def planned_epochs(params: Mapping[str, Value], n_train: int, n_pool: int) -> int:
    """Return the epochs of a run: as they are, or stretched to equal optimiser steps.

    With ``length="steps"`` a run on `n_train` of `n_pool` subjects takes about as many steps as
    `epochs` epochs over the whole pool.
    """
    epochs = int(params["epochs"])
    return epochs if params["length"] == "epochs" else math.ceil(epochs * n_pool / n_train)


def fit(
    learner: Learner,
    train: Feed,
    validation: Feed,
    params: Mapping[str, Value],
    *,
    epochs: int,
    draw: str,
    on_epoch: Callable[[int, float], None],
) -> Fit:
    """Train, keep the best epoch by validation (ties to the earlier), and leave it loaded.

    Parameters
    ----------
    learner : Learner
        The network with its loss.
    train, validation : Feed
        Both with targets.
    params : mapping
        The resolved recipe.
    epochs : int
        How many, from `planned_epochs`.
    draw : str
        What the order of batches and dropout derive from: the seed, or the study's own draw.
    on_epoch : callable
        Given the epoch (from 1) and its selection score; may raise to prune.

    Raises
    ------
    Diverged
        When a loss or a validation prediction is not finite.
    """
    assert validation.targets is not None
    truth = validation.targets.cpu().numpy()
    optimizer = make_optimizer(learner.network, params)
    steps = -(-len(train) // learner.batch_size)
    schedule = make_schedule(optimizer, params, steps * epochs)
    clip = float(params["clip"])
    patience = int(params["early_stopping"])
    rule = str(params["select"])
    result = Fit()
    best: dict[str, torch.Tensor] = {}
    if learner.device.type == "cuda":
        _warm_up(learner, train)
    torch.manual_seed(seed_for("noise", draw))
    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        learner.train_mode()
        order = np.random.default_rng(seed_for("order", draw, epoch)).permutation(len(train))
        total = torch.zeros((), device=learner.device)
        for volumes, targets in train.batches(order, learner.batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = learner.loss(volumes, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            if clip:
                nn.utils.clip_grad_norm_(learner.network.parameters(), clip)
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(targets)
        mean_loss = float(total) / len(train)
        trained = time.perf_counter()
        if not math.isfinite(mean_loss):
            raise Diverged(f"diverged: the training loss is {mean_loss} in epoch {epoch}")
        learner.recalibrate(train)
        predictions = learner.predict(validation)
        if not np.isfinite(predictions).all():
            raise Diverged(f"diverged: a validation prediction is not finite in epoch {epoch}")
        score = selection_score(learner.task, truth, predictions, rule)
        if score < result.best_score:
            result.best_epoch, result.best_score = epoch, score
            # A single epoch is its own best: nothing to go back to, nothing to copy.
            if epoch < epochs:
                best = {k: v.detach().clone() for k, v in learner.network.state_dict().items()}
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
        on_epoch(epoch, score)
        if patience and epoch - result.best_epoch >= patience:
            break
    if result.best_epoch < len(result.history):
        learner.network.load_state_dict(best)
    return result


def make_optimizer(network: nn.Module, params: Mapping[str, Value]) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over what is not frozen."""
    free = [p for p in network.parameters() if p.requires_grad]
    lr, decay = float(params["lr"]), float(params["weight_decay"])
    if params["optimizer"] == "sgd":
        return torch.optim.SGD(free, lr=lr, weight_decay=decay, momentum=0.9)
    kind = torch.optim.Adam if params["optimizer"] == "adam" else torch.optim.AdamW
    return kind(free, lr=lr, weight_decay=decay)


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


def _warm_up(learner: Learner, feed: Feed) -> None:
    """Run one step that leaves no trace, so that the GPU's first-call costs are not timed."""
    learner.network.eval()
    volumes, targets = next(feed.batches(np.arange(len(feed)), learner.batch_size))
    learner.loss(volumes, targets).backward()  # type: ignore[no-untyped-call]
    learner.network.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
