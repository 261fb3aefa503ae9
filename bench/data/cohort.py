"""A cohort that is ready for training: prepared volumes, labels and split."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.data import check, manifest
from bench.data.adapters.reading import listed
from bench.data.cache import (
    VOLUMES,
    Cached,
    Progress,
    as_csv,
    cohort_folder,
    complete,
    prepare,
    write_csv,
)
from bench.data.listing import UPDATABLE, CohortRequest, Listing, list_scans
from bench.data.selection import SPLIT_SEED, SelectedScans, balance, select_scans
from bench.data.split import SIDES, strata, subset, validation_subset
from bench.data.volume import VERSION, Conform
from bench.records import DatasetRecord, SubjectRecord
from bench.spec import seed_for
from registry.cards import Task, Value
from registry.core import plugin_digest
from registry.errors import UserError


@dataclass(frozen=True)
class Cohort:
    """A dataset that is ready for training.

    Subjects are represented by indices; their ids stay in the cache folder.

    Parameters
    ----------
    name : str
        The name that the user gave it.
    fingerprint : str
        Digest (16 hex digits) of everything here that can affect a result.
    manifest_digest, split_digest : str
        Digests (64 hex digits) of the scans with their labels and content, and of the split.
    folder : Path
        The folder that contains ``volumes.npy``.
    task : Task
        What is predicted.
    shape : tuple of int
        Shape (D, H, W) of a volume, along the RAS axes x, y and z.
    frame : DataFrame
        One row per used scan, ordered by subject and session: ``row`` of ``volumes.npy``,
        ``subject`` (int), ``y`` (years or class), ``age``, ``sex``, ``site`` and ``side`` (train,
        validation or test).
    flow : list of (str, int)
        Numbers of scans found, excluded for each reason, and used.
    warnings : list of str
        Messages for the user about the scans that are used.
    settings : dict
        Adapter, options and split, as stated in the captions of a report.
    synthetic : bool
        Whether the subjects are simulated.
    tested_on : str
        The cohort that the test set belongs to.
    n_volumes : int
        Number of rows of ``volumes.npy``.
    ids : tuple of str
        Subject ids by index. They are used to draw random subsets and never leave this process.
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
    warnings: list[str]
    settings: dict[str, Value]
    synthetic: bool
    tested_on: str
    n_volumes: int
    ids: tuple[str, ...] = field(repr=False)

    @property
    def volumes_file(self) -> Path:
        """The file of the memory-mapped float16 array (N, D, H, W)."""
        return self.folder / VOLUMES

    @cached_property
    def subjects(self) -> pd.DataFrame:
        """The first scan of each used subject, which is the one evaluated, indexed by subject."""
        return self.frame.drop_duplicates("subject").set_index("subject")

    def side(self, name: str) -> NDArray[np.int64]:
        """Return the subjects of a set (train, validation or test), in ascending order."""
        return self._sides[name]

    @property
    def pool(self) -> NDArray[np.int64]:
        """The subjects available for training."""
        return self.side("train")

    @property
    def n_pool(self) -> int:
        """Number of subjects available for training."""
        return len(self.pool)

    @property
    def n_validation(self) -> int:
        """Number of validation subjects at the largest training size."""
        return len(self.side("validation"))

    @property
    def n_test(self) -> int:
        """Number of test subjects."""
        return len(self.side("test"))

    @property
    def n_subjects(self) -> int:
        """Number of subjects used."""
        return len(self.subjects)

    def rows(self, subjects: NDArray[np.int64], *, one_per_subject: bool) -> NDArray[np.int64]:
        """Return the rows of ``volumes.npy`` with all scans, or the first scan, of each subject."""
        if one_per_subject:
            return self.subjects.loc[subjects, "row"].to_numpy()
        return self.frame.loc[self.frame["subject"].isin(subjects), "row"].to_numpy()

    def train_rows(self, n_train: int, stream: str) -> NDArray[np.int64]:
        """Return the rows of all scans of a training subset.

        Subsets are nested: a larger one of the same random stream contains all smaller ones.

        Parameters
        ----------
        n_train : int
            Number of subjects.
        stream : str
            Name of the random stream: the seed of a trial, or the name that a study uses.
        """
        lead = 1 if self.task.kind == "classification" else 0
        pool, seed = self.pool, seed_for("subset", stream)
        chosen = subset(self._ids(pool), self._strata.loc[pool], n_train, seed, lead)
        return self.rows(pool[chosen], one_per_subject=False)

    def validation_rows(self, n_train: int, stream: str, *, full: bool) -> NDArray[np.int64]:
        """Return the row of one scan of each validation subject used with a training size."""
        subjects = self.side("validation")
        chosen = validation_subset(
            self._ids(subjects),
            self._strata.loc[subjects],
            n_train,
            seed_for("validation", stream),
            classes=len(self.task.classes),
            full=full,
        )
        return self.rows(subjects[chosen], one_per_subject=True)

    def test_rows(self) -> NDArray[np.int64]:
        """Return the row of one scan of each test subject."""
        return self.rows(self.side("test"), one_per_subject=True)

    @cached_property
    def targets(self) -> NDArray[np.float64]:
        """Label of each row of ``volumes.npy``, (N,); NaN for rows that are not used."""
        values = np.full(self.n_volumes, np.nan)
        values[self.frame["row"]] = self.frame["y"]
        return values

    def subjects_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the subject of each row of ``volumes.npy``."""
        return self._subject_of_row[rows]

    def truth_of(self, subjects: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the label of each subject at the scan that is evaluated."""
        return self.subjects.loc[subjects, "y"].to_numpy()

    @property
    def record(self) -> DatasetRecord:
        """The record of the cohort and its subjects in the database, without ids and paths."""
        return DatasetRecord(
            fingerprint=self.fingerprint,
            name=self.name,
            manifest_digest=self.manifest_digest,
            split_digest=self.split_digest,
            target=self.task.target,
            kind=self.task.kind,
            classes=list(self.task.classes),
            shape=list(self.shape),
            settings=self.settings,
            flow=[list(step) for step in self.flow],
            n_pool=self.n_pool,
            n_validation=self.n_validation,
            n_test=self.n_test,
            subjects=[
                SubjectRecord(
                    subject=int(row["subject"]),
                    side=row["side"],
                    truth=float(row["y"]),
                    age=None if math.isnan(row["age"]) else float(row["age"]),
                    sex=row["sex"] or None,
                    site=row["site"] or None,
                )
                for row in self.subjects.sort_index().reset_index().to_dict("records")
            ],
        )

    @property
    def balance(self) -> pd.DataFrame:
        """Number of subjects in each set by class, age, sex and site, with tests of the balance."""
        return balance(self.frame, self.task)

    @cached_property
    def _subject_of_row(self) -> NDArray[np.int64]:
        subjects = np.full(self.n_volumes, -1)
        subjects[self.frame["row"]] = self.frame["subject"]
        return subjects

    @cached_property
    def _sides(self) -> dict[str, NDArray[np.int64]]:
        subjects = self.subjects
        return {name: subjects.index[subjects["side"] == name].to_numpy() for name in SIDES}

    @cached_property
    def _strata(self) -> pd.DataFrame:
        return strata(self.subjects, self.task)

    def _ids(self, subjects: NDArray[np.int64]) -> list[str]:
        return [self.ids[index] for index in subjects]


