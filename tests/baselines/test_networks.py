from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from baselines.pooling import Attention
from baselines.position import position
from baselines.slices import central, strided
from registry.cards import Task

MNI = (91, 109, 91)
SMALL = (7, 44, 36)
AD = Task("diagnosis", "classification", ("CN", "AD"))
THREE = Task("diagnosis", "classification", ("CN", "MCI", "AD"))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


OWN, RESNET = 998_625, 11_195_105
ATTENTION = 3_264


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("cnn3d", {}, 2_948_801),
        ("slice2d-own", {}, OWN),
        ("slice2d-own", {"pool": "max"}, OWN),
        ("slice2d-own", {"pool": "attention"}, 1_001_889),
        ("slice2d-own-pos", {}, OWN + 17_472),
        ("slice2d-own-pos", {"axis": "axial"}, OWN + 17_472),
        ("slice2d-own-pos", {"axis": "coronal"}, OWN + 20_928),
        ("slice2d-own-pos", {"pool": "attention"}, OWN + ATTENTION + 17_472),
        ("slice2d-own", {"position": "sinusoidal"}, OWN),
        ("slice2d-scratch", {}, RESNET),
        ("slice2d-scratch", {"pool": "max"}, RESNET),
        ("slice2d-scratch", {"pool": "attention"}, 11_198_369),
        ("slice2d-scratch-pos", {}, RESNET + 8_736),
        ("slice2d-scratch-pos", {"axis": "axial"}, RESNET + 8_736),
        ("slice2d-scratch-pos", {"axis": "coronal"}, RESNET + 10_464),
        ("slice2d-imagenet", {}, RESNET),
        ("slice2d-imagenet-pos", {}, RESNET + 8_736),
        ("slice-lstm", {}, 1_070_403),
    ],
)
def test_parameter_counts_equal_the_papers(build, model, options, expected) -> None:
    assert count(build(model, MNI, **options)) == expected


@pytest.mark.parametrize("axis", ["sagittal", "coronal", "axial"])
def test_slices_enter_the_encoder_with_the_volumes_first_axis_first(build, axis) -> None:
    model = build("slice2d-own", (10, 12, 14), axis=axis)
    seen = []
    model.slices.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randn(2, 1, 10, 12, 14)
    model(x)
    number = {"sagittal": 0, "coronal": 1, "axial": 2}[axis]
    n_slices = (10, 12, 14)[number]
    expected = [x[b, 0].select(number, s) for b in range(2) for s in range(n_slices)]
    assert torch.equal(seen[0][:, 0], torch.stack(expected))


def test_slices_are_repeated_over_the_encoders_channels_without_normalisation(build) -> None:
    model = build("slice2d-scratch", (3, 32, 32)).eval()
    seen = []
    model.slices.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randn(1, 1, 3, 32, 32)
    model(x)
    assert torch.equal(seen[0], x[0, 0].unsqueeze(1).repeat(1, 3, 1, 1))


def test_imagenet_normalisation_gives_each_volume_the_range_of_a_photograph(build) -> None:
    model = build("slice2d-scratch", (3, 32, 32), normalise="imagenet").eval()
    seen = []
    model.slices.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(torch.cat([torch.randn(1, 1, 3, 32, 32) * 5 + 3, torch.zeros(1, 1, 3, 32, 32)]))
    mean, std = (model.slices.mean, model.slices.std)
    unit = seen[0] * std + mean
    assert unit[:3].min().item() == pytest.approx(0, abs=1e-5)
    assert unit[:3].max().item() == pytest.approx(1, abs=1e-5)
    assert torch.allclose(unit[3:], torch.zeros(3, 3, 32, 32), atol=1e-6)


