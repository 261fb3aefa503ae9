"""Tests that need a GPU, run by `make test-gpu`."""

import numpy as np
import pytest
import torch
from torch import nn

from bench.train.checkpoint import Checkpoint
from bench.train.learner import Learner
from bench.train.loader import VolumeLoader
from bench.train.loop import fit
from bench.train.numerics import configure
from bench.unit import Layout
from registry.cards import Task
from registry.models import AUGMENT, COMMON, RECIPE

pytestmark = pytest.mark.gpu
AGE = Task("age", "regression")
SHAPE = (12, 14, 12)
N = 16
PARAMS = {name: o.default for name, o in (RECIPE | AUGMENT | COMMON).items()} | {"batch_size": 4}


def trained(location=None, layout=None, checkpoint=None, stop_after=None, precision="fp32"):
    device = torch.device("cuda")
    configure(device, deterministic=True)
    rng = np.random.default_rng(0)
    volumes = rng.normal(size=(N, *SHAPE)).astype(np.float16)
    ages = rng.normal(65, 8, N)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 1)
    )
    learner = Learner(network, AGE, PARAMS, ages, device=device, precision=precision, layout=layout)
    rows = np.arange(N)

    def on_epoch(epoch, score):
        if epoch == stop_after:
            raise KeyboardInterrupt

    train = VolumeLoader(volumes, rows[:12], ages[:12], device, location=location)
    validation = VolumeLoader(volumes, rows[12:], ages[12:], device, location=location)
    fit(
        learner,
        train,
        validation,
        PARAMS,
        epochs=4,
        random_stream="0",
        on_epoch=on_epoch,
        checkpoint=checkpoint,
    )
    return learner.predict(validation)


def test_the_location_of_the_scans_changes_no_bit():
    wanted = trained("device")
    assert np.array_equal(trained("map"), wanted)


def test_a_run_taken_up_again_ends_in_the_same_bits(tmp_path):
    wanted = trained()
    file = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(checkpoint=Checkpoint(file, "x"), stop_after=2)
    assert file.exists()
    assert np.array_equal(trained(checkpoint=Checkpoint(file, "x")), wanted)


@pytest.mark.parametrize(
    "layout",
    [Layout("channels_last_3d"), Layout(mode="default"), Layout(mode="reduce-overhead")],
)
def test_a_layout_changes_predictions_by_rounding(layout):
    assert np.allclose(trained(layout=layout), trained(), atol=1e-2)


def test_bf16_is_near_fp32():
    assert np.allclose(trained(precision="bf16"), trained(), atol=0.5)
