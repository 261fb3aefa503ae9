"""bfloat16 on a CPU is accurate up to rounding and reproducible."""

import numpy as np
import pytest
import torch
from torch import nn

from baselines.cnn3d import CNN3D
from bench.train.learner import Learner
from bench.train.numerics import multiplies_bf16
from registry.cards import Task

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not multiplies_bf16(CPU), reason="no native bfloat16 here")


def leave_garbage():
    """Fill the memory of the next tensors with NaN."""
    for size in (2**21, 2**20, 2**18, 2**16, 2**14, 2**12):
        torch.full((size,), float("nan"))


PARAMS = {"loss": "mse", "class_weights": "none", "bn": "running", "batch_size": 4}
AGES = np.array([50.0, 60.0, 70.0, 80.0])


def taught(network, precision):
    task = Task("age", "regression")
    return Learner(network, task, PARAMS, AGES, device=CPU, precision=precision)


def weight_gradients(network, shape, times, precision="bf16"):
    learner = taught(network, precision)
    torch.manual_seed(0)
    volumes, targets = torch.randn(4, 1, *shape), torch.tensor(AGES)
    found = []
    for _ in range(times):
        leave_garbage()
        network.zero_grad()
        learner.backward(volumes, targets)
        found.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    return found


def small_net(dims, size, kernel, stride):
    """Two convolutions, the second one with a kernel larger than its input."""
    conv = nn.Conv3d if dims == 3 else nn.Conv2d
    pool = nn.AdaptiveAvgPool3d(size) if dims == 3 else nn.AdaptiveAvgPool2d(size)
    view = nn.Identity() if dims == 3 else nn.Flatten(1, 2)
    torch.manual_seed(0)
    return nn.Sequential(
        view,
        conv(1, 64, 1) if dims == 3 else conv(12, 64, 1),
        pool,
        conv(64, 128, kernel, stride=stride, padding=kernel // 2),
        nn.Flatten(),
        nn.LazyLinear(1),
    )


@pytest.mark.parametrize(
    ("dims", "size", "kernel", "stride"),
    [(3, (2, 3, 2), 3, 1), (3, (2, 2, 5), 3, 1), (2, (3, 1), 3, 2), (2, (1, 7), 5, 1)],
)
def test_maps_smaller_than_the_kernel_give_the_same_finite_gradients(dims, size, kernel, stride):
    network = small_net(dims, size, kernel, stride)
    network(torch.zeros(1, 1, 12, 12, 12))  # Initialises the lazy layer.
    first, *others = weight_gradients(network, (12, 12, 12), 6)
    assert torch.isfinite(first).all()
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.slow
def test_the_3d_cnn_at_4_mm_repeats_itself_to_the_bit():
    torch.manual_seed(0)
    first, *others = weight_gradients(CNN3D(0.0, 1), (45, 54, 45), 4)
    assert torch.isfinite(first).all()
    assert all(torch.equal(first, other) for other in others)


def test_the_gradient_is_that_of_fp32_but_for_rounding():
    torch.manual_seed(0)
    network = CNN3D(0.0, 1)
    (exact,) = weight_gradients(network, (45, 54, 45), 1, "fp32")
    (short,) = weight_gradients(network, (45, 54, 45), 1)
    # Rounding to eight bits in five normalised layers with random input.
    assert torch.nn.functional.cosine_similarity(short, exact, dim=0) > 0.9
    assert 0.8 < short.norm() / exact.norm() < 1.25