ORDERED = [
    ("slice2d-own-pos", {}),
    ("slice2d-scratch-pos", {}),
    ("slice2d-own", {"position": "sinusoidal", "pool": "max"}),
    ("slice2d-own", {"position": "learned", "pool": "attention"}),
    ("slice-lstm", {}),
]
UNORDERED = [
    ("slice2d-own", {"pool": "mean"}),
    ("slice2d-own", {"pool": "max"}),
    ("slice2d-own", {"pool": "attention"}),
    ("slice2d-scratch", {}),
    # Without a norm, linear maps and the mean turn the added vectors into a constant.
    ("slice2d-own", {"position": "learned"}),
]


def outputs_of_two_orders(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    # Heads and attention have small initial weights, which are enlarged to show differences.
    for name, parameter in model.named_parameters():
        if name.startswith(("head.", "pool.")):
            nn.init.normal_(parameter)
    x = torch.randn(2, 1, *SMALL)
    with torch.no_grad():
        return model.eval()(x), model(x.flip(2))


@pytest.mark.parametrize(("model", "options"), UNORDERED)
def test_without_position_the_order_of_slices_does_not_matter(build, model, options) -> None:
    one, other = outputs_of_two_orders(build(model, SMALL, **options))
    assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("model", "options"), ORDERED)
def test_with_position_the_order_of_slices_matters(build, model, options) -> None:
    one, other = outputs_of_two_orders(build(model, SMALL, **options))
    assert not torch.allclose(one, other, rtol=1e-3, atol=1e-3)


def test_the_norm_alone_can_learn_positions_and_the_vectors_come_without_it() -> None:
    norm = position("none", True, n_slices=5, features=4)
    vectors = position("learned", False, n_slices=5, features=4)
    x = torch.randn(2, 5, 4)
    assert count(norm) == 2 * 5 * 4
    assert count(vectors) == 5 * 4
    assert torch.allclose(norm(x).mean((1, 2)), torch.zeros(2), atol=1e-6)
    nn.init.normal_(norm[1].weight)
    assert not torch.allclose(norm(x).flip(1), norm(x.flip(1)))
    assert torch.allclose(vectors(x) - x, vectors.vectors.expand(2, -1, -1), atol=1e-6)


def test_learned_vectors_start_with_the_papers_spread() -> None:
    vectors = position("learned", False, n_slices=91, features=640).vectors
    assert vectors.std().item() == pytest.approx(1 / math.sqrt(91), rel=0.02)


def test_sinusoids_have_no_parameters_and_differ_for_every_slice() -> None:
    vectors = position("sinusoidal", False, n_slices=91, features=32)
    assert count(vectors) == 0
    assert torch.equal(vectors.vectors[0], torch.tensor([0.0, 1.0]).repeat(16))
    assert torch.cdist(vectors.vectors, vectors.vectors).fill_diagonal_(1).min() > 0.1


def test_an_unknown_position_or_pool_is_refused(build) -> None:
    with pytest.raises(ValueError, match="choose none, learned or sinusoidal"):
        position("fourier", False, 3, 4)
    with pytest.raises(ValueError, match="choose mean, max or attention"):
        build("slice2d-own", SMALL, pool="median")


def test_attention_equals_its_formula() -> None:
    pool = Attention(32, small_start=False)
    x = torch.randn(3, 9, 32)
    weights = (pool.query @ pool.key(x).transpose(1, 2) / math.sqrt(32)).softmax(-1)
    expected = pool.output(pool.norm(weights @ pool.value(x)))[:, 0]
    assert torch.allclose(pool(x), expected, atol=1e-5)


@pytest.mark.parametrize("model", ["slice2d-own", "slice-lstm", "cnn3d", "fewslice-scratch"])
@pytest.mark.parametrize(("task", "n_outputs"), [(AD, 1), (THREE, 3)])
def test_outputs_follow_the_task(build, model, task, n_outputs) -> None:
    assert build(model, SMALL, task=task, k=1)(torch.randn(2, 1, *SMALL)).shape == (2, n_outputs)


def test_ages_start_at_the_training_mean(build) -> None:
    # Standardised ages have mean 0 and sd 1, so initial predictions should be near 0.
    for model in ("slice2d-own", "slice2d-scratch", "cnn3d", "slice-lstm"):
        output = build(model, SMALL).eval()(torch.randn(4, 1, *SMALL))
        assert output.abs().max() < 0.6, model