def open_cohort(
    request: CohortRequest,
    cache_dir: Path,
    progress: Progress | None = None,
    *,
    workers: int | None = None,
    verify: bool = False,
) -> Cohort:
    """Find the scans, prepare those that are not cached yet, check them and split by subject.

    Parameters
    ----------
    request : CohortRequest
        The dataset and its options.
    cache_dir : Path
        Folder of the prepared volumes and the splits.
    progress : callable, optional
        Called as ``progress(done, total)`` for each scan that is generated or read. Not called if
        nothing has changed since the last time.
    workers : int, optional
        Number of reading processes; see `bench.data.scanning.read_all`.
    verify : bool
        Whether stored volumes are compared with their checksums.

    Returns
    -------
    Cohort

    Raises
    ------
    UserError
        If the dataset cannot be used as requested; the message includes the remedy.
    """
    listing = list_scans(request, cache_dir, progress)
    conform, folder = listing.conform, listing.folder
    listing.task  # noqa: B018  raises before hours of reading if the target cannot be learned
    substitutes = listing.substitutes
    cached = None if verify else complete(listing.files, conform, folder, cache_dir, substitutes)
    if cached is not None:
        selected, rows = _selected(listing, cached)
        if _is_stored(listing, selected):
            return _cohort(listing, selected, rows, cached.folder, conform)
    with cohort_folder(folder):
        cached = prepare(
            listing.files,
            conform,
            folder,
            cache_dir,
            progress,
            substitutes=substitutes,
            root=request.root and request.root.expanduser().resolve(),
            workers=workers,
            verify=verify,
        )
        selected, rows = _selected(listing, cached)
        store_split(listing, selected)
    return _cohort(listing, selected, rows, cached.folder, conform)


