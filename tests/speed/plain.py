"""The plain training loop to which speed-ups refer, written without this package."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

WIDTHS = (1, 32, 64, 128, 256, 256)
PARAMETERS = {"own": 998_625, "resnet18": 11_195_105, "cnn3d": 2_948_801}


def trunk(dims: int) -> nn.Sequential:
    """Return five blocks of convolution, instance norm, max pooling and ReLU, then 64 features."""
    conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if dims == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    pool, average = (
        (nn.MaxPool2d, nn.AdaptiveAvgPool2d) if dims == 2 else (nn.MaxPool3d, nn.AdaptiveAvgPool3d)
    )
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(WIDTHS):
        layers += [conv(before, after, 3, padding=1), norm(after), pool(2), nn.ReLU()]
    return nn.Sequential(*layers, conv(256, 64, 1), norm(64), nn.ReLU(), average(1), nn.Flatten())


class SliceModel(nn.Module):
    """A 2D encoder applied to slices that are stacked one by one, their mean, and a head."""

    def __init__(self, resnet: bool) -> None:
        super().__init__()
        self.channels = 3 if resnet else 1
        self.encoder = timm.create_model("resnet18", num_classes=0) if resnet else trunk(2)
        self.project = nn.Linear(512 if resnet else 64, 32)
        self.head = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, D, H, W) to (B, 1)."""
        slices = torch.cat([x[:, :, i] for i in range(x.shape[2])], dim=0)
        features = self.project(self.encoder(slices.repeat(1, self.channels, 1, 1)))
        return self.head(features.view(x.shape[2], len(x), 32).mean(dim=0))


def plain_network(name: str) -> nn.Module:
    """Return one of the three models of the papers: ``own``, ``resnet18`` or ``cnn3d``."""
    if name == "cnn3d":
        network: nn.Module = nn.Sequential(trunk(3), nn.Linear(64, 1))
    else:
        network = SliceModel(name == "resnet18")
    found = sum(parameter.numel() for parameter in network.parameters())
    if found != PARAMETERS[name]:
        raise AssertionError(f"{name} has {found} parameters instead of {PARAMETERS[name]}")
    return network


class Scans(Dataset[tuple[Tensor, float]]):
    """Scans read by nibabel and z-scored, one at a time."""

    def __init__(self, files: Sequence[Path], ages: Sequence[float]) -> None:
        self.files, self.ages = files, ages

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        volume = nibabel.load(self.files[index]).get_fdata(dtype=np.float32)
        volume = (volume - volume.mean()) / volume.std()
        return torch.from_numpy(volume)[None], float(self.ages[index])


def write_scans(folder: Path, n: int, shape: tuple[int, int, int]) -> list[Path]:
    """Write float32 .nii.gz scans with noise in an ellipsoid and zeros around it."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    head = sum(axis**2 for axis in axes) < 0.7
    files = []
    for number in range(n):
        volume = np.where(head, rng.normal(100, 20, shape), 0).astype(np.float32)
        files.append(folder / f"{number}.nii.gz")
        nibabel.Nifti1Image(volume, np.diag([2, 2, 2, 1])).to_filename(files[-1])
    return files


def plain_epoch(name: str, files: Sequence[Path], ages: Sequence[float], batch: int = 8) -> float:
    """Return the seconds of one training epoch, including reading the files."""
    torch.manual_seed(0)
    network = plain_network(name).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-4)
    loader = DataLoader(Scans(files, ages), batch_size=batch, shuffle=True, num_workers=2)
    started = time.perf_counter()
    for volumes, wanted in loader:
        optimizer.zero_grad()
        nn.functional.mse_loss(network(volumes)[:, 0], wanted.float()).backward()
        optimizer.step()
    return time.perf_counter() - started
