"""Everything that can be said of a dataset before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.data.cache import VOLUMES, Cached, Progress, complete
from bench.data.cohort import stored_split
from bench.data.facts import FACTS, thumbnail, typed
from bench.data.listing import Listing
from bench.data.quality import Concern, concerns
from bench.data.scanning import Job, read_all
from bench.data.settle import Settled, balance, flow_of, settle, with_facts
from bench.data.volume import Conform
from registry.errors import UserError

Pictures = Mapping[int, NDArray[np.uint8]]


@dataclass(frozen=True)
class Inspection:
    """What a check found.

    Parameters
    ----------
    listing : Listing
        The scans and how they were chosen.
    scans : DataFrame
        Every scan found, with facts and final reasons.
    settled : Settled or None
        The split, None when there is a problem.
    problem : str
        Why the dataset cannot be used as asked, empty when it can.
    conform : Conform
        How its volumes are or would be made.
    """

    listing: Listing
    scans: pd.DataFrame
    settled: Settled | None
    problem: str
    conform: Conform
    cached: Cached | None
    taken: Pictures

    @property
    def used(self) -> pd.DataFrame:
        """The used scans; with a ``side`` when they could be split."""
        if self.settled is not None:
            return self.settled.used
        return self.scans[self.scans["reason"] == ""]

    @property
    def flow(self) -> list[tuple[str, int]]:
        """What was found, left out by reason, and used."""
        return flow_of(self.scans)

    @property
    def warnings(self) -> list[str]:
        """What a user should know."""
        if self.settled is not None:
            return self.settled.warnings
        return list(self.scans.attrs.get("warnings", ()))

    @property
    def balance(self) -> pd.DataFrame | None:
        """How alike the sides are; see `bench.data.settle.balance`."""
        return None if self.settled is None else balance(self.used, self.settled.task)

    @cached_property
    def concerns(self) -> list[Concern]:
        """What gives reason to look at scans."""
        return concerns(self.used, self.conform.space)

    def pictures(self, scans: Sequence[int]) -> Pictures:
        """Return the thumbnails of scans, by their index in `scans`."""
        if self.cached is None:
            return {index: self.taken[index] for index in scans if index in self.taken}
        volumes = np.load(self.cached.folder / VOLUMES, mmap_mode="r")
        rows = {index: row for row, index in enumerate(self.listing.chosen.index)}
        return {index: thumbnail(np.asarray(volumes[rows[index]], np.float32)) for index in scans}


def inspect(
    listing: Listing, cache_dir: Path, progress: Progress | None = None, workers: int | None = None
) -> Inspection:
    """Read every chosen scan once, unless the cache has it, and say what it is good for.

    Parameters
    ----------
    listing : Listing
        The scans.
    cache_dir : Path
        Where volumes would be; nothing is written.
    progress : callable, optional
        Called after each scan that is read.
    workers : int, optional
        See `bench.data.scanning.read_all`.

    Returns
    -------
    Inspection
        Also of a dataset that cannot be used: then it says why.
    """
    problem = ""
    try:
        conform = listing.conform
    except UserError as error:
        problem = str(error)
        # Read as they are, so that all else can be said.
        options = {**listing.request.options, "space": "native", "crop": "none"}
        conform = replace(listing, request=replace(listing.request, options=options)).conform
    cached = complete(listing.files, conform, listing.folder, cache_dir)
    taken: dict[int, NDArray[np.uint8]] = {}
    if cached is not None:
        facts = cached.facts
    else:
        facts, taken = _read(listing, conform, progress, workers)
    scans, settled = with_facts(listing, facts), None
    try:
        settled = settle(listing, facts, stored_split(listing))
        scans = settled.scans
    except UserError as error:
        problem = problem or str(error)
    if problem:
        settled = None
    return Inspection(listing, scans, settled, problem, conform, cached, taken)


def _read(
    listing: Listing, conform: Conform, progress: Progress | None, workers: int | None
) -> tuple[pd.DataFrame, dict[int, NDArray[np.uint8]]]:
    indices = list(listing.chosen.index)
    rows: dict[int, dict[str, Any]] = {}
    taken: dict[int, NDArray[np.uint8]] = {}
    job = Job(conform, pictures=True)
    for number, row in read_all(list(enumerate(listing.files)), job, workers):
        picture = row.pop("picture")
        if picture is not None:
            taken[indices[number]] = picture
        rows[number] = row
        if progress is not None:
            progress(len(rows), len(indices))
    facts = pd.DataFrame([rows[number] for number in range(len(indices))], columns=list(FACTS))
    return typed(facts), taken