def test_the_papers_initialisation(build) -> None:
    own = build("slice2d-own", MNI, pool="attention")
    block = own.slices.encoder.blocks[2].conv
    assert block.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.02)
    assert block.bias.abs().max() == 0
    assert own.project.weight.std().item() == pytest.approx(math.sqrt(2 / 32), rel=0.1)
    assert own.head[0].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert own.pool.key.weight.std().item() == pytest.approx(0.01, rel=0.1)
    library = build("slice2d-scratch", MNI)
    assert library.project.weight.abs().max().item() == pytest.approx(1 / math.sqrt(512), rel=0.01)
    trunk = build("cnn3d", MNI).trunk
    expected = math.sqrt(2 / (27 * 128))
    assert trunk.blocks[2].conv.weight.std().item() == pytest.approx(expected, rel=0.02)


def test_dropout_defaults_are_the_papers(build) -> None:
    rates = {m: build(m, SMALL, k=1).dropout.p for m in ("slice2d-own", "slice2d-scratch", "cnn3d")}
    assert rates == {"slice2d-own": 0.5, "slice2d-scratch": 0.0, "cnn3d": 0.0}


@given(shape=st.tuples(*[st.integers(8, 26)] * 3), batch=st.integers(1, 2), data=st.data())
@settings(max_examples=8, deadline=None)
def test_any_volume_shape_and_batch_size(build, shape, batch, data) -> None:
    for model in ("slice2d-own-pos", "slice-lstm", "cnn3d"):
        axis = data.draw(st.sampled_from(["sagittal", "coronal", "axial"]))
        output = build(model, shape, axis=axis, stride=4)(torch.randn(batch, 1, *shape))
        assert output.shape == (batch, 1)
        assert output.isfinite().all()


def test_an_axis_too_short_to_pool_is_left_unpooled(build) -> None:
    trunk = build("cnn3d", (46, 55, 46)).trunk
    with torch.no_grad():
        assert trunk.blocks(torch.randn(1, 1, 46, 55, 46)).shape[2:] == (2, 3, 2)
        assert trunk.blocks(torch.randn(1, 1, 4, 9, 40)).shape[2:] == (2, 2, 2)


@given(n_slices=st.integers(1, 300), data=st.data())
def test_a_stride_keeps_every_kth_slice_symmetrically(n_slices, data) -> None:
    stride = data.draw(st.integers(1, n_slices))
    kept = list(strided(n_slices, stride))
    assert {b - a for a, b in pairwise(kept)} <= {stride}
    assert 0 <= (n_slices - 1 - kept[-1]) - kept[0] <= 1
    assert kept[0] < stride


