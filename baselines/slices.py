"""From a volume to features of its slices: which slices, how they enter a 2D encoder, freezing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.contracts import EncoderHandle, Params, Shape

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Slicing axis: its place among the volume's three."""


def every(n_slices: int, stride: int) -> range:
    """Return the slices kept with a stride: every `stride`-th, as many left out at either end.

    Raises
    ------
    ValueError
        When `stride` is not between 1 and `n_slices`.
    """
    if not 1 <= stride <= n_slices:
        raise ValueError(
            f"stride={stride} does not fit a volume of {n_slices} slices along this axis; "
            f"choose 1 to {n_slices}."
        )
    return range((n_slices - 1) % stride // 2, n_slices, stride)


def middle(n_slices: int, k: int, spacing: int) -> range:
    """Return `k` slices around the middle one, `spacing` slices apart.

    Raises
    ------
    ValueError
        When they reach beyond the volume, or `k` or `spacing` is below 1.
    """
    span = (k - 1) * spacing + 1
    if k < 1 or spacing < 1 or span > n_slices:
        raise ValueError(
            f"k={k} slices with spacing={spacing} span {span} slices and do not fit a volume of "
            f"{n_slices} along this axis; choose a smaller k or spacing, both at least 1."
        )
    start = (n_slices - span) // 2
    return range(start, start + span, spacing)


class SliceEncoder(nn.Module):
    """A 2D encoder over the chosen slices of a volume, all slices of a batch in one pass.

    Parameters
    ----------
    encoder : EncoderHandle
        The encoder and what it needs. A slice is repeated over its channels.
    params : mapping
        ``axis``; ``normalise``: with ``none`` the encoder sees the volume as it is (z-scored by
        the harness, as in the papers), with ``imagenet`` the volume is first brought to [0, 1] by
        its own minimum and maximum, like a photograph, and then every channel has the encoder's
        mean taken off and is divided by its std; ``freeze``: the encoder is not trained, stays in
        evaluation mode (its BatchNorm keeps the running statistics it came with) and records no
        gradient.
    shape : (D, H, W)
        Volume shape in voxels.
    kept : range
        Numbers of the slices along the axis.
    as_channels : bool
        Whether the slices are the channels of one image instead of an image each.

    Raises
    ------
    ValueError
        When slices are smaller than the encoder accepts, the encoder has no mean and std to
        normalise by, or its channels are not as many as the slices that should fill them.
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
        self.photograph = params["normalise"] == "imagenet"
        self.frozen = bool(params["freeze"])
        self._check(encoder, [size for i, size in enumerate(shape) if i != self.axis])
        self.encoder = encoder.make()
        if self.frozen:
            self.encoder.requires_grad_(False).eval()
        if self.photograph:
            for name in ("mean", "std"):
                values = torch.tensor(getattr(encoder, name)).reshape(-1, 1, 1)
                self.register_buffer(name, values, persistent=False)

    def _check(self, encoder: EncoderHandle, size: list[int]) -> None:
        if min(size) < encoder.min_size:
            raise ValueError(
                f"Slices of {size[0]}x{size[1]} pixels are too small for the encoder "
                f"{encoder.name!r}, which needs {encoder.min_size}x{encoder.min_size}; "
                "use a finer grid, another axis or another encoder."
            )
        if self.photograph and (encoder.mean is None or encoder.std is None):
            raise ValueError(
                f"The encoder {encoder.name!r} declares no mean and std to normalise by; "
                "use normalise=none."
            )
        if self.as_channels and len(self.kept) != encoder.channels:
            raise ValueError(
                f"form=channels needs as many slices as the encoder {encoder.name!r} has channels; "
                f"set k={encoder.channels} or form=average."
            )

    def train(self, mode: bool = True) -> SliceEncoder:
        """Switch the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map volumes (B, 1, D, H, W) to features (B, S, feature_dim), S = 1 `as_channels`."""
        if self.photograph:
            low, high = x.amin((2, 3, 4), keepdim=True), x.amax((2, 3, 4), keepdim=True)
            x = (x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny)
        kept = slice(self.kept.start, self.kept.stop, self.kept.step)
        images = x[:, 0].movedim(1 + self.axis, 1)[:, kept]
        if not self.as_channels:
            images = images.flatten(0, 1).unsqueeze(1).expand(-1, self.channels, -1, -1)
        if self.photograph:
            images = (images - self.mean) / self.std
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.encoder(images)
        return features.unflatten(0, (x.shape[0], -1))
