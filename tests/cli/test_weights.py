"""Files given with --weights are either used or refused."""

import pytest
import torch
from torch import nn

TINY = '''
from torch import nn
from registry import encoder

@encoder("tiny", channels=1, min_size=16)
def build(card, pretrained):
    """One convolution and a global average."""
    network = nn.Sequential(nn.Conv2d(1, 8, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    {load}
    return network
'''
LOADS = "pretrained and network.load_state_dict(pretrained)"
RUN = [
    *("run", "--data", "synthetic-ad-4mm", "--encoder", "tiny", "--plugins", "tiny.py"),
    *("--seeds", "1", "--train-sizes", "16", "--trials", "0", "--epochs", "1"),
    *("--set", "stride=16", "--threads", "1"),
]


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Conv2d(1, 8, 5, 4)).state_dict(), tmp_path / "tiny.pth")
    (tmp_path / "tiny.py").write_text(TINY.format(load=LOADS))
    return ["--weights", "tiny=tiny.pth"]


def test_weights_given_for_a_card_without_any_are_used(bench, weights):
    done = bench(*RUN, *weights, "--model", "slice2d-imagenet")
    assert "1 of 1 trials done" in done.stdout, done.stdout + done.stderr
    done = bench(*RUN, *weights, "--model", "slice2d-imagenet", "--dry-run")
    assert "1 already stored" in done.stdout, "the same file is the same key"


@pytest.mark.parametrize(
    ("model", "load", "more", "sentence"),
    [
        ("slice2d-scratch", LOADS, [], "none of the chosen models starts from pretrained weights"),
        ("slice2d-imagenet", "", [], "does not load all of its pretrained weights"),
        ("slice2d-imagenet", LOADS, ["--weights", "resnet18=tiny.pth"], "none of the chosen"),
        ("slice2d-imagenet", LOADS, ["--weights", "tyni=tiny.pth"], "did you mean 'tiny'"),
    ],
)
def test_weights_that_would_be_ignored_are_a_sentence(
    bench, tmp_path, weights, model, load, more, sentence
):
    (tmp_path / "tiny.py").write_text(TINY.format(load=load))
    done = bench(*RUN, *weights, *more, "--model", model, "--dry-run")
    assert done.returncode == 2, done.stdout
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("weights")
def test_weights_of_a_configured_plugin_are_listed_and_asked_for(bench, tmp_path):
    (tmp_path / "bench.toml").write_text('plugins = ["tiny.py"]\n[weights]\ntiny = "tiny.pth"\n')
    listed = bench("weights", "list")
    assert "tiny\n  source   [weights] of bench.toml" in listed.stdout, listed.stderr
    asked = bench("weights", "get", "tiny", "--out", ".")
    assert asked.returncode == 2
    assert "no download of weights for the encoder tiny" in " ".join(asked.stderr.split())
