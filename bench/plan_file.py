"""Plans in files, which another machine or a later command can carry out.

The directory of a plan contains ``plan.json``, and copies of the plugins and pretrained weights
that the other machine may not have. It contains no data of participants.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.files import atomic_write
from bench.plan import Plan
from bench.spec import key_of, label_of, plain
from bench.store import schema
from bench.store.store import Store
from registry.code import LIBRARY_FOLDERS
from registry.core import catalogue, counted
from registry.errors import UserError

FILE = "plan.json"
FORMAT = 1
KEPT = "plans"
"""Subdirectory of the working directory with the plans of jobs that outlive their driver."""


@dataclass(frozen=True)
class PlanFile:
    """A plan that was read from a file.

    Parameters
    ----------
    folder : pathlib.Path
        The directory of the file.
    written_by : str
        The version of slicebench that wrote it.
    options : mapping
        The options of ``bench run`` by the name of their parameter.
    cohorts : mapping
        Fingerprints of the cohorts by their names.
    trials : sequence of mapping
        The trials to run: ``key``, ``study`` (its key, None without tuning) and ``label``.
    studies : mapping
        Labels of the studies of these trials by their keys.
    """

    folder: Path
    written_by: str
    options: Mapping[str, Any]
    cohorts: Mapping[str, str]
    trials: Sequence[Mapping[str, Any]]
    studies: Mapping[str, str]

    @property
    def keys(self) -> set[str]:
        """Keys of the trials."""
        return {trial["key"] for trial in self.trials}

    def shard(self, part: int, parts: int) -> set[str]:
        """Return the keys of the trials of part 1, 2, ... of several parts.

        Trials with a common study are in the same part, so that no part waits for another.
        """
        groups: dict[str, set[str]] = {}
        for trial in self.trials:
            groups.setdefault(trial["study"] or trial["key"], set()).add(trial["key"])
        return set().union(*list(groups.values())[part - 1 :: parts])

    def database(self, part: tuple[int, int] | None) -> Path:
        """Return the default database for the results of the plan or one of its parts."""
        name = "results" if part is None else f"shard-{part[0]}-of-{part[1]}"
        return self.folder / f"{name}.db"

    def check(self, plans: Sequence[Plan]) -> None:
        """Check that plans made on this machine contain the trials of this one.

        Raises
        ------
        UserError
            If they do not, because cohorts, weights, plugins or versions differ.
        """
        for plan in plans:
            wanted = self.cohorts.get(plan.cohort.name)
            if wanted is not None and wanted != plan.cohort.fingerprint:
                raise UserError(
                    f"The cohort {plan.cohort.name} differs from that of the plan (fingerprint "
                    f"{plan.cohort.fingerprint} instead of {wanted}); use the same files, tables "
                    "and options as where the plan was written."
                )
        missing = self.keys - {trial.spec.key for plan in plans for trial in plan.trials}
        if missing:
            raise UserError(
                f"{counted(len(missing), 'trial')} of the plan cannot be run as planned, because "
                "options, weights, plugins or versions differ: the plan was written by slicebench "
                f"{self.written_by}, and this is {version('slicebench')}."
            )


def restricted(plan: Plan, keys: AbstractSet[str]) -> Plan:
    """Return the part of a plan with the given trials, and the studies that they need."""
    trials = [trial for trial in plan.trials if trial.spec.key in keys]
    needed = {trial.spec.study for trial in trials if trial.action == "run"}
    studies = [study for study in plan.studies if study.key in needed]
    return replace(plan, trials=trials, studies=studies)


def write_plan(
    folder: Path, plans: Sequence[Plan], options: Mapping[str, Any], *, carried: bool = False
) -> int:
    """Write the trials of plans that have to be run, and return their number.

    Parameters
    ----------
    folder : pathlib.Path
        The directory, which is created if necessary.
    plans : sequence of Plan
        One plan per cohort.
    options : mapping
        The options of ``bench run`` by the name of their parameter, as JSON types.
    carried : bool
        Whether the directory is carried to another machine, so that plugins and pretrained weights
        are copied into it.

    Raises
    ------
    UserError
        If a plugin cannot be copied.
    """
    trials = [trial for plan in plans for trial in plan.trials if trial.action == "run"]
    studies = [trial.study for trial in trials if trial.study is not None]
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "slicebench": version("slicebench"),
        "options": dict(options),
        "plugins": _copy_plugins(folder) if carried else [],
        "weights": _copy_weights(folder, plans) if carried else {},
        "cohorts": {plan.cohort.name: plan.cohort.fingerprint for plan in plans},
        "arms": {key: plain(arm) for plan in plans for key, arm in plan.arms.items()},
        "studies": {study.key: label_of(study) for study in studies},
        "trials": [
            {
                "key": trial.spec.key,
                "study": trial.spec.study,
                "label": label_of(trial.spec),
                "arm": trial.spec.arm.key,
                "n_train": trial.spec.n_train,
                "seed": trial.spec.seed,
            }
            for trial in trials
        ],
    }
    with atomic_write(folder / FILE) as stream:
        stream.write(json.dumps(content, indent=1).encode())
    return len(trials)


def keep_plan(work: Path, plans: Sequence[Plan], options: Mapping[str, Any]) -> Path:
    """Write a plan into the working directory, from where a later command may carry it out.

    Returns
    -------
    pathlib.Path
        The directory of the plan.
    """
    keys = [t.spec.key for plan in plans for t in plan.trials if t.action == "run"]
    folder = work / KEPT / key_of(sorted(keys))
    write_plan(folder, plans, options)
    return folder


def kept_plans(work: Path) -> list[PlanFile]:
    """Return the plans in a working directory."""
    return [read_plan(file.parent) for file in sorted(work.glob(f"{KEPT}/*/{FILE}"))]


def forget_plans(work: Path, store: Store, ended: Path | None) -> None:
    """Remove the plan that has ended from a working directory, and those that are all stored."""
    for kept in kept_plans(work):
        stored = store.states(schema.trials, kept.keys)
        if kept.folder == ended or len(stored) == len(kept.keys):
            shutil.rmtree(kept.folder, ignore_errors=True)
    for folder in (work / KEPT, work):
        with suppress(OSError):
            # This fails if the directory is not empty or does not exist.
            folder.rmdir()


def read_plan(folder: Path) -> PlanFile:
    """Read the plan in a directory.

    Raises
    ------
    UserError
        If there is none, or it is damaged or was written by a newer version.
    """
    file = folder / FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        options = content["options"]
        if content["plugins"]:
            options["plugins"] = [str(folder / name) for name in content["plugins"]]
        if content["weights"]:
            weights = content["weights"].items()
            options["weights"] = [f"{encoder}={folder / name}" for encoder, name in weights]
        found = PlanFile(
            folder,
            content["slicebench"],
            options,
            content["cohorts"],
            content["trials"],
            content["studies"],
        )
        newer = content["format"] > FORMAT
    except FileNotFoundError:
        raise UserError(
            f"There is no {FILE} in {folder}; write one with `bench plan --out DIR`."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{file} is damaged; copy the directory again, or write it again with `bench plan`."
        ) from None
    if newer:
        raise UserError(
            f"{file} was written by a newer version of slicebench ({found.written_by}); install "
            "that version."
        )
    return found


def _copy_plugins(folder: Path) -> list[str]:
    """Copy the loaded plugin files with the modules that they import; return their new names.

    Raises
    ------
    UserError
        If a plugin imports a module from another directory.
    """
    copies = []
    for number, name in enumerate(catalogue.files):
        plugin = Path(name)
        top = plugin.parent.parent if plugin.name == "__init__.py" else plugin.parent
        target = folder / "plugins" / str(number)
        for file in catalogue.code[name].files:
            if not file.is_relative_to(top):
                raise UserError(
                    f"The plugin {plugin} imports {file} from another directory, so it cannot be "
                    "copied; move it to the directory of the plugin, or install both as a package."
                )
            copy = target / file.relative_to(top)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        copies.append(str((target / plugin.relative_to(top)).relative_to(folder)))
    return copies


def _copy_weights(folder: Path, plans: Sequence[Plan]) -> dict[str, str]:
    """Copy the pretrained weights that are not installed; return their new names by encoder."""
    copies = {}
    for plan in plans:
        for key, name in plan.weights.items():
            encoder = plan.arms[key].encoder
            if not name or encoder is None or set(LIBRARY_FOLDERS) & set(Path(name).parts):
                continue
            copy = folder / "weights" / f"{encoder.name.replace('/', '--')}{Path(name).suffix}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, copy)
            copies[encoder.name] = str(copy.relative_to(folder))
    return copies