def _selected(listing: Listing, cached: Cached) -> tuple[SelectedScans, pd.Series]:
    """Return the selected scans with their split, and the row of each scan in the array."""
    listing, scans = listing.after_reading(cached.unusable)
    selected = select_scans(listing, cached.facts.set_axis(scans), stored_split(listing))
    return selected, pd.Series(range(len(scans)), scans)


def _cohort(
    listing: Listing, selected: SelectedScans, rows: pd.Series, folder: Path, conform: Conform
) -> Cohort:
    request, used, task = listing.request, selected.used, selected.task
    settings = _settings(request, conform)
    manifest_digest = manifest.digest(selected.scans)
    sides = selected.subjects[["subject_id", "side"]]
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
    people = selected.scans.drop_duplicates("subject").sort_values("subject")
    return Cohort(
        name=request.name,
        fingerprint=fingerprint[:16],
        manifest_digest=manifest_digest,
        split_digest=split_digest,
        folder=folder,
        task=task,
        shape=conform.target.shape,
        frame=used.assign(row=rows[used.index])[columns].reset_index(drop=True),
        flow=selected.flow,
        warnings=selected.warnings,
        settings=settings,
        synthetic=request.card.synthetic,
        tested_on=(request.test or request).cohort,
        n_volumes=len(rows),
        ids=tuple(people["subject_id"]),
    )


def stored_split(listing: Listing) -> pd.Series | None:
    """Return the stored set of each subject by id, None if there is none or it is not wanted.

    Raises
    ------
    UserError
        If the file of the split was edited and is no longer valid.
    """
    file = _split_file(listing)
    if listing.request.new_split or not file.is_file():
        return None
    return _stored_split(file)


def store_split(listing: Listing, selected: SelectedScans) -> None:
    """Write the split and the manifest to the cohort's folder."""
    for file, table in _tables(listing, selected).items():
        if not _is_up_to_date(file, table):
            write_csv(table, file)


def _is_stored(listing: Listing, selected: SelectedScans) -> bool:
    """Tell whether the split and the manifest in the cohort's folder are up to date."""
    return all(_is_up_to_date(file, table) for file, table in _tables(listing, selected).items())


def _tables(listing: Listing, selected: SelectedScans) -> dict[Path, pd.DataFrame]:
    """Return the split and the manifest by the file that each is stored in."""
    sides = selected.subjects[["subject_id", "side"]]
    return {
        _split_file(listing): _with_absent(sides, stored_split(listing), selected.scans),
        listing.folder / "manifest.csv": selected.scans.drop(columns=["file", "subject"]),
    }


def _split_file(listing: Listing) -> Path:
    return listing.folder / f"split-{listing.request.target}.csv"


def _stored_split(file: Path) -> pd.Series:
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if list(table.columns) != ["subject_id", "side"] or not table["side"].isin(SIDES).all():
        raise UserError(
            f"{file} is not a valid split: it must have the columns subject_id and side, with "
            f"the values {listed(SIDES)}; repair it or use --new-split."
        )
    check.refuse_shared_subjects(table)
    return table.drop_duplicates("subject_id").set_index("subject_id")["side"]


def _with_absent(
    sides: pd.DataFrame, stored: pd.Series | None, scans: pd.DataFrame
) -> pd.DataFrame:
    """Add subjects of the stored split that are in the manifest without a usable scan.

    A subject whose file cannot be read this time must not move to another set next time. Subjects
    that are no longer in the manifest have withdrawn and are removed.
    """
    if stored is None:
        return sides
    absent = stored[
        stored.index.isin(scans["subject_id"]) & ~stored.index.isin(sides["subject_id"])
    ]
    return pd.concat([sides, absent.rename_axis("subject_id").reset_index()])


def _is_up_to_date(file: Path, table: pd.DataFrame) -> bool:
    return file.is_file() and file.read_bytes() == as_csv(table)


def _settings(request: CohortRequest, conform: Conform) -> dict[str, Value]:
    """Return the settings that affect results and may be shared, so without paths."""
    options = {key: value for key, value in request.options.items() if key not in UPDATABLE}
    about = {
        "adapter": request.card.name,
        "adapter_version": request.card.version,
        **options,
        "space": conform.space,
        "cohort": request.cohort,
        "split": "60/20/20 by subject, stratified by label, sex and site",
        "split_seed": SPLIT_SEED,
    }
    if request.test is not None:
        about["test_cohort"] = request.test.name
        about["test_adapter"] = request.test.card.name
    return about
