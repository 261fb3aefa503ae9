import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry import cards
from registry.core import Catalogue, Registry, catalogue, timm_card
from registry.errors import UserError

TINY = '''
from torch import nn
from registry import encoder

@encoder("{name}", channels=1, min_size=16)
def build(card, pretrained):
    """Two convolutions and a global average."""
    return nn.Sequential(nn.Conv2d(1, 16, 5, 4), nn.ReLU(), nn.Conv2d(16, 32, 3, 2),
                         nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
'''


@pytest.fixture
def clean():
    """Remove what the plugins of a test registered in the catalogue of this process."""
    yield
    for file in list(catalogue.files):
        catalogue._discard(file)
    catalogue.files.clear()
    catalogue.broken.clear()


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


@pytest.mark.usefixtures("clean")
def test_a_plugin_file_registers_its_encoder_with_its_docstring(tmp_path):
    file = write(tmp_path, "tiny.py", TINY.format(name="tiny"))
    catalogue.load_file(file)
    card = catalogue.encoder("tiny")
    assert card.summary == "Two convolutions and a global average."
    assert (card.channels, card.min_size, card.plugin) == (1, 16, str(file.resolve()))
    assert catalogue.encoders.origin("tiny") == str(file.resolve())


@pytest.mark.usefixtures("clean")
def test_a_clash_names_both_origins_and_leaves_the_first(tmp_path):
    first = write(tmp_path, "first.py", TINY.format(name="twice"))
    second = write(tmp_path, "second.py", TINY.format(name="twice"))
    catalogue.load_file(first)
    with pytest.raises(UserError, match="defined twice") as error:
        catalogue.load_file(second)
    assert str(first) in str(error.value)
    assert str(second) in str(error.value)
    assert catalogue.encoder("twice").plugin == str(first)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def f(:\n", "SyntaxError"),
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_broken_plugin_stays_listed_and_leaves_nothing_behind(tmp_path, body, words):
    file = write(tmp_path, "broken.py", TINY.format(name="half") + body)
    if body.startswith("def"):
        file.write_text(body)
    catalogue.load_file(file)
    assert words in catalogue.broken[str(file)]
    assert "half" not in catalogue.encoders
    with pytest.raises(UserError, match="Some plugins could not be loaded"):
        catalogue.encoder("half")


def test_a_missing_plugin_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        catalogue.load_file(tmp_path / "none.py")


@pytest.mark.parametrize(
    ("ask", "name", "near"),
    [
        ("model", "slice2d-imagnet", "slice2d-imagenet"),
        ("encoder", "resnet-18", "resnet18"),
        ("dataset", "synthetic-ad4mm", "synthetic-ad-4mm"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(ask, name, near):
    with pytest.raises(UserError, match=f"did you mean '{near}'"):
        getattr(catalogue, ask)(name)


def test_any_timm_model_has_a_card():
    card = catalogue.encoder("timm/resnet50.a1_in1k")
    assert card == timm_card("timm/resnet50.a1_in1k")
    assert card.weights is not None
    assert card.weights.hub == "timm/resnet50.a1_in1k"


def test_an_installed_package_is_found_by_its_entry_point(tmp_path):
    write(tmp_path, "their_plugin.py", TINY.format(name="theirs"))
    info = tmp_path / "their_plugin-1.0.dist-info"
    info.mkdir()
    write(info, "METADATA", "Metadata-Version: 2.1\nName: their-plugin\nVersion: 1.0\n")
    write(info, "entry_points.txt", "[slicebench.plugins]\nours = their_plugin\n")
    found = subprocess.run(
        [sys.executable, "-m", "bench", "list", "encoders"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert found.returncode == 0, found.stderr
    line = next(line for line in found.stdout.splitlines() if line.startswith("theirs"))
    assert "entry point ours" in line


def test_two_registries_do_not_share_names():
    catalogue_ = Catalogue(
        Registry("encoder", []),
        Registry("model", []),
        Registry("dataset", []),
        Registry("metric", []),
        Registry("executor", []),
        {},
        [],
    )
    catalogue_.encoders.add(cards.EncoderCard("x", "a:b"), "here")
    assert "x" not in catalogue_.models


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        (cards.Option(1e-4, "", low=1e-8, high=10.0), "1e-3", 1e-3),
        (cards.Option(8, "", low=1), "16", 16),
        (cards.Option(False, ""), "yes", True),
        (cards.Option("mean", "", choices=("mean", "max")), "max", "max"),
    ],
)
def test_an_option_reads_its_own_type(option, text, value):
    assert option.parse(text) == value
    assert type(option.parse(text)) is type(option.default)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (cards.Option(1e-4, "", low=1e-8, high=10.0), "nan"),
        (cards.Option(1e-4, "", low=1e-8), "inf"),
        (cards.Option(1e-4, "", low=1e-8, high=10.0), "0"),
        (cards.Option(8, "", low=1), "0"),
        (cards.Option(8, "", low=1), "2.5"),
        (cards.Option(False, ""), "maybe"),
        (cards.Option("mean", "", choices=("mean", "max")), "median"),
    ],
)
def test_an_option_refuses_what_it_cannot_be(option, text):
    with pytest.raises(ValueError, match=r"is outside|is not|is neither"):
        option.parse(text)
