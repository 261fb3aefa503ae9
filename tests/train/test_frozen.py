"""Cached features of frozen encoders are never used for another model or code."""

import sys

import numpy as np
import pytest
import torch

from bench.execute.unit import CodeChanged, run
from bench.plan import resolve_params
from bench.spec import Arm, Component
from bench.unit import Unit, UnitData
from registry.cards import Task
from registry.core import catalogue, plugin_digest

SHAPE = (6, 36, 34)
N = 20

TINY = '''
from torch import nn
from registry import encoder

@encoder("tiny", channels=1, min_size=16)
def build(card, pretrained):
    """One convolution and a global average."""
    return nn.Sequential(nn.Conv2d(1, 8, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
'''

MODELS = """
from torch import nn
from registry import model
from registry.models import SLICING

class Slices(nn.Module):
    def __init__(self, encoder, factor):
        super().__init__()
        self.encoder, self.factor = encoder.make().requires_grad_(False), factor
    def forward(self, x):
        return self.factor * self.encoder(x[:, :, x.shape[2] // 2])[:, None]

class Network(nn.Module):
    def __init__(self, encoder, outputs, factor):
        super().__init__()
        self.slices, self.head = Slices(encoder, factor), nn.Linear(8, outputs)
    def predict(self, features):
        return self.head(features[:, 0])
    def forward(self, x):
        return self.predict(self.slices(x))

class Around(Network):
    def forward(self, x):
        return super().forward(x) + 9 * x.mean((1, 2, 3, 4))[:, None]

@model("one", encoder="tiny", options=SLICING)
def one(params, task, shape, encoder):
    return Network(encoder, task.n_outputs, 1.0)

@model("ten", encoder="tiny", options=SLICING)
def ten(params, task, shape, encoder):
    return Network(encoder, task.n_outputs, 10.0)

@model("around", encoder="tiny", options=SLICING)
def around(params, task, shape, encoder):
    return Around(encoder, task.n_outputs, 1.0)
"""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def clean():
    """Remove what the plugins of a test registered in the catalogue of this process."""
    yield
    forget()


def forget():
    for origin in list(catalogue.code):
        catalogue._discard(origin)
    catalogue.files.clear()
    catalogue.broken.clear()
    catalogue.code.clear()


