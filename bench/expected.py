"""Expected durations of studies and trials, from those of finished trials."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import fmean

from bench.spec import Arm, StudySpec, TrialSpec, arm_from_plain, key_of
from bench.store.store import Store


class Durations:
    """Seconds per epoch of trials of a model, by cohort and training size.

    The duration of a trial is assumed to be proportional to the number of epochs. From one size or
    cohort to another, it is assumed to be proportional to the numbers of subjects and voxels. A
    trial of a study is assumed to take as long as a final trial.

    Parameters
    ----------
    voxels : mapping
        Numbers of voxels of a volume by the fingerprint of the cohort.
    """

    def __init__(self, voxels: Mapping[str, int]) -> None:
        self._voxels = dict(voxels)
        self._seconds: dict[str, dict[tuple[str, int], list[float]]] = {}
        """By model and settings; then by fingerprint and training size."""
        self._models: dict[str, str] = {}

    @classmethod
    def stored(cls, store: Store | None) -> Durations:
        """Return the durations of the finished trials of a database."""
        if store is None:
            return cls({})
        found = cls(store.voxels())
        for spec, size, seconds in store.durations():
            found.add(arm_from_plain(spec), size, seconds)
        return found

    def add(self, arm: Arm, n_train: int, seconds: float) -> None:
        """Add the duration of a finished trial."""
        cells = self._seconds.setdefault(self._model(arm), {})
        cells.setdefault((arm.fingerprint, n_train), []).append(seconds / _epochs(arm))

    def of(self, spec: StudySpec | TrialSpec) -> float | None:
        """Return the expected duration in seconds, or None if there is no similar trial."""
        arm, size = spec.arm, spec.n_train
        cells = self._seconds.get(self._model(arm), {})
        here = {n: each for (cohort, n), each in cells.items() if cohort == arm.fingerprint}
        if size in here:
            epoch = fmean(here[size])
        elif here:
            nearest = min(here, key=lambda n: abs(math.log(n / size)))
            epoch = fmean(here[nearest]) * size / nearest
        else:
            voxels = self._voxels.get(arm.fingerprint)
            rates = [
                fmean(each) / n / self._voxels[cohort]
                for (cohort, n), each in cells.items()
                if cohort in self._voxels
            ]
            if voxels is None or not rates:
                return None
            epoch = fmean(rates) * size * voxels
        trials = arm.trials or 0 if isinstance(spec, StudySpec) else 1
        return epoch * _epochs(arm) * trials

    def know(self, fingerprint: str, voxels: int) -> None:
        """Add the number of voxels of a volume of a cohort."""
        self._voxels[fingerprint] = voxels

    def _model(self, arm: Arm) -> str:
        """Return a key of what determines the duration of an epoch, apart from the data."""
        if arm.key not in self._models:
            params = {name: value for name, value in arm.params.items() if name != "epochs"}
            same = replace(arm, params=params, space={}, trials=None, tune=None, fingerprint="")
            self._models[arm.key] = key_of(same)
        return self._models[arm.key]


class TimeLeft:
    """The time that the remaining units of a command will take.

    Units without similar trials are assumed to take as long as the average of the others.

    Parameters
    ----------
    durations : Durations
        Durations of finished trials, to which those of this command are added.
    units : iterable of StudySpec or TrialSpec
        All units of the command.
    """

    def __init__(self, durations: Durations, units: Iterable[StudySpec | TrialSpec]) -> None:
        self._durations = durations
        self._units = {unit.key: unit for unit in units}
        self.total = len(self._units)
        self._cells = Counter(map(_cell, self._units.values()))
        self._example = {_cell(unit): unit for unit in self._units.values()}

    def ended(self, key: str, seconds: float, *, done: bool) -> None:
        """Count a unit that has ended, and learn from its duration if it was successful."""
        unit = self._units.get(key)
        if unit is None:
            return
        self._cells[_cell(unit)] -= 1
        trials = unit.arm.trials or 0 if isinstance(unit, StudySpec) else 1
        if done and trials:
            self._durations.add(unit.arm, unit.n_train, seconds / trials)

    def seconds(self, parallel: int) -> float | None:
        """Return the expected time in seconds if `parallel` units run at a time, if known."""
        left = [cell for cell, number in self._cells.items() if number]
        found = {cell: self._durations.of(self._example[cell]) for cell in left}
        known = [value for value in found.values() if value is not None]
        if not known:
            return None
        average = fmean(known)
        each = {cell: average if value is None else value for cell, value in found.items()}
        return sum(self._cells[cell] * each[cell] for cell in left) / max(1, parallel)


def in_words(seconds: float) -> str:
    """Return a duration in words, rounded to what matters."""
    minutes = seconds / 60
    if minutes < 1:
        return "less than a minute"
    if minutes < 90:
        return f"about {minutes:.0f} min"
    if minutes < 48 * 60:
        return f"about {minutes / 60:.0f} h"
    return f"about {minutes / 60 / 24:.0f} days"


def _cell(unit: StudySpec | TrialSpec) -> tuple[str, int, bool]:
    return unit.arm.key, unit.n_train, isinstance(unit, StudySpec)


def _epochs(arm: Arm) -> float:
    """Return the number of epochs of a network, 1 for an estimator."""
    return float(arm.params.get("epochs", 1))
