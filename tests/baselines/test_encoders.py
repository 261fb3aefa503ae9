from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from types import SimpleNamespace

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision.models
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_images
from timm.data import ImageNetInfo
from torchvision.models import resnet18 as torchvision_resnet18

from baselines import encoders
from baselines.weights import load_strictly
from bench.train.encoder import encoder_handle
from bench.train.weights import WeightsMissing, locate, tensors_digest
from registry import catalogue

LITE0 = catalogue.encoder("efficientnet-lite0")
RESNET = catalogue.encoder("resnet18")


def lite0_file() -> dict[str, torch.Tensor]:
    module, _, path = LITE0.weights.package.partition(":")
    return torch.load(str(files(module) / path), weights_only=True)


def photographs() -> torch.Tensor:
    images = [
        torch.tensor(image).permute(2, 0, 1)[None] / 255 for image in load_sample_images().images
    ]
    sized = [F.interpolate(i, (224, 224), mode="bicubic", antialias=True) for i in images]
    return (torch.cat(sized).clamp(0, 1) - 0.5) / 0.5


def test_the_packages_tensors_classify_real_photographs() -> None:
    tensors = lite0_file()
    classifier = timm.create_model("tf_efficientnet_lite0")
    trunk = encoders.build_efficientnet_lite0(LITE0, tensors).eval()
    classifier.load_state_dict(trunk.state_dict(), strict=False)
    classifier.classifier.weight.data = tensors["_fc.weight"]
    classifier.classifier.bias.data = tensors["_fc.bias"]
    with torch.no_grad():
        likely = classifier.eval()(photographs()).softmax(1).topk(3)
    info = ImageNetInfo()
    china, flower = ([info.index_to_description(int(i)) for i in row] for row in likely.indices)
    assert any("palace" in name or "temple" in name or "monastery" in name for name in china)
    assert "daisy" in flower[0]


def test_the_packages_tensors_have_the_digest_of_the_card() -> None:
    encoder = encoders.build_efficientnet_lite0(LITE0, lite0_file())
    assert tensors_digest(encoder.state_dict()) == LITE0.weights.sha256


def test_torchvisions_and_timms_resnet18_files_load_the_same_tensors() -> None:
    torchvisions = torchvision_resnet18().state_dict()
    without_counters = {n: t for n, t in torchvisions.items() if "num_batches" not in n}
    timms = timm.create_model("resnet18")
    timms.load_state_dict(torchvisions)
    x = torch.randn(2, 3, 64, 48)
    outputs = [
        encoders.build_resnet18(RESNET, state).eval()(x)
        for state in (torchvisions, without_counters, timms.state_dict())
    ]
    assert outputs[0].shape == (2, 512)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_random_resnet18_starts_as_torchvisions_and_not_at_zero_branches() -> None:
    encoder = encoders.build_resnet18(RESNET, None)
    assert torch.equal(encoder.layer1[0].bn2.weight, torch.ones(64))


