"""A dataset opened for a target: the one thing of this room that the harness uses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.data import check, manifest
from bench.data.adapters.reading import listed
from bench.data.cache import VOLUMES, Cached, Conform, Progress, cohort_folder, prepare, write_csv
from bench.data.split import SIDES, split, strata, subset, validation_subset
from bench.data.volume import VERSION
from bench.spec import seed_for
from registry.cards import DatasetCard, Task, Value
from registry.core import catalogue, did_you_mean, plugin_digest, resolve
from registry.datasets import CONFORM, options_of
from registry.errors import UserError

SPLIT_SEED = 0


@dataclass(frozen=True)
class CohortRequest:
    """Which dataset, and how: names and values are checked, no file was touched.

    Parameters
    ----------
    name : str
        What the user calls it.
    card : DatasetCard
        Its adapter.
    root : Path or None
        Where it lies; None for embedded cohorts, and for a table whose folder it is then.
    options : dict
        Every option of the card and of conforming, resolved.
    target : str
        ``age``, ``diagnosis`` or ``sex``.
    new_split : bool
        Forget the split that was drawn before.
    """

    name: str
    card: DatasetCard
    root: Path | None
    options: Mapping[str, Value]
    target: str
    new_split: bool = False


def cohort_request(
    name: str,
    configured: Mapping[str, Any],
    *,
    root: Path | None = None,
    options: Mapping[str, str] | None = None,
    target: str | None = None,
    new_split: bool = False,
) -> CohortRequest:
    """Join what the configuration says of a dataset with what the command line says.

    Parameters
    ----------
    name : str
        A dataset's card, or the name of a ``[data.NAME]`` table of ``bench.toml``.
    configured : mapping
        That table, empty when there is none: ``adapter``, ``root``, ``target`` and options.
    root, options, target
        From the command line; they win.
    new_split : bool
        Draw train, validation and test anew.

    Returns
    -------
    CohortRequest

    Raises
    ------
    UserError
        For an unknown dataset, option or target, a value out of range, or a root that is needed and
        was not given.
    """
    card = catalogue.dataset(str(configured.get("adapter", name)))
    known = options_of(card)
    rest = {k: v for k, v in configured.items() if k not in ("adapter", "root", "target")}
    values = {key: card.defaults.get(key, option.default) for key, option in known.items()}
    for where, given in ((f"[data.{name}] ", rest), ("--data-set ", options or {})):
        for key, value in given.items():
            if key not in known:
                raise UserError(
                    f"{where}{key}: the dataset {card.name} has no such option"
                    f"{did_you_mean(key, known)}; it has {', '.join(known) or 'none'}."
                )
            try:
                values[key] = known[key].parse(str(value))
            except ValueError as error:
                raise UserError(f"{where}{key}={value}: {error}.") from None
    target = target or configured.get("target") or card.default_target
    if target not in manifest.TARGETS or target not in card.targets:
        raise UserError(
            f"--target {target}: the dataset {card.name} has {', '.join(card.targets)}."
        )
    place = root or (Path(configured["root"]) if "root" in configured else None)
    if place is None and card.needs_root:
        raise UserError(f"The dataset {name} needs the folder that it lies in: --root DIR.")
    if card.synthetic:
        place = None
    return CohortRequest(name, card, place, values, target, new_split)


@dataclass(frozen=True)
class Cohort:
    """A dataset ready to train on. Subjects are indices; their ids stay in the cache folder.

    Parameters
    ----------
    name : str
        What the user calls it.
    fingerprint : str
        16 hex digits over everything here that can change a number.
    manifest_digest, split_digest : str
        64 hex digits over the scans with labels and bytes, and over the subjects' sides.
    folder : Path
        Holds ``volumes.npy``.
    task : Task
        What is predicted.
    shape : tuple of int
        (D, H, W) of a volume: RAS axes x, y, z.
    frame : DataFrame
        One row a used scan, by subject and session: ``row`` of ``volumes.npy``, ``subject`` (int),
        ``y`` (years or class), ``age``, ``sex``, ``site``, ``side`` (train, validation, test).
    flow : list of (str, int)
        What was found, left out by reason, and used.
    settings : dict
        Adapter, options, split: what a caption says.
    synthetic : bool
        True when no person is in it.
    n_volumes : int
        Rows of ``volumes.npy``.
    ids : tuple of str
        Subject ids by index; for draws only, they never leave this process.
    """

    name: str
    fingerprint: str
    manifest_digest: str
    split_digest: str
    folder: Path
    task: Task
    shape: tuple[int, int, int]
    frame: pd.DataFrame
    flow: list[tuple[str, int]]
    settings: dict[str, Value]
    synthetic: bool
    n_volumes: int
    ids: tuple[str, ...] = field(repr=False)

    @property
    def volumes_file(self) -> Path:
        """The memory-mapped float16 array (N, D, H, W)."""
        return self.folder / VOLUMES

    @cached_property
    def subjects(self) -> pd.DataFrame:
        """The first scan of each used subject, indexed by subject: what evaluation looks at."""
        return self.frame.drop_duplicates("subject").set_index("subject")

    def side(self, name: str) -> NDArray[np.int64]:
        """Return the subjects of a side, ascending."""
        return self.subjects.index[self.subjects["side"] == name].to_numpy()

    @property
    def pool(self) -> NDArray[np.int64]:
        """The subjects that there are to train on."""
        return self.side("train")

    @property
    def n_pool(self) -> int:
        """How many subjects there are to train on."""
        return len(self.pool)

    @property
    def n_validation(self) -> int:
        """Validation subjects at the largest training size."""
        return len(self.side("validation"))

    @property
    def n_test(self) -> int:
        """Test subjects."""
        return len(self.side("test"))

    @property
    def n_subjects(self) -> int:
        """Subjects in use."""
        return len(self.subjects)

    def rows(self, subjects: NDArray[np.int64], *, one_per_subject: bool) -> NDArray[np.int64]:
        """Return the rows of ``volumes.npy`` of subjects: all their scans, or the first of each."""
        if one_per_subject:
            return self.subjects.loc[subjects, "row"].to_numpy()
        return self.frame.loc[self.frame["subject"].isin(subjects), "row"].to_numpy()

    def train_rows(self, n_train: int, draw: str) -> NDArray[np.int64]:
        """Return all scans of the training subset of a size.

        Subsets are nested: a larger one of the same draw holds every smaller one.

        Parameters
        ----------
        n_train : int
            Subjects.
        draw : str
            What the subset derives from: the user's seed, or a study's own word.
        """
        lead = 1 if self.task.kind == "classification" else 0
        pool, seed = self.pool, seed_for("subset", draw)
        chosen = subset(self._ids(pool), self._strata.loc[pool], n_train, seed, lead)
        return self.rows(pool[chosen], one_per_subject=False)

    def validation_rows(self, n_train: int, draw: str, *, full: bool) -> NDArray[np.int64]:
        """Return one scan of each validation subject that belongs to a training size."""
        subjects = self.side("validation")
        chosen = validation_subset(
            self._ids(subjects),
            self._strata.loc[subjects],
            n_train,
            seed_for("validation", draw),
            classes=len(self.task.classes),
            full=full,
        )
        return self.rows(subjects[chosen], one_per_subject=True)

    def test_rows(self) -> NDArray[np.int64]:
        """Return one scan of each test subject."""
        return self.rows(self.side("test"), one_per_subject=True)

    @cached_property
    def targets(self) -> NDArray[np.float64]:
        """Labels by row of ``volumes.npy``, (N,); NaN for rows that are not used."""
        values = np.full(self.n_volumes, np.nan)
        values[self.frame["row"]] = self.frame["y"]
        return values

    def subjects_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the subject of each row of ``volumes.npy``."""
        return self.frame.set_index("row").loc[rows, "subject"].to_numpy()

    def truth_of(self, subjects: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the label of each subject at the scan that evaluation looks at."""
        return self.subjects.loc[subjects, "y"].to_numpy()

    def rows_for_store(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return what the database keeps of the cohort and of each subject: no id, no path."""
        about = {
            "fingerprint": self.fingerprint,
            "name": self.name,
            "manifest_digest": self.manifest_digest,
            "split_digest": self.split_digest,
            "target": self.task.target,
            "kind": self.task.kind,
            "classes": list(self.task.classes),
            "shape": list(self.shape),
            "settings": self.settings,
            "flow": [list(step) for step in self.flow],
            "n_pool": self.n_pool,
            "n_validation": self.n_validation,
            "n_test": self.n_test,
        }
        people = [
            {
                "fingerprint": self.fingerprint,
                "subject": int(row["subject"]),
                "side": row["side"],
                "truth": float(row["y"]),
                "age": None if math.isnan(row["age"]) else float(row["age"]),
                "sex": row["sex"] or None,
                "site": row["site"] or None,
            }
            for row in self.subjects.sort_index().reset_index().to_dict("records")
        ]
        return about, people

    @cached_property
    def _strata(self) -> pd.DataFrame:
        return strata(self.subjects, self.task)

    def _ids(self, subjects: NDArray[np.int64]) -> list[str]:
        return [self.ids[index] for index in subjects]


def open_cohort(
    request: CohortRequest, cache_dir: Path, progress: Progress | None = None
) -> Cohort:
    """Find the scans, conform those that are not cached yet, check them and split by subject.

    Parameters
    ----------
    request : CohortRequest
        Which dataset, and how.
    cache_dir : Path
        Folder for everything that can be made again, and for the splits that were drawn.
    progress : callable, optional
        Called as ``progress(done, total)`` for each scan that is made or read. Not called when
        nothing has changed since the last time.

    Returns
    -------
    Cohort

    Raises
    ------
    UserError
        When the dataset cannot be used as asked; the sentence says what to do.
    """
    root = _root(request, cache_dir, progress)
    found = resolve(request.card.target)(root, dict(request.options))
    scans = manifest.tidy(found)
    task = manifest.task_of(scans, request.target)
    conform = Conform(
        grid=str(request.options["grid"]),
        zscore=str(request.options["zscore"]),
        space=_space(request, scans),
    )
    chosen = scans.index[scans["reason"] == ""]
    folder = _folder(request, root, cache_dir)
    with cohort_folder(folder):
        files = [root / path for path in scans.loc[chosen, "path"]]
        cached = prepare(files, conform, folder, cache_dir, progress)
        scans.loc[chosen, "row"] = np.arange(len(chosen), dtype=float)
        scans["sha256"] = ""
        scans.loc[chosen, "sha256"] = list(cached.sha256)
        manifest_digest = manifest.digest(scans)
        flow = _leave_out(scans, chosen, cached, request)
        used = scans[scans["reason"] == ""].copy()
        manifest.check_sizes(used, request.target)
        used["y"] = manifest.encode(used, task)
        file = folder / f"split-{request.target}.csv"
        stored = _stored_split(file) if file.is_file() and not request.new_split else None
        used["side"] = used["subject_id"].map(_split(used, task, stored))
        check.refuse_shared_subjects(used)
        check.refuse_copies_across(used)
        check.refuse_empty_sides(used.drop_duplicates("subject_id"), task)
        sides = used.drop_duplicates("subject_id")[["subject_id", "side"]]
        _keep(_with_absent(sides, stored, scans), file)
        _keep(scans.drop(columns="row"), folder / "manifest.csv")
    settings = _settings(request, conform)
    split_digest = manifest.sha256_of(sides.to_numpy().tolist())
    fingerprint = manifest.sha256_of(
        [
            manifest_digest,
            split_digest,
            [task.target, *task.classes],
            VERSION,
            plugin_digest(request.card),
            settings,
        ]
    )
    columns = ["row", "subject", "y", "age", "sex", "site", "side"]
    ids = scans.drop_duplicates("subject").sort_values("subject")["subject_id"]
    return Cohort(
        name=request.name,
        fingerprint=fingerprint[:16],
        manifest_digest=manifest_digest,
        split_digest=split_digest,
        folder=cached.folder,
        task=task,
        shape=conform.target.shape,
        frame=used[columns].astype({"row": int}).reset_index(drop=True),
        flow=[
            ("scans found", len(scans)),
            *((f"left out: {reason}", count) for reason, count in flow),
            ("scans used", len(used)),
            ("subjects used", len(sides)),
        ],
        settings=settings,
        synthetic=request.card.synthetic,
        n_volumes=len(chosen),
        ids=tuple(ids),
    )


def _root(request: CohortRequest, cache_dir: Path, progress: Progress | None) -> Path:
    if request.card.synthetic:
        from bench.data.synthetic import materialise

        return materialise(request.card.name, cache_dir, progress)
    if request.root is not None:
        root = request.root.expanduser()
    else:
        root = Path(str(request.options.get("table", ""))).expanduser().parent
    if not root.is_dir():
        raise UserError(f"The root {root} of the dataset {request.name} is not a folder.")
    return root.absolute()


def _folder(request: CohortRequest, root: Path, cache_dir: Path) -> Path:
    """Return the cohort's folder: one for each adapter, root and choice of columns.

    The grid is not in its name: the split must not depend on it.
    """
    options = {k: v for k, v in request.options.items() if k not in CONFORM}
    if options.get("table"):
        options["table"] = str(Path(str(options["table"])).expanduser().resolve())
    place = manifest.sha256_of([request.card.name, str(root.resolve()), options])
    return cache_dir / "cohorts" / f"{request.card.name}-{place[:8]}"


def _space(request: CohortRequest, scans: pd.DataFrame) -> str:
    """Return ``mni`` or ``native``; a scan of unknown space is never resampled on a guess."""
    if request.options["space"] != "auto":
        return str(request.options["space"])
    used = scans[scans["reason"] == ""]
    unknown = used[used["space"] != "mni"]
    if len(unknown):
        raise UserError(
            f"{len(unknown)} of {len(used)} scans of {request.name} are not said to be in MNI "
            f"space (the first is {unknown['path'].iloc[0]}): add `--data-set space=mni` if they "
            "are registered to it, or `--data-set space=native` to use them as they are, centred "
            "on the head's centre of mass."
        )
    return "mni"


def _leave_out(
    scans: pd.DataFrame, chosen: pd.Index, cached: Cached, request: CohortRequest
) -> list[tuple[str, int]]:
    """Write into `scans` why a scan is left out, and return how many were, by reason."""
    scans.loc[chosen, "reason"] = list(cached.reasons)
    if not (scans.loc[chosen, "reason"] == "").any():
        first = chosen[0]
        raise UserError(
            f"None of the {len(chosen)} scans of {request.name} can be read; the first is "
            f"{scans.loc[first, 'path']}: {scans.loc[first, 'reason']}."
        )
    unlabelled = (scans["reason"] == "") & ~manifest.labelled(scans, request.target)
    scans.loc[unlabelled, "reason"] = f"no {request.target}"
    return manifest.count_flow(scans["reason"])


def _split(used: pd.DataFrame, task: Task, stored: pd.Series | None) -> pd.Series:
    """Return the side of each subject id, by the label at the subject's first scan."""
    people = used.drop_duplicates("subject_id").set_index("subject_id")
    return split(strata(people, task)["fine"], SPLIT_SEED, stored)


def _stored_split(file: Path) -> pd.Series:
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if list(table.columns) != ["subject_id", "side"] or not table["side"].isin(SIDES).all():
        raise UserError(
            f"{file} is not a split: it has columns subject_id and side, with {listed(SIDES)}; "
            "repair it or use --new-split."
        )
    check.refuse_shared_subjects(table)
    return table.drop_duplicates("subject_id").set_index("subject_id")["side"]


def _with_absent(
    sides: pd.DataFrame, stored: pd.Series | None, scans: pd.DataFrame
) -> pd.DataFrame:
    """Add those who were placed before and are in the manifest without a usable scan.

    A file that could not be read today must not send its subject to another side tomorrow. Those
    who are no longer in the manifest have withdrawn and are forgotten.
    """
    if stored is None:
        return sides
    absent = stored[
        stored.index.isin(scans["subject_id"]) & ~stored.index.isin(sides["subject_id"])
    ]
    return pd.concat([sides, absent.rename_axis("subject_id").reset_index()])


def _keep(table: pd.DataFrame, file: Path) -> None:
    """Write a table unless the file says the same already: a full or read-only disk then serves."""
    if not file.is_file() or file.read_text(encoding="utf-8") != table.to_csv(index=False):
        write_csv(table, file)


def _settings(request: CohortRequest, conform: Conform) -> dict[str, Value]:
    """Return what decides the numbers and may be read by anybody: no path of this machine."""
    options = {key: value for key, value in request.options.items() if key != "table"}
    return {
        "adapter": request.card.name,
        "adapter_version": request.card.version,
        **options,
        "space": conform.space,
        "storage": "float16",
        "split": "60/20/20 by subject",
        "split_seed": SPLIT_SEED,
    }
