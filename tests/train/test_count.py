import math

import pytest
import torch
from torch import nn

from baselines.slice_lstm import EMBEDDING, HIDDEN
from bench.train.count import multiply_adds, parameter_count
from tests.baselines.conftest import build, handle  # noqa: F401

SHAPE = (12, 16, 20)
MNI = (91, 109, 91)


class Net(nn.Module):
    """A layer applied to a reshaped volume."""

    def __init__(self, layer, view=lambda x: x):
        super().__init__()
        self.layer, self.view = layer, view

    def forward(self, x):
        return self.layer(self.view(x))


def trunk(size):
    """Multiply-adds of the papers' convolutional blocks for one image or volume."""
    total, n_in = 0, 1
    for width in (32, 64, 128, 256, 256):
        total += math.prod(size) * width * n_in * 3 ** len(size)
        size = [n // 2 if n >= 4 else n for n in size]
        n_in = width
    return total + math.prod(size) * 256 * 64


def linear(layers):
    """Multiply-adds of linear layers that are applied once."""
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))


# ------------------------------------------------------------------ single layers


def test_a_3d_convolution_is_weights_times_places():
    # Output positions: (12 + 2 - 3) // 2 + 1 = 6, 8, 10.
    network = Net(nn.Conv3d(1, 7, 3, stride=2, padding=1))
    assert multiply_adds(network, SHAPE) == 6 * 8 * 10 * 7 * 27
    assert parameter_count(network) == 7 * 27 + 7


def test_a_2d_convolution_counts_every_slice():
    network = Net(nn.Conv2d(1, 4, 5), lambda x: x[0].movedim(1, 0))
    assert multiply_adds(network, SHAPE) == 12 * (12 * 16) * 4 * 25


def test_groups_divide_the_work():
    network = Net(nn.Conv3d(12, 12, (1, 3, 3), groups=12), lambda x: x.movedim(2, 1))
    assert multiply_adds(network, (12, 16, 20)) == 14 * 18 * 12 * 9


def test_a_linear_layer_is_its_weights_and_norms_are_free():
    n = 12 * 16 * 20
    layers = nn.Sequential(nn.InstanceNorm3d(1), nn.ReLU(), nn.Flatten(), nn.Linear(n, 3))
    assert multiply_adds(Net(layers), SHAPE) == 3 * n


@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (2, 2)])
def test_an_lstm_is_four_gates_a_step(layers, directions):
    lstm = nn.LSTM(320, 5, layers, batch_first=True, bidirectional=directions == 2)
    network = Net(lstm, lambda x: x[:, 0].flatten(2))
    inputs = [320] + [5 * directions] * (layers - 1)
    step = directions * sum(4 * 5 * (n + 5) for n in inputs)
    assert multiply_adds(network, SHAPE) == 12 * step


def test_attention_counts_its_projections_and_both_products():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(320, 2, batch_first=True)

        def forward(self, x):
            x = x[:, 0].flatten(2)
            return self.attention(x, x, x, need_weights=False)[0]

    n, width = 12, 320
    products = 2 * n * n * width
    assert multiply_adds(Attends(), SHAPE) == 4 * n * width * width + products


# ------------------------------------------------------------------ the network is unchanged


def test_mode_numbers_gradients_and_chance_stay_as_they_are():
    network = Net(nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Dropout(0.5)))
    network.train()
    network.layer[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    multiply_adds(network, SHAPE)
    assert network.training
    assert not network.layer[1].training
    assert network.layer[0].weight.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in network.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[name])


def test_a_network_on_the_meta_device_counts_alike():
    with torch.device("meta"):
        network = Net(nn.Conv3d(1, 2, 3))
    assert multiply_adds(network, SHAPE) == 10 * 14 * 18 * 2 * 27


def test_a_volume_that_no_memory_holds_is_counted():
    side = 20_000
    assert multiply_adds(Net(nn.Conv3d(1, 2, 1)), (side, side, side)) == 2 * side**3


def test_shared_parameters_count_once_and_run_twice():
    layer = nn.Conv3d(1, 1, 3, padding=1)
    network = Net(nn.Sequential(layer, layer))
    assert parameter_count(network) == 28
    assert multiply_adds(network, SHAPE) == 2 * 12 * 16 * 20 * 27


def test_a_pass_that_reads_numbers_is_refused():
    network = Net(nn.Flatten(), lambda x: x * 2 if x.sum().item() > 0 else x)
    with pytest.raises(RuntimeError):
        multiply_adds(network, SHAPE)


# ------------------------------------------------------------------ built-in models


def test_the_3d_cnn_is_its_convolutions_and_its_last_layer(build):  # noqa: F811
    network = build("cnn3d", MNI)
    assert multiply_adds(network, MNI) == trunk(MNI) + 64
    assert parameter_count(network) == 2_948_801


def test_slice2d_is_its_trunk_and_embedding_once_a_slice(build):  # noqa: F811
    network = build("slice2d-own", MNI)
    wanted = 91 * (trunk((109, 91)) + 64 * 32) + linear(network.head)
    assert multiply_adds(network, MNI) == wanted
    assert parameter_count(network) == 998_625


def test_the_slice_lstm_counts_its_four_gates_at_every_slice(build):  # noqa: F811
    network = build("slice-lstm", MNI)
    gates = 4 * HIDDEN * (EMBEDDING + HIDDEN)
    wanted = 91 * (trunk((109, 91)) + 64 * EMBEDDING + gates) + linear(network.head)
    assert multiply_adds(network, MNI) == wanted


@pytest.mark.parametrize("options", [{"slice_chunk": 16}, {"freeze": True}])
def test_how_slices_are_passed_does_not_change_the_count(build, options):  # noqa: F811
    shape = (40, 44, 36)
    plain = multiply_adds(build("slice2d-own", shape), shape)
    assert multiply_adds(build("slice2d-own", shape, **options), shape) == plain
