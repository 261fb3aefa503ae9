"""Features of slices: choice of slices of a volume and their encoding by a 2D encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from baselines.contracts import EncoderHandle, Params, Shape

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Index of each slicing axis among the three axes of a volume."""


def strided(n_slices: int, stride: int) -> range:
    """Return every `stride`-th slice, omitting equally many slices at both ends if possible.

    Raises
    ------
    ValueError
        If `stride` is not between 1 and `n_slices`.
    """
    if not 1 <= stride <= n_slices:
        raise ValueError(
            f"stride must be between 1 and {n_slices}, the number of slices along this axis, "
            f"got {stride}."
        )
    return range((n_slices - 1) % stride // 2, n_slices, stride)


def trim_empty(kept: range, params: Params) -> range:
    """Remove slices at both ends that are background in all training volumes.

    With ``skip_empty``, the first and the last slice that is not background are given as
    ``first_slice`` and ``last_slice`` in `params`.

    Raises
    ------
    ValueError
        If no slice is left.
    """
    first, last = params.get("first_slice", kept.start), params.get("last_slice", kept[-1])
    inside = [place for place, number in enumerate(kept) if first <= number <= last]
    if not inside:
        raise ValueError("No slice is left with skip_empty; choose a smaller stride.")
    return kept[inside[0] : inside[-1] + 1]


def central(n_slices: int, k: int, spacing: int) -> range:
    """Return `k` central slices, `spacing` slices apart.

    Raises
    ------
    ValueError
        If they do not fit into the volume, or if `k` or `spacing` is below 1.
    """
    span = (k - 1) * spacing + 1
    if k < 1 or spacing < 1 or span > n_slices:
        raise ValueError(
            f"k={k} slices with spacing={spacing} span {span} slices, but the volume has "
            f"{n_slices} along this axis; choose a smaller k or spacing (at least 1)."
        )
    start = (n_slices - span) // 2
    return range(start, start + span, spacing)


class SliceEncoder(nn.Module):
    """Applies a 2D encoder to the chosen slices of a volume, all slices of a batch in one pass.

    Parameters
    ----------
    encoder : EncoderHandle
        The encoder. Each slice is repeated for all of its channels.
    params : mapping
        ``axis``; ``normalise``: with ``none``, the volume is not changed (it is already z-scored,
        as in the papers); with ``imagenet``, the volume is scaled to [0, 1] by its minimum and
        maximum, and each channel is then normalised by the encoder's mean and std; ``freeze``: the
        encoder is not trained, stays in evaluation mode (so that BatchNorm uses its stored
        statistics) and records no gradients; ``slice_chunk``: number of slices that are encoded at
        a time, 0 for all.
    shape : (D, H, W)
        Volume shape in voxels.
    kept : range
        Indices of the slices along the axis.
    as_channels : bool
        Whether the slices are used as the channels of a single image.

    Raises
    ------
    ValueError
        If slices are smaller than the encoder accepts, if normalisation is requested but the
        encoder has no mean and std, or if the number of slices used as channels is wrong.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: EncoderHandle,
        params: Params,
        shape: Shape,
        kept: range,
        as_channels: bool = False,
    ) -> None:
        super().__init__()
        self.axis = AXES[params["axis"]]
        self.kept = kept
        self.as_channels = as_channels
        self.channels = encoder.channels
        self.imagenet_normalise = params["normalise"] == "imagenet"
        self.frozen = bool(params["freeze"])
        self.chunk = int(params.get("slice_chunk", 0))
        self._check(encoder, [size for i, size in enumerate(shape) if i != self.axis])
        self.encoder = encoder.make()
        if self.frozen:
            self.encoder.requires_grad_(False).eval()
        if self.imagenet_normalise:
            for name in ("mean", "std"):
                values = torch.tensor(getattr(encoder, name)).reshape(-1, 1, 1)
                self.register_buffer(name, values, persistent=False)

    def _check(self, encoder: EncoderHandle, size: list[int]) -> None:
        if min(size) < encoder.min_size:
            raise ValueError(
                f"Slices of {size[0]}x{size[1]} pixels are too small for the encoder "
                f"{encoder.name!r}, which needs at least {encoder.min_size}x{encoder.min_size}; "
                "use a finer grid, another axis or another encoder."
            )
        if self.imagenet_normalise and (encoder.mean is None or encoder.std is None):
            raise ValueError(
                f"normalise=imagenet needs an encoder with mean and std, which {encoder.name!r} "
                "does not have; use normalise=none."
            )
        if self.as_channels and len(self.kept) != encoder.channels:
            raise ValueError(
                f"form=channels needs as many slices as the encoder {encoder.name!r} has channels, "
                f"got k={len(self.kept)}; use k={encoder.channels} or form=average."
            )

    def train(self, mode: bool = True) -> SliceEncoder:
        """Switch the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map volumes (B, 1, D, H, W) to features (B, S, feature_dim), S = 1 `as_channels`."""
        if self.imagenet_normalise:
            low, high = x.amin((2, 3, 4), keepdim=True), x.amax((2, 3, 4), keepdim=True)
            x = (x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny)
        kept = slice(self.kept.start, self.kept.stop, self.kept.step)
        images = x[:, 0].movedim(1 + self.axis, 1)[:, kept]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if self.as_channels or not 0 < self.chunk < len(self.kept):
                return self._embed(images)
            return self._embed_in_chunks(images)

    def _embed(self, images: Tensor) -> Tensor:
        """Map slices (B, S, H, W) to features (B, S, feature_dim)."""
        batch = images.shape[0]
        if not self.as_channels:
            images = images.flatten(0, 1).unsqueeze(1).expand(-1, self.channels, -1, -1)
        if self.imagenet_normalise:
            images = (images - self.mean) / self.std
        return self.encoder(images).unflatten(0, (batch, -1))

    def _embed_in_chunks(self, images: Tensor) -> Tensor:
        n_slices = images.shape[1]
        step = -(-n_slices // self.chunk)
        parts = []
        for first in range(step):
            part = images[:, first::step]
            if torch.is_grad_enabled():
                embedded = checkpoint(
                    self._embed, part, use_reentrant=False, context_fn=self._passes
                )
            else:
                embedded = self._embed(part)
            parts.append(embedded)
        order = torch.cat([torch.arange(first, n_slices, step) for first in range(step)])
        return torch.cat(parts, dim=1)[:, order.argsort().to(images.device)]

    def _passes(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the contexts of the forward pass and of its repetition in the backward pass."""
        return nullcontext(), _still(
            [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        )


@contextmanager
def _still(norms: Sequence[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Do not update BatchNorm's running statistics, so that each slice is counted only once."""
    before = [
        (norm.momentum, n if n is None else n.clone())
        for norm in norms
        for n in [norm.num_batches_tracked]
    ]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked = counted