@pytest.fixture
def predicted(tmp_path):
    """Run a trial of a model with a frozen encoder; return its test predictions."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "volumes.npy", rng.normal(size=(N, *SHAPE)).astype(np.float16))
    ages = rng.normal(65, 8, N).tolist()
    number = 0

    def unit(model, encoder, cache):
        nonlocal number
        number += 1
        card, part = catalogue.model(model), catalogue.encoder(encoder)
        settings = {"freeze": True, "epochs": 2, "lr": 0.01, "batch_size": 4}
        arm = Arm(
            model=Component(card.name, card.version, plugin_digest(card)),
            encoder=Component(part.name, part.version, plugin_digest(part)),
            fingerprint="",
            task=Task("age", "regression"),
            params=resolve_params(card, settings),
            space={},
            trials=None,
            tune=None,
            precision="fp32",
        )
        rows = [list(range(12)), ages[:12], list(range(12, 16)), ages[12:16], list(range(16, N))]
        return Unit(
            kind="trial",
            key="0",
            random_stream="0",
            arm=arm,
            params=arm.params,
            data=UnitData(str(tmp_path / "volumes.npy"), 12, 12, *rows),
            device="cpu",
            threads=1,
            network=True,
            weights="",
            plugins=list(catalogue.files),
            folder=str(tmp_path / str(number)),
            cache=str(tmp_path / cache),
        )

    def result(unit):
        folder = tmp_path / f"attempt-{number}"
        folder.mkdir()
        (tmp_path / str(number)).mkdir()
        outcome = run(unit, folder, lambda words, share: None)
        assert outcome.state == "done", outcome.error
        return outcome.predictions["test"]

    def both(model, encoder="tiny"):
        """Check that a used cache and a new one give the same predictions."""
        found = result(unit(model, encoder, "shared"))
        own = result(unit(model, encoder, f"own-{number}"))
        assert np.array_equal(found, own), f"{model} got features of other code"
        return found

    both.unit, both.result = unit, result
    both.kept = lambda: sorted((tmp_path / "shared" / "features").glob("*.npy"))
    return both


def plugin(folder, name, text):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_two_plugin_models_share_no_features(tmp_path, predicted):
    catalogue.load_file(plugin(tmp_path, "tiny.py", TINY))
    catalogue.load_file(plugin(tmp_path, "models.py", MODELS))
    one, ten = predicted("one"), predicted("ten")
    assert not np.array_equal(one, ten)
    assert len(predicted.kept()) == 2
    predicted("one")
    assert len(predicted.kept()) == 2, "the same code finds its features again"


def test_an_edited_plugin_uses_no_features_of_before(tmp_path, predicted):
    before = []
    for activation in ("ReLU", "Tanh"):
        forget()
        catalogue.load_file(plugin(tmp_path, "tiny.py", TINY.replace("ReLU", activation)))
        before.append(predicted("slice2d-scratch"))
    assert not np.array_equal(*before)
    forget()
    catalogue.load_file(plugin(tmp_path, "tiny.py", TINY))
    assert np.array_equal(predicted("slice2d-scratch"), before[0])
    assert len(predicted.kept()) == 2


@pytest.mark.parametrize("init", ["from theirs.net import build", None])
def test_an_edited_package_uses_no_features_of_before(tmp_path, predicted, monkeypatch, init):
    site = tmp_path / "site"
    if init:
        plugin(site, "theirs/__init__.py", init)
    info = "theirs-1.0.dist-info"
    plugin(site, f"{info}/METADATA", "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    plugin(site, f"{info}/entry_points.txt", "[slicebench.plugins]\nours = theirs.net\n")
    plugin(site, "theirs/net.py", TINY.replace("nn.ReLU()", "layers.Bend()") + "\n")
    net = (site / "theirs/net.py").read_text()
    plugin(site, "theirs/net.py", f"from theirs import layers\n{net}")
    monkeypatch.syspath_prepend(str(site))
    found = []
    for activation in ("ReLU", "Tanh"):
        forget()
        for name in [name for name in sys.modules if name.split(".")[0] == "theirs"]:
            monkeypatch.delitem(sys.modules, name)
        plugin(site, "theirs/layers.py", f"from torch.nn import {activation} as Bend\n")
        catalogue.load_entry_points()
        assert plugin_digest(catalogue.encoder("tiny"))
        found.append(predicted("slice2d-scratch"))
    assert not np.array_equal(*found)
    assert len(predicted.kept()) == 2


def test_a_network_that_is_more_than_a_head_on_its_slices_is_computed_whole(tmp_path, predicted):
    catalogue.load_file(plugin(tmp_path, "tiny.py", TINY))
    catalogue.load_file(plugin(tmp_path, "models.py", MODELS))
    whole = predicted("around")
    assert not predicted.kept()
    assert not np.allclose(whole, predicted("one"))


def test_a_unit_planned_with_other_code_is_refused(tmp_path, predicted):
    file = plugin(tmp_path, "tiny.py", TINY)
    catalogue.load_file(file)
    unit = predicted.unit("slice2d-scratch", "tiny", "shared")
    for edited in (
        TINY.replace("ReLU", "Tanh"),
        TINY.replace('"tiny"', '"small"'),
        "def f(:\n",
        "",
    ):
        forget()
        file.write_text(edited)
        with pytest.raises(CodeChanged, match="plugin of the encoder"):
            predicted.result(unit)
        assert not predicted.kept()
        (tmp_path / "attempt-1").rmdir()
        (tmp_path / "1").rmdir()
    forget()
    file.write_text(TINY)
    predicted.result(unit)
