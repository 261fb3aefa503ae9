"""Small units of work."""

from __future__ import annotations

from pathlib import Path

from bench.spec import Arm, Component
from bench.unit import Unit, UnitData
from registry.cards import Task


def estimator_unit(model: str, key: str, data: UnitData, plugin: Path) -> Unit:
    """Return a trial of an estimator that predicts age; its directory is beside its plugin."""
    arm = Arm(
        model=Component(model, 1),
        encoder=None,
        fingerprint="f" * 16,
        task=Task("age", "regression"),
        params={"val_size": "full", "select": "loss"},
        space={},
        trials=None,
        tune=None,
        precision=None,
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
        network=False,
        weights="",
        plugins=[str(plugin)],
        folder=str(plugin.parent / "work" / key),
        cache=str(plugin.parent / "cache"),
    )
