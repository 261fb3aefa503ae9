"""A network with its loss, target scale and predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.train.loader import VolumeLoader
from bench.train.numerics import (
    autocast,
    compiled,
    keep_small_convolutions_exact,
    rule,
)
from bench.unit import Layout
from registry.cards import Task, Value

RECALIBRATION_SCANS = 32
"""Number of scans for re-estimating BatchNorm statistics, which have thousands of slices."""


class OutOfMemory(Exception):
    """There is not enough memory, and the batch cannot be divided further."""


class Learner:
    """A network in training.

    Ages are standardised with the mean and standard deviation of the training set, so that a
    network with a final bias of zero initially predicts the mean.

    Parameters
    ----------
    network : nn.Module
        A network from (B, 1, D, H, W) to (B, task.n_outputs).
    task : Task
        What is predicted.
    params : mapping
        Settings; `loss`, `class_weights`, `bn` and `batch_size` are used.
    targets : array (n,)
        Training targets: years, or class indices.
    device : torch.device
        The device of the network.
    precision : str
        ``"fp32"`` or ``"bf16"`` (autocast; the loss is computed in float32).
    layout : Layout, optional
        Memory format and compilation; default: `bench.train.numerics.rule`.
    from_features : bool
        Whether loaders return slice features of a frozen encoder instead of volumes.
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
        layout: Layout | None = None,
        from_features: bool = False,
    ) -> None:
        layout = layout or rule(network)
        if precision == "bf16":
            keep_small_convolutions_exact(network, device)
        memory_format = getattr(torch, layout.memory_format)
        self.network = network.to(device).to(memory_format=memory_format)  # type: ignore[call-overload]
        self.layout = layout
        self._input_format = (
            torch.channels_last_3d
            if layout.memory_format == "channels_last_3d"
            else torch.contiguous_format
        )
        self._whole: Callable[[Tensor], Tensor] = self.network
        if from_features:
            head: Any = self.network
            self._whole = lambda features: head.predict(features[:, 0])
        # Only used for full training batches; each other shape or mode would be compiled again.
        self._compiled = compiled(self._whole, layout.mode) if layout.mode else None
        self.micro_batch = int(params["batch_size"])
        """Number of volumes per forward and backward pass, halved if memory runs out."""
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
        """Set the network to training mode, except for frozen BatchNorm layers."""
        self.network.train()
        if self.bn == "frozen":
            for norm in self.norms:
                norm.eval()

    def forward(self, volumes: Tensor) -> Tensor:
        """Return the float32 outputs (b, n_outputs) of the network."""
        full = torch.is_grad_enabled() and len(volumes) == self.batch_size
        forward = self._compiled if self._compiled is not None and full else self._whole
        with autocast(self.device, self.precision):
            outputs = forward(volumes.contiguous(memory_format=self._input_format))
        return outputs.float()

    def loss(self, volumes: Tensor, targets: Tensor, total: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch: squared or absolute error, or cross-entropy.

        Parameters
        ----------
        volumes, targets : Tensor (b, 1, D, H, W), Tensor (b,)
            A batch, or a part of one.
        total : Tensor, optional
            `weight_of` the whole batch if this is a part; the losses of all parts then add up to
            the mean loss of the batch.
        """
        outputs = self.forward(volumes)
        if self.task.kind == "regression":
            wanted = ((targets - self.mean) / self.scale).float()
            each = (F.l1_loss if self.l1 else F.mse_loss)(outputs[:, 0], wanted, reduction="none")
        elif outputs.shape[1] == 1:
            each = F.binary_cross_entropy_with_logits(
                outputs[:, 0], targets.float(), reduction="none"
            )
        else:
            each = F.cross_entropy(outputs, targets.long(), reduction="none")
        if self.class_weight is not None:
            each = self.class_weight[targets.long()] * each
        return each.sum() / (self.weight_of(targets) if total is None else total)

    def weight_of(self, targets: Tensor) -> Tensor:
        """Return the sum of weights of a batch: its size, or the sum of its class weights."""
        if self.class_weight is None:
            return torch.tensor(float(len(targets)), device=self.device)
        return self.class_weight[targets.long()].sum()

    def backward(self, volumes: Tensor, targets: Tensor) -> Tensor:
        """Add the gradient of the mean loss of a batch, which is divided if memory runs out.

        The parts are halved until they fit into memory. The gradient is the same up to rounding,
        except that Dropout samples new masks.

        Returns
        -------
        Tensor
            The loss, detached.

        Raises
        ------
        OutOfMemory
            If a single volume does not fit into memory, or BatchNorm prevents a division, because
            it would normalise over fewer volumes.
        """
        total = self.weight_of(targets)
        state = torch.get_rng_state()
        while True:
            try:
                value = torch.zeros((), device=self.device)
                parts = zip(
                    volumes.split(self.micro_batch), targets.split(self.micro_batch), strict=True
                )
                for some, wanted in parts:
                    loss = self.loss(some, wanted, total)
                    loss.backward()  # type: ignore[no-untyped-call]
                    value += loss.detach()
                return value
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                self.micro_batch = self._smaller(len(volumes))
            # Outside of the handler, because the error keeps tensors of its frames alive.
            self.network.zero_grad(set_to_none=True)
            torch.set_rng_state(state)
            if self._cuda:
                torch.cuda.empty_cache()

    def halve(self, times: int) -> None:
        """Divide batches from the start.

        Raises
        ------
        OutOfMemory
            If they cannot be divided that often.
        """
        self.train_mode()
        for _ in range(times):
            self.micro_batch = self._smaller(self.batch_size)

    def _smaller(self, batch: int) -> int:
        size = min(self.micro_batch, batch)
        if size == 1:
            raise OutOfMemory(
                "out of memory for a single volume; slice models need less with --set slice_chunk=8"
            )
        if any(norm.training for norm in self.norms):
            raise OutOfMemory(
                f"out of memory for {size} volumes, which cannot be divided because of BatchNorm; "
                "slice models need less with --set slice_chunk=8, otherwise reduce --set batch_size"
            )
        return -(-size // 2)

    def recalibrate(self, loader: VolumeLoader) -> None:
        """Re-estimate BatchNorm's running statistics on the training subset.

        Running averages lag behind after few steps (in timm's encoders with TensorFlow's defaults,
        they change by 1 % per step), which makes evaluation meaningless on small cohorts. Here,
        the statistics are averaged over batches of the first `RECALIBRATION_SCANS` scans.
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
                np.arange(min(len(loader), RECALIBRATION_SCANS)),
                -(-min(len(loader), RECALIBRATION_SCANS) // self.batch_size),
            ):
                self.forward(loader.volumes_at(index))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def predict(self, loader: VolumeLoader) -> NDArray[np.float64]:
        """Return predictions (n, k): years, P(positive) for two classes, or a column per class."""
        self.network.eval()
        outputs = []
        with torch.no_grad():
            for volumes in loader.volume_batches(self.micro_batch):
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


def _is_out_of_memory(error: Exception) -> bool:
    # The CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
