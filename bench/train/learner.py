"""One network with its loss, its target scale and its predictions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.train.feed import Feed
from bench.train.numerics import autocast, memory_format_for
from registry.cards import Task, Value

RECALIBRATION_SCANS = 32
"""Scans over which BatchNorm statistics are re-estimated: thousands of slices, a bounded cost."""


class Learner:
    """A network under training.

    Ages are standardised with the training set's mean and deviation, so that a head whose last
    bias starts at zero starts at the training mean.

    Parameters
    ----------
    network : nn.Module
        From (B, 1, D, H, W) to (B, task.n_outputs).
    task : Task
        What is predicted.
    params : mapping
        The resolved recipe: `loss`, `class_weights`, `bn`, `batch_size`.
    targets : array (n,)
        Training targets: years, or class indices.
    device : torch.device
        Where the network lives.
    precision : str
        ``"fp32"`` or ``"bf16"`` (autocast; the loss is computed in float32).
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        params: Mapping[str, Value],
        targets: NDArray[np.float64],
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        network = network.to(memory_format=memory_format_for(network))  # type: ignore[call-overload]
        self.network = network.to(device)
        self.task = task
        self.device = device
        self.precision = precision
        self.l1 = params["loss"] == "l1"
        self.batch_size = int(params["batch_size"])
        self.mean, self.scale = 0.0, 1.0
        self.class_weight: Tensor | None = None
        if task.kind == "regression":
            self.mean = float(np.mean(targets))
            self.scale = float(np.std(targets)) or 1.0
        elif params["class_weights"] == "balanced":
            counts = np.bincount(targets.astype(int), minlength=len(task.classes))
            weight = len(targets) / (len(task.classes) * np.maximum(counts, 1))
            self.class_weight = torch.tensor(weight, dtype=torch.float32, device=device)
        self.norms = [
            module
            for module in network.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
        ]
        self.bn = str(params["bn"])

    def train_mode(self) -> None:
        """Put the network into training mode, with BatchNorm held still where it is frozen."""
        self.network.train()
        if self.bn == "frozen":
            for norm in self.norms:
                norm.eval()

    def forward(self, volumes: Tensor) -> Tensor:
        """Return the float32 outputs (b, n_outputs) of the network."""
        with autocast(self.device, self.precision):
            outputs: Tensor = self.network(volumes)
        return outputs.float()

    def loss(self, volumes: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch: squared or absolute error, or cross-entropy."""
        outputs = self.forward(volumes)
        if self.task.kind == "regression":
            wanted = ((targets - self.mean) / self.scale).float()
            return (F.l1_loss if self.l1 else F.mse_loss)(outputs[:, 0], wanted)
        if outputs.shape[1] == 1:
            each = F.binary_cross_entropy_with_logits(
                outputs[:, 0], targets.float(), reduction="none"
            )
            if self.class_weight is None:
                return each.mean()
            weight = self.class_weight[targets.long()]
            return (weight * each).sum() / weight.sum()
        return F.cross_entropy(outputs, targets.long(), weight=self.class_weight)

    def recalibrate(self, feed: Feed) -> None:
        """Re-estimate BatchNorm's running statistics on the training subset.

        Running averages lag behind after few steps (timm's TF-style encoders move them by 1 % a
        step), which makes evaluation garbage on small cohorts. The statistics are the plain
        average over batches of the first `RECALIBRATION_SCANS` scans.
        """
        norms = [norm for norm in self.norms if norm.training]
        if self.bn != "recalibrate" or not norms:
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        with torch.no_grad(), torch.random.fork_rng(devices=[self.device] if self._cuda else []):
            for index in np.array_split(
                np.arange(min(len(feed), RECALIBRATION_SCANS)),
                -(-min(len(feed), RECALIBRATION_SCANS) // self.batch_size),
            ):
                self.forward(feed.volumes_at(index))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def predict(self, feed: Feed) -> NDArray[np.float64]:
        """Return predictions (n, k): years, P(positive) for two classes, or one column a class."""
        self.network.eval()
        outputs = []
        with torch.no_grad():
            for volumes in feed.volume_batches(self.batch_size):
                outputs.append(self.forward(volumes).cpu().double())
        raw = torch.cat(outputs)
        if self.task.kind == "regression":
            raw = raw * self.scale + self.mean
        elif raw.shape[1] == 1:
            raw = torch.sigmoid(raw)
        else:
            raw = torch.softmax(raw, dim=1)
        return raw.numpy()

    @property
    def _cuda(self) -> bool:
        return self.device.type == "cuda"
