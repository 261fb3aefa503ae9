"""All ways to compute a training step give the same gradients."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from bench.plan import resolve_params
from bench.train.encoder import encoder_handle
from bench.train.features import features_of
from bench.train.layout import LEAST_STEPS, Workload, fastest_layout
from bench.train.learner import Learner, OutOfMemory
from bench.train.loader import VolumeLoader
from bench.unit import Layout
from registry.cards import Task
from registry.core import catalogue, resolve
from registry.models import complete_params

pytestmark = pytest.mark.slow

AGE = Task("age", "regression")
CPU = torch.device("cpu")
SHAPE = (24, 33, 34)
N = 5
ENCODERS = {"cnn3d": None, "slice2d-own": "own", "slice2d-scratch": "resnet18"}


def scans(n=N):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, *SHAPE)).astype(np.float16), rng.normal(65, 8, n)


def settings(model, **changes):
    card = catalogue.model(model)
    base = {"batch_size": N, "dropout": 0.0, "stride": 3} | changes
    return complete_params(card, resolve_params(card, base))


def network_of(model, params):
    encoder = ENCODERS[model]
    handle = None if encoder is None else encoder_handle(catalogue.encoder(encoder), None)
    torch.manual_seed(3)
    return resolve(catalogue.model(model).target)(params, AGE, SHAPE, handle)


def taught(network, params, **how):
    return Learner(network, AGE, params, scans()[1], device=CPU, precision="fp32", **how)


def gradients(learner, loader):
    """The gradients of one batch in double precision.

    In single precision, rounding can change which voxel max-pooling selects and the sign of the
    input of a ReLU, which changes the gradient depending on the kernels of the processor.
    """
    learner.network.double()
    learner.train_mode()
    learner.network.zero_grad()
    volumes, targets = next(loader.batches(np.arange(N), N))
    learner.backward(volumes.double(), targets)
    named = learner.network.named_parameters()
    found = {name: p.grad.clone() for name, p in named if p.grad is not None}
    learner.network.float()
    return found


def plain(model, **changes):
    params = settings(model, **changes)
    return gradients(taught(network_of(model, params), params), loader_at("map"))


def loader_at(location):
    volumes, ages = scans()
    return VolumeLoader(volumes, np.arange(N), ages, CPU, location=location)


def assert_alike(found, wanted, tolerance):
    assert found.keys() == wanted.keys()
    assert found
    # The gradient of a bias before a norm is only rounding, so all parameters are compared at once.
    scale = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, rtol=tolerance, atol=tolerance * scale), name


@pytest.mark.parametrize("location", ["device", "map"])
def test_the_location_of_the_scans_changes_no_bit(location):
    params = settings("slice2d-own")
    found = gradients(taught(network_of("slice2d-own", params), params), loader_at(location))
    assert_alike(found, plain("slice2d-own"), 0.0)


def test_batches_come_in_order_from_every_location():
    order = np.array([3, 1, 4, 0, 2])
    for location in ("device", "map"):
        batches = list(loader_at(location).batches(order, 2))
        volumes, ages = scans()
        assert [len(v) for v, _ in batches] == [2, 2, 1]
        found = torch.cat([v for v, _ in batches])[:, 0].numpy()
        assert np.array_equal(found, volumes[order].astype(np.float32))
        assert np.array_equal(torch.cat([t for _, t in batches]).numpy(), ages[order])


@pytest.mark.parametrize("chunk", [1, 3, 5])
def test_chunks_of_slices_give_the_gradients_of_all_at_once(chunk):
    found = plain("slice2d-own", slice_chunk=chunk)
    assert_alike(found, plain("slice2d-own"), 1e-5)


def test_one_chunk_of_a_batchnorm_encoder_is_the_whole_and_counts_once():
    params = settings("slice2d-scratch", slice_chunk=4)
    network = network_of("slice2d-scratch", params)
    gradients(taught(network, params), loader_at("map"))
    norm = network.slices.encoder.bn1
    # 8 slices in 2 chunks; recomputing them in the backward pass must not change the statistics.
    assert int(norm.num_batches_tracked) == 2
    whole = plain("slice2d-scratch", slice_chunk=8)
    assert_alike(whole, plain("slice2d-scratch"), 0.0)


def test_chunks_keep_the_order_of_slices():
    params = settings("slice2d-own", position="learned", position_norm=True)
    chunked = {**params, "slice_chunk": 3}
    volumes = torch.from_numpy(scans()[0]).float()[:, None]
    with torch.no_grad():
        one = network_of("slice2d-own", params).eval()(volumes)
        other = network_of("slice2d-own", chunked).eval()(volumes)
    assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("memory_format", ["channels_last", "channels_last_3d"])
def test_a_memory_format_changes_gradients_by_rounding(memory_format):
    model = "cnn3d" if memory_format == "channels_last_3d" else "slice2d-own"
    params = settings(model)
    learner = taught(network_of(model, params), params, layout=Layout(memory_format))
    assert_alike(gradients(learner, loader_at("map")), plain(model), 1e-5)


def test_compiled_training_gives_the_gradients_of_the_plain_one():
    params = settings("slice2d-own", stride=12)
    learner = taught(network_of("slice2d-own", params), params, layout=Layout(mode="default"))
    found = gradients(learner, loader_at("map"))
    torch.compiler.reset()
    assert_alike(found, plain("slice2d-own", stride=12), 1e-5)


class Greedy(nn.Module):
    """A network that runs out of memory for more than two volumes."""

    def __init__(self, norm=False):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), 4))
        if norm:
            self.layers.append(nn.BatchNorm1d(4))
        self.layers.append(nn.Linear(4, 1))
        self.limit = 2

    def forward(self, volumes):
        if len(volumes) > self.limit:
            raise torch.OutOfMemoryError("not enough memory")
        return self.layers(volumes)


def test_out_of_memory_halves_the_parts_and_keeps_the_gradient():
    params = settings("cnn3d")
    learner = taught(Greedy(), params)
    found = gradients(learner, loader_at("map"))
    assert learner.micro_batch == 2
    generous = Greedy()
    generous.limit = N
    assert_alike(found, gradients(taught(generous, params), loader_at("map")), 1e-5)


def test_out_of_memory_is_an_error_where_parts_would_be_another_model():
    params = settings("cnn3d")
    with pytest.raises(OutOfMemory, match="BatchNorm"):
        gradients(taught(Greedy(norm=True), params), loader_at("map"))
    starved = Greedy()
    starved.limit = 0
    with pytest.raises(OutOfMemory, match="single volume"):
        gradients(taught(starved, params), loader_at("map"))


def frozen_features(tmp_path, network, rows):
    return features_of(
        network,
        scans()[0],
        np.asarray(rows),
        identity={"cohort": "made up"},
        folder=tmp_path,
        device=CPU,
        precision="fp32",
    )


def test_a_head_on_kept_features_has_the_gradients_and_predictions_of_the_whole(tmp_path):
    params = settings("slice2d-scratch", freeze=True)
    network = network_of("slice2d-scratch", params)
    features = frozen_features(tmp_path, network, range(N))
    ages = scans()[1]
    learner = taught(network, params, from_features=True)
    kept = VolumeLoader(features, np.arange(N), ages, CPU)
    assert_alike(gradients(learner, kept), plain("slice2d-scratch", freeze=True), 1e-4)
    whole = taught(network_of("slice2d-scratch", params), params)
    assert np.allclose(learner.predict(kept), whole.predict(loader_at("map")), atol=1e-4)


def test_only_the_scans_asked_for_are_embedded_and_each_once(tmp_path):
    params = settings("slice2d-own", freeze=True)
    network = network_of("slice2d-own", params)
    some = np.array(frozen_features(tmp_path, network, [0, 3]))
    assert some[[0, 3]].any(axis=(1, 2)).all()
    assert not some[[1, 2, 4]].any()
    calls = []
    network.slices.register_forward_hook(lambda module, given, out: calls.append(len(given[0])))
    everyone = frozen_features(tmp_path, network, range(N))
    assert calls == [3]
    assert np.array_equal(everyone[[0, 3]], some[[0, 3]])


def work(steps):
    params = settings("cnn3d")
    return Workload(
        build=lambda: network_of("cnn3d", params),
        task=AGE,
        params=params,
        precision="fp32",
        shape=SHAPE,
        device=CPU,
        steps=steps,
        identity={"model": "cnn3d"},
    )


def test_a_layout_is_measured_once_and_then_read(tmp_path):
    assert fastest_layout(work(LEAST_STEPS - 1), tmp_path) == Layout()
    assert not list(tmp_path.iterdir())
    state = torch.get_rng_state()
    found = fastest_layout(work(LEAST_STEPS), tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    (file,) = tmp_path.glob("*.json")
    content = json.loads(file.read_text())
    assert {line["memory_format"] for line in content["measured"]} == {
        "contiguous_format",
        "channels_last_3d",
    }
    assert asdict(found) == content["layout"]
    content["layout"] = {"memory_format": "channels_last_3d", "mode": ""}
    file.write_text(json.dumps(content))
    assert fastest_layout(work(LEAST_STEPS), tmp_path) == Layout("channels_last_3d")
