"""A killed trial resumes from its checkpoint and gives identical predictions."""

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from bench.execute.local import LocalExecutor
from bench.execute.unit import OUTCOME, TIME_LIMIT_EXIT
from bench.plan import resolve_params
from bench.spec import Arm, Component
from bench.unit import Layout, Outcome, Unit, UnitData
from registry.cards import Task
from registry.core import catalogue

KILLS = 20
SHAPE = (20, 22, 20)
N = 24


@pytest.fixture
def make(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "volumes.npy", rng.normal(size=(N, *SHAPE)).astype(np.float16))
    ages = rng.normal(65, 8, N).tolist()
    data = UnitData(
        str(tmp_path / "volumes.npy"),
        *(16, 16, list(range(16)), ages[:16], list(range(16, 20)), ages[16:20]),
        list(range(20, N)),
    )

    def unit(key, epochs=60, time_limit=None):
        settings = {"stride": 2, "batch_size": 4, "epochs": epochs, "dropout": 0.3, "lr": 1e-3}
        arm = Arm(
            model=Component("slice2d-own", 1),
            encoder=Component("own", 1),
            fingerprint="",
            task=Task("age", "regression"),
            params=resolve_params(catalogue.model("slice2d-own"), settings),
            space={},
            trials=None,
            tune=None,
            precision="fp32",
        )
        return Unit(
            kind="trial",
            key=key,
            random_stream="0",
            arm=arm,
            params=arm.params,
            data=data,
            device="cpu",
            threads=1,
            network=True,
            weights="",
            plugins=[],
            folder=str(tmp_path / "work" / key),
            cache=str(tmp_path / "cache"),
            layout=Layout("contiguous_format"),
            keep=("best", "last"),
            time_limit=time_limit,
        )

    return unit


def attempt(unit, kill_after=None):
    """Run a unit in its own process, and kill it some seconds after its first epoch."""
    reached = []
    executor = LocalExecutor(
        1,
        gpus=0,
        preload=["torch", "bench.train.network"],
        on_progress=lambda key, words, share: (
            reached.append(time.monotonic()) if words.startswith("epoch") else None
        ),
    )
    try:
        future = executor.submit(unit)
        while kill_after is not None and not future.done():
            if reached and time.monotonic() - reached[0] >= kill_after:
                executor.kill()
                break
            time.sleep(0.01)
        return future.result()
    finally:
        executor.shutdown()


def results(folder):
    outcome = Outcome.read(folder / OUTCOME)
    assert outcome.state == "done", outcome.error
    losses = [(line["epoch"], line["train_loss"], line["validation"]) for line in outcome.history]
    weights = {name: (folder / OUTCOME / f"{name}.safetensors") for name in ("best", "last")}
    predictions = {side: values.tobytes() for side, values in outcome.predictions.items()}
    tensors = {
        name: file.read_bytes().partition(b"}}")[2][-4096:] for name, file in weights.items()
    }
    return losses, predictions, tensors


@pytest.mark.slow
def test_a_trial_killed_at_twenty_random_moments_ends_in_the_same_bits(make, tmp_path):
    whole = make("undisturbed")
    assert attempt(whole).exit_code == 0
    wanted = results(tmp_path / "work" / "undisturbed")
    rng = random.Random(1)
    kills = resumed = 0
    folder = tmp_path / "work" / "killed"
    while kills < KILLS:
        shutil.rmtree(folder, ignore_errors=True)
        while not (folder / OUTCOME).exists():
            if (folder / "checkpoint.pt").exists():
                state = torch.load(folder / "checkpoint.pt", weights_only=True)
                resumed += bool(state["history"])
            ended = attempt(make("killed"), rng.uniform(0, 3) if kills < KILLS else None)
            kills += ended.exit_code == -9
        assert results(folder) == wanted
        assert not (folder / "checkpoint.pt").exists()
    assert resumed >= KILLS // 4


@pytest.mark.slow
def test_a_unit_that_ends_at_its_time_limit_resumes_to_the_same_bits(make, tmp_path):
    epochs = 80
    assert attempt(make("undisturbed", epochs)).exit_code == 0
    folder, limit, epochs_at_limit = tmp_path / "work" / "limited", 2.0, []
    while not (folder / OUTCOME).exists():
        ended = attempt(make("limited", epochs, time_limit=limit))
        assert ended.exit_code == (0 if (folder / OUTCOME).exists() else TIME_LIMIT_EXIT)
        if (folder / "checkpoint.pt").exists():
            state = torch.load(folder / "checkpoint.pt", weights_only=True)
            epochs_at_limit.append(len(state["history"]))
            assert state["seconds"]["train"] > 0
        # On a loaded machine the first limit may be over before the first epoch.
        limit *= 1.3
    assert any(0 < n < epochs for n in epochs_at_limit)
    assert epochs_at_limit == sorted(epochs_at_limit)
    assert results(folder) == results(tmp_path / "work" / "undisturbed")


@pytest.mark.slow
def test_a_compiled_layout_that_works_no_more_is_measured_again(make, tmp_path):
    """As on a node without g++."""
    layout = Layout("contiguous_format", "default")
    unit = dataclasses.replace(make("a" * 16, epochs=1), layout=layout, keep=())
    code = (
        "import json, sys; from pathlib import Path; from bench.unit import Unit; "
        "from bench.execute.unit import run; "
        "found = run(Unit.from_json(sys.stdin.read()), Path('.'), lambda *words: None); "
        "environment = found.environment.plain(); "
        "print(json.dumps([found.state, found.error, found.notes, environment]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=unit.to_json(),
        cwd=tmp_path,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    state, error, notes, environment = json.loads(done.stdout.splitlines()[-1])
    assert (state, error) == ("done", "")
    assert environment["layout"] == {"memory_format": "contiguous_format", "mode": ""}
    (note,) = notes
    assert note.startswith("torch.compile, which was fastest when it was measured, fails")