@given(n_slices=st.integers(1, 300), data=st.data())
def test_few_slices_lie_around_the_middle(n_slices, data) -> None:
    k = data.draw(st.integers(1, n_slices))
    spacing = data.draw(st.integers(1, max(1, (n_slices - 1) // max(1, k - 1))))
    kept = list(central(n_slices, k, spacing))
    assert len(kept) == k
    assert kept[0] >= 0
    assert kept[-1] < n_slices
    assert abs(sum(kept) / k - (n_slices - 1) / 2) <= 0.5


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("slice2d-own", {"stride": 8}, "between 1 and 7"),
        ("slice2d-own", {"stride": 0}, "between 1 and 7"),
        ("fewslice-scratch", {"k": 3, "spacing": 4}, "span 9 slices"),
        ("fewslice-scratch", {"k": 0, "spacing": 1}, "at least 1"),
        ("fewslice-scratch", {"k": 2, "spacing": 1, "form": "channels"}, "use k=3"),
        ("slice2d-scratch", {"axis": "coronal"}, "7x36 pixels are too small"),
        ("slice2d-own", {"normalise": "imagenet"}, "use normalise=none"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(build, model, options, words) -> None:
    with pytest.raises(ValueError, match=words):
        build(model, SMALL, **options)


def test_a_volume_too_small_for_the_3d_cnn_is_refused(build) -> None:
    with pytest.raises(ValueError, match="needs at least 4 along every axis"):
        build("cnn3d", (3, 40, 40))


def test_few_slices_average_their_embeddings_and_ignore_the_rest(build) -> None:
    model = build("fewslice-scratch", SMALL, k=3, spacing=2).eval()
    x = torch.randn(2, 1, *SMALL)
    with torch.no_grad():
        whole = model(x)
        features = [model.slices.encoder(x[:, 0, i, None].repeat(1, 3, 1, 1)) for i in (1, 3, 5)]
        embedded = torch.stack([model.project(f) for f in features]).mean(0)
        x[:, :, [0, 2, 4, 6]] = 9
        assert torch.allclose(whole, model.head(embedded), atol=1e-5)
        assert torch.equal(whole, model(x))


def test_three_slices_as_channels_are_one_image(build) -> None:
    model = build("fewslice-scratch", SMALL, k=3, spacing=2, form="channels").eval()
    seen = []
    model.slices.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randn(2, 1, *SMALL)
    assert model(x).shape == (2, 1)
    assert torch.equal(seen[0], x[:, 0, [1, 3, 5]])


def test_a_frozen_encoder_is_not_trained_and_keeps_its_statistics(build) -> None:
    model = build("slice2d-scratch", SMALL, freeze=True).train()
    before = {n: t.clone() for n, t in model.slices.encoder.state_dict().items()}
    output = model(torch.randn(2, 1, *SMALL))
    output.sum().backward()
    assert not model.slices.encoder.training
    assert model.project.training
    assert all(p.grad is None for p in model.slices.encoder.parameters())
    assert model.project.weight.grad.abs().sum() > 0
    after = model.slices.encoder.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_an_encoder_that_is_not_frozen_trains_its_statistics(build) -> None:
    model = build("slice2d-scratch", SMALL).train()
    before = model.slices.encoder.bn1.running_mean.clone()
    model(torch.randn(2, 1, *SMALL)).sum().backward()
    assert not torch.equal(before, model.slices.encoder.bn1.running_mean)
    assert model.slices.encoder.conv1.weight.grad.abs().sum() > 0


def test_the_handles_weights_are_the_ones_that_the_model_starts_from(build, handle) -> None:
    pretrained = handle("own").make().state_dict()
    model = build("slice2d-own", SMALL, encoder=handle("own", pretrained))
    loaded = model.slices.encoder.state_dict()
    assert all(torch.equal(loaded[n], pretrained[n]) for n in pretrained)


FAMILIES = ["slice2d-own-pos", "slice2d-scratch", "fewslice-scratch", "slice-lstm", "cnn3d"]


@pytest.mark.parametrize("model", FAMILIES)
def test_bfloat16_autocast_stays_near_float32(build, model) -> None:
    network = build(model, SMALL, k=1).eval()
    x = torch.randn(2, 1, *SMALL)
    with torch.no_grad():
        full = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x)
    assert torch.allclose(full, half.float(), atol=0.05)


@pytest.mark.parametrize("model", FAMILIES)
def test_channels_last_gives_the_same_numbers(build, model) -> None:
    network = build(model, SMALL, k=1).eval()
    x = torch.randn(2, 1, *SMALL)
    with torch.no_grad():
        plain = network(x)
        layout = torch.channels_last_3d if model == "cnn3d" else torch.channels_last
        assert torch.allclose(plain, network.to(memory_format=layout)(x), atol=1e-4)


@pytest.mark.parametrize("model", [m for m in FAMILIES if m != "slice-lstm"])
def test_torch_compile_sees_one_graph(build, model) -> None:
    network = build(model, SMALL, k=1).eval()
    x = torch.randn(2, 1, *SMALL)
    whole = torch.compile(network, backend="eager", fullgraph=True)
    assert torch.allclose(whole(x), network(x), atol=1e-5)
