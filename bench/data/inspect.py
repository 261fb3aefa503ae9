"""Inspection of a dataset before training: facts of the scans, problems, and the split."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.data.cache import (
    VOLUMES,
    Progress,
    complete,
    images_of,
    store_facts,
    stored_facts,
    unusable_of,
)
from bench.data.cohort import stored_split
from bench.data.facts import FACTS, thumbnail, typed
from bench.data.listing import Listing
from bench.data.quality import Concern, concerns
from bench.data.scanning import Job, read_all
from bench.data.selection import (
    SelectedScans,
    after_reading,
    balance,
    flow_of,
    select_scans,
    with_facts,
)
from bench.data.volume import Conform
from registry.errors import UserError

Pictures = Mapping[int, NDArray[np.uint8]]


@dataclass(frozen=True)
class Inspection:
    """The result of inspecting a dataset.

    Parameters
    ----------
    listing : Listing
        The scans and how they were chosen.
    scans : DataFrame
        All scans found, with their facts and final reasons for exclusion.
    selected : SelectedScans or None
        The scans used and their split, None if there is a problem.
    problem : str
        Why the dataset cannot be used as requested; empty if it can.
    conform : Conform
        How the volumes are, or would be, prepared.
    rows : Index
        The index of each scan that was read, in the order of the cache.
    volumes : Path or None
        The file of the cached volumes, None if they are not cached.
    taken : mapping
        Thumbnails by index in `scans`, if the volumes are not cached.
    """

    listing: Listing
    scans: pd.DataFrame
    selected: SelectedScans | None
    problem: str
    conform: Conform
    rows: pd.Index
    volumes: Path | None
    taken: Pictures

    @property
    def used(self) -> pd.DataFrame:
        """The used scans; they have a ``side`` if they could be split."""
        if self.selected is not None:
            return self.selected.used
        return self.scans[self.scans["reason"] == ""]

    @property
    def flow(self) -> list[tuple[str, int]]:
        """Numbers of scans found, excluded for each reason, and used."""
        return flow_of(self.scans)

    @property
    def warnings(self) -> list[str]:
        """Messages for the user."""
        if self.selected is not None:
            return self.selected.warnings
        return list(self.scans.attrs.get("warnings", ()))

    @property
    def balance(self) -> pd.DataFrame | None:
        """Balance of the split; see `bench.data.selection.balance`."""
        return None if self.selected is None else balance(self.used, self.selected.task)

    @cached_property
    def concerns(self) -> list[Concern]:
        """Reasons to look at some of the scans."""
        return concerns(self.used, self.conform.space)

    def pictures(self, scans: Sequence[int]) -> Pictures:
        """Return the thumbnails of scans by their index in `scans`."""
        if self.volumes is None:
            return {index: self.taken[index] for index in scans if index in self.taken}
        volumes = np.load(self.volumes, mmap_mode="r")
        rows = {index: row for row, index in enumerate(self.rows)}
        return {index: thumbnail(np.asarray(volumes[rows[index]], np.float32)) for index in scans}


def inspect(
    listing: Listing, cache_dir: Path, progress: Progress | None = None, workers: int | None = None
) -> Inspection:
    """Read each chosen scan once, unless it is cached, and check whether the dataset can be used.

    Parameters
    ----------
    listing : Listing
        The scans.
    cache_dir : Path
        The cache folder. Only the facts of the scans are stored in it, for `stored_inspection`.
    progress : callable, optional
        Called after each scan that is read.
    workers : int, optional
        See `bench.data.scanning.read_all`.

    Returns
    -------
    Inspection
        If the dataset cannot be used, its ``problem`` says why.
    """
    problem = ""
    try:
        conform = listing.conform
    except UserError as error:
        problem = str(error)
        # The scans are read in their native space, so that everything else can be reported.
        options = {**listing.request.options, "space": "native", "crop": "none"}
        conform = replace(listing, request=replace(listing.request, options=options)).conform
    cached = complete(listing.files, conform, listing.folder, cache_dir, listing.substitutes)
    pictures: Pictures = {}
    if cached is not None:
        facts, unusable = cached.facts, cached.unusable
    else:
        facts, unusable, pictures = _read(listing, conform, progress, workers)
    listing, rows = listing.after_reading(unusable)
    scans, selected, words = _try_to_select(listing, facts.set_axis(rows))
    return Inspection(
        listing=listing,
        scans=scans,
        selected=None if problem else selected,
        problem=problem or words,
        conform=conform,
        rows=rows,
        volumes=None if cached is None else cached.folder / VOLUMES,
        taken={rows[row]: picture for row, picture in pictures.items()},
    )


@dataclass(frozen=True)
class StoredInspection:
    """What is known about a dataset without reading any voxels.

    Parameters
    ----------
    scans : DataFrame
        All scans found. Their reasons for exclusion are final if `unread` is 0.
    unread : int
        Number of chosen scans that were never read, or have changed since.
    warnings : list of str
        Messages for the user.
    problem : str
        Why the dataset cannot be used as requested, as far as is known; empty if it can.
    """

    scans: pd.DataFrame
    unread: int
    warnings: list[str]
    problem: str


def stored_inspection(listing: Listing) -> StoredInspection:
    """Return what is known about a dataset from its tables and from the last time it was read.

    Parameters
    ----------
    listing : Listing
        The scans.

    Returns
    -------
    StoredInspection
        After `inspect` or `bench.data.cohort.open_cohort`, the same results as theirs.
    """
    facts, unusable = stored_facts(listing.files, listing.folder, listing.substitutes)
    unread = len(listing.chosen) - len(facts)
    listing, rows = listing.after_reading(unusable)
    facts = facts.set_axis(rows[facts.index])
    if unread:
        scans = with_facts(listing, facts)
        return StoredInspection(scans, unread, list(scans.attrs.get("warnings", ())), "")
    scans, selected, problem = _try_to_select(listing, facts)
    warnings = selected.warnings if selected else list(scans.attrs.get("warnings", ()))
    return StoredInspection(scans, 0, warnings, problem)


def _try_to_select(
    listing: Listing, facts: pd.DataFrame
) -> tuple[pd.DataFrame, SelectedScans | None, str]:
    """Return all scans, the selected scans if they can be split, and otherwise the problem."""
    try:
        selected = select_scans(listing, facts, stored_split(listing))
    except UserError as error:
        scans, _, warnings = after_reading(listing, facts)
        scans.attrs["warnings"] = warnings
        return scans, None, str(error)
    return selected.scans, selected, ""


def _read(
    listing: Listing, conform: Conform, progress: Progress | None, workers: int | None
) -> tuple[pd.DataFrame, dict[Path, str], Pictures]:
    """Return, by row, the facts of each chosen scan, unusable files, and thumbnails."""
    images = images_of(listing.files, listing.substitutes)
    found: dict[int, dict[str, Any]] = {}
    pictures: dict[int, NDArray[np.uint8]] = {}
    for number, row in read_all(list(enumerate(images)), Job(conform, pictures=True), workers):
        picture = row.pop("picture")
        if picture is not None:
            pictures[number] = picture
        found[number] = row
        if progress is not None:
            progress(len(found), len(images))
    found_facts = [found[number] for number in range(len(images))]
    # The facts are stored for `bench data manifest`, if the cache can be written.
    with contextlib.suppress(OSError):
        listing.folder.mkdir(parents=True, exist_ok=True)
        store_facts(images, found_facts, conform, listing.folder)
    facts = typed(pd.DataFrame(found_facts, columns=list(FACTS)))
    return facts, unusable_of(images, found_facts), pictures