def test_without_weights_two_builds_differ_by_their_random_numbers() -> None:
    first, second = (encoders.build_resnet18(RESNET, None) for _ in range(2))
    assert not torch.equal(first.conv1.weight, second.conv1.weight)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), "missing: layer1.0.conv1.weight"),
        (lambda s: s.update(stranger=torch.zeros(1)), "unexpected: stranger"),
        (lambda s: s.update({"conv1.weight": torch.zeros(1)}), "of another shape: conv1.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_nothing_is_loaded(damage, words) -> None:
    state = torchvision_resnet18().state_dict()
    damage(state)
    encoder = encoders.build_resnet18(RESNET, None)
    before = tensors_digest(encoder.state_dict())
    with pytest.raises(ValueError, match=words):
        load_strictly(encoder, state, "resnet18")
    assert tensors_digest(encoder.state_dict()) == before


def test_the_packages_tensors_are_refused_by_another_encoder() -> None:
    with pytest.raises(ValueError, match="match only the encoder efficientnet-lite0"):
        encoders.build_resnet18(RESNET, lite0_file())


def test_an_own_encoders_state_dict_loads_back() -> None:
    card = catalogue.encoder("own")
    trained = encoders.build_own(card, None)
    x = torch.randn(3, 1, 30, 20)
    assert torch.equal(encoders.build_own(card, trained.state_dict())(x), trained(x))


@given(height=st.integers(8, 70), width=st.integers(8, 70), batch=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_the_own_encoder_takes_slices_of_any_size_from_8(height, width, batch) -> None:
    encoder = encoders.build_own(catalogue.encoder("own"), None)
    features = encoder(torch.randn(batch, 1, height, width))
    assert features.shape == (batch, 64)
    assert features.isfinite().all()


def test_any_timm_model_is_reached_by_name_also_of_fixed_input_size() -> None:
    for name, size in (("timm/mobilenetv3_small_050", 60), ("timm/vit_tiny_patch16_224", 40)):
        encoder = encoders.build_timm(catalogue.encoder(name), None).eval()
        with torch.no_grad():
            features = encoder(torch.randn(2, 3, size, size + 5))
        assert features.shape[0] == 2
        assert features.dim() == 2


def test_a_timm_model_takes_the_channels_of_its_card() -> None:
    card = replace(catalogue.encoder("timm/mobilenetv3_small_050"), channels=1)
    assert encoders.build_timm(card, None).conv_stem.weight.shape[1] == 1


def test_an_unknown_timm_model_is_one_sentence_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match="did you mean 'timm/resnet18'"):
        encoders.build_timm(SimpleNamespace(name="timm/resnet_18", channels=3), None)


@pytest.mark.parametrize(
    ("name", "width", "size"),
    [
        ("resnet34", 512, (40, 33)),
        ("densenet121", 1024, (40, 33)),
        ("squeezenet1_1", 512, (40, 33)),
        ("mnasnet0_5", 1280, (40, 33)),
        ("googlenet", 1024, (40, 33)),
        ("alexnet", 4096, (63, 70)),
        ("swin_t", 768, (40, 33)),
    ],
)
def test_a_torchvision_classifier_is_reached_by_name_and_its_file_loads(name, width, size) -> None:
    card = catalogue.encoder(f"torchvision/{name}")
    options = {"init_weights": True} if name == "googlenet" else {}
    published = torchvision.models.get_model(name, weights=None, **options).state_dict()
    encoder = encoders.build_torchvision(card, published).eval()
    with torch.no_grad():
        features = encoder(torch.randn(2, 3, *size))
    assert features.shape == (2, width)
    inner = getattr(encoder, "encoder", encoder)
    assert tensors_digest(inner.state_dict()) == tensors_digest(
        {n: published[n] for n in inner.state_dict()}
    )


def test_a_torchvision_encoder_computes_what_its_classifier_classifies() -> None:
    classifier = torchvision.models.mobilenet_v3_small().eval()
    card = catalogue.encoder("torchvision/mobilenet_v3_small.IMAGENET1K_V1")
    encoder = encoders.build_torchvision(card, classifier.state_dict()).eval()
    slices = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        assert torch.equal(classifier.classifier[-1](encoder(slices)), classifier(slices))
    encoder.train()
    assert not any(isinstance(m, torch.nn.Dropout) for m in encoder.modules())


def test_old_names_of_torchvisions_densenet_files_load() -> None:
    state = torchvision.models.densenet121().state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", n): t for n, t in state.items()}
    assert old.keys() != state.keys()
    encoder = encoders.build_torchvision(catalogue.encoder("torchvision/densenet121"), old)
    assert torch.equal(
        encoder.features.denseblock2.denselayer3.conv2.weight,
        state["features.denseblock2.denselayer3.conv2.weight"],
    )


def test_a_torchvision_encoder_has_the_channel_statistics_of_its_weights() -> None:
    handle = encoder_handle(catalogue.encoder("torchvision/efficientnet_v2_l"), None)
    assert (handle.mean, handle.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert handle.feature_dim == 1280


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet_18", "did you mean 'torchvision/resnet18'"),
        ("fcn_resnet50", "no classifier 'fcn_resnet50'"),
        ("resnet50.IMAGENET21K", "choose one of IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)
def test_an_unknown_torchvision_model_or_tag_is_one_sentence(name, words) -> None:
    with pytest.raises(ValueError, match=words):
        encoders.build_torchvision(catalogue.encoder(f"torchvision/{name}"), None)


def test_weights_are_found_in_torchvisions_own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    card = catalogue.encoder("torchvision/resnet50.IMAGENET1K_V1")
    assert locate(card, {}, tmp_path) == file
    assert locate(catalogue.encoder("torchvision/resnet50"), {}, tmp_path) is None
    with pytest.raises(WeightsMissing, match=r"torchvision has no weights resnet50\.V9"):
        locate(catalogue.encoder("torchvision/resnet50.V9"), {}, tmp_path)
    resnet18 = file.with_name("resnet18-f37072fd.pth")
    resnet18.touch()
    assert locate(RESNET, {}, tmp_path) == resnet18


def test_the_digest_depends_on_names_values_and_types_and_not_on_order_or_counters() -> None:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(2)}
    digest = tensors_digest(state)
    shuffled = dict(reversed(state.items()))
    strided = {**state, "a.weight": state["a.weight"].t().contiguous().t()}
    counted = {**state, "bn.num_batches_tracked": torch.tensor(3)}
    assert {tensors_digest(s) for s in (shuffled, strided, counted)} == {digest}
    others = [
        {"c.weight": state["a.weight"], "b.bias": state["b.bias"]},
        {**state, "a.weight": state["a.weight"].reshape(3, 2)},
        {**state, "b.bias": torch.ones(2, dtype=torch.bfloat16)},
        {**state, "b.bias": torch.ones(2) * 2},
    ]
    assert len({digest, *map(tensors_digest, others)}) == 5
