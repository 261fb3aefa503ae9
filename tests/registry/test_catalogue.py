"""All built-in cards: their properties are correct, and every model can learn."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from registry.cards import Choice, EncoderCard, Float, ModelCard, Task
from registry.core import resolve
from registry.encoders import ENCODERS
from registry.models import COMMON, MODELS, RECIPE, model_options

AGE = Task("age", "regression")
AD = Task("diagnosis", "classification", ("CN", "AD"))
SHAPE = (5, 40, 36)

models = pytest.mark.parametrize("card", MODELS, ids=lambda c: c.name)
networks = pytest.mark.parametrize(
    "card", [c for c in MODELS if c.kind == "network"], ids=lambda c: c.name
)
encoders = pytest.mark.parametrize("card", ENCODERS, ids=lambda c: c.name)
ENCODER = {card.name: card for card in ENCODERS}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    # Several threads make such small networks slower.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def handle(card: EncoderCard) -> SimpleNamespace:
    def make() -> torch.nn.Module:
        return resolve(card.target)(card, None)

    with torch.no_grad():
        zeros = torch.zeros(1, card.channels, card.min_size, card.min_size)
        feature_dim = make().eval()(zeros).shape[1]
    return SimpleNamespace(**vars(card), feature_dim=feature_dim, make=make)


def settings(card: ModelCard) -> dict:
    # The default is too large for the shortest axis of these small volumes.
    fits = {name: 1 for name in ("stride", "spacing") if name in card.options}
    defaults = {name: option.default for name, option in model_options(card).items()}
    fits |= {"block": 4} if "block" in card.options else {}
    return {**defaults, **card.defaults, **card.smoke, **fits}


def network(card: ModelCard, task: Task = AGE) -> torch.nn.Module:
    torch.manual_seed(0)
    encoder = handle(ENCODER[card.encoder]) if card.encoder else None
    return resolve(card.target)(settings(card), task, SHAPE, encoder)


def test_the_names_of_the_design_are_all_there() -> None:
    assert [card.name for card in MODELS] == [
        "slice2d-imagenet",
        "slice2d-scratch",
        "slice2d-imagenet-pos",
        "slice2d-scratch-pos",
        "slice2d-own",
        "slice2d-own-pos",
        "slice-lstm",
        "fewslice-imagenet",
        "fewslice-scratch",
        "cnn3d",
        "linear-voxels",
        "prior",
    ]
    assert [card.name for card in ENCODERS] == ["own", "resnet18", "efficientnet-lite0"]


@models
def test_a_models_target_can_be_imported(card) -> None:
    assert callable(resolve(card.target))


@models
def test_defaults_and_smoke_settings_are_legal_values_of_options(card) -> None:
    options = model_options(card)
    for name, value in {**card.defaults, **card.smoke}.items():
        assert options[name].check(value) == value
        assert type(value) is type(options[name].default), name


@models
def test_a_models_own_options_do_not_shadow_the_shared_ones(card) -> None:
    assert not set(card.options) & {*COMMON, *RECIPE}


@models
def test_default_values_survive_the_command_line(card) -> None:
    for name, option in model_options(card).items():
        text = str(option.default)
        assert option.parse(text) == option.default, name


@models
def test_search_spaces_stay_within_their_options_and_hold_the_default(card) -> None:
    options = model_options(card)
    for name, dimension in card.space.items():
        assert name in options
        start = card.defaults.get(name, options[name].default)
        if isinstance(dimension, Choice):
            assert all(options[name].check(v) == v for v in dimension.values)
            assert start in dimension.values
            continue
        assert options[name].check(dimension.low) <= start <= options[name].check(dimension.high)
        assert dimension.low > 0 or not dimension.log
        assert isinstance(options[name].default, float if isinstance(dimension, Float) else int)


def test_every_network_is_searched_over_the_same_space() -> None:
    spaces = [dict(card.space) for card in MODELS if card.kind == "network"]
    assert all(space == spaces[0] for space in spaces)


@models
def test_encoders_are_named_where_they_are_needed(card) -> None:
    assert card.encoder is None or card.encoder in ENCODER
    assert card.kind == "network" or card.encoder is None
    if card.pretrained:
        assert ENCODER[card.encoder].weights is not None
        assert not card.encoder_fixed
    assert ("imagenet" in card.name) == card.pretrained


@encoders
def test_an_encoder_takes_its_smallest_slice_and_declares_its_own_channels(card) -> None:
    built = handle(card)
    with torch.no_grad():
        features = built.make().eval()(torch.randn(2, card.channels, card.min_size, card.min_size))
    assert features.shape == (2, built.feature_dim)
    assert features.isfinite().all()
    assert card.mean is None or len(card.mean) == len(card.std) == card.channels
    assert (card.weights is None) == (card.pretraining == "")


@networks
@pytest.mark.parametrize("task", [AGE, AD], ids=lambda t: t.kind)
def test_every_parameter_gets_a_finite_gradient(card, task) -> None:
    model = network(card, task).train()
    output = model(torch.randn(3, 1, *SHAPE))
    assert output.shape == (3, 1)
    output.square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@networks
def test_a_batch_of_one_trains_and_predicts_what_it_predicts_in_company(card) -> None:
    model = network(card)
    x = torch.randn(3, 1, *SHAPE)
    assert model.train()(x[:1]).isfinite().all()
    model.eval()
    with torch.no_grad():
        assert torch.allclose(model(x[:1]), model(x)[:1], atol=1e-4)


@networks
def test_equal_seeds_start_equal_networks(card) -> None:
    first, second = network(card).state_dict(), network(card).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@networks
def test_a_few_steps_tell_smooth_volumes_from_rough_ones(card) -> None:
    model = network(card).train()
    model.dropout.p = 0.0
    y = torch.tensor([[1.0], [-1.0]])
    rough = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    smooth = 3 * torch.nn.functional.avg_pool3d(rough, 3, stride=1, padding=1)
    x = torch.cat([rough, smooth])
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(10):
        loss = (model(x) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.parametrize("card", [c for c in MODELS if c.kind == "estimator"], ids=lambda c: c.name)
def test_estimators_fit_and_predict_from_their_cards(card) -> None:
    X, y = np.random.default_rng(0).normal(size=(8, *SHAPE)), np.arange(8.0)
    age = resolve(card.target)(settings(card), AGE, SHAPE).fit(X, y).predict(X)
    assert age.shape == (8,)
    probabilities = resolve(card.target)(settings(card), AD, SHAPE).fit(X, y > 3).predict_proba(X)
    assert probabilities.shape == (8, 2)
    assert card.deterministic


def test_the_catalogue_imports_no_torch() -> None:
    code = "import sys, registry; sys.exit(bool({'torch', 'numpy', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
