"""Walking a cohort's folder: every visible file once, in an order that does not vary."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.data.formats import BROKEN_LINK, why_absent
from registry.errors import UserError

IMAGES = (".nii", ".nii.gz", ".img", ".img.gz")
"""How the names of images end, in any case; of a pair the ``.img`` stands for both."""

HIDDEN = (".", "~$")
"""How names begin that are no data: ``._scan.nii`` of macOS, ``.git``, a lock of Excel."""

SYSTEM = frozenset(
    {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
"""Folders that a file system, a file server or an archive program keeps for itself."""

NOT_UTF8 = "its path is not UTF-8 text; rename it"
"""The reason to leave out what no table can name."""


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is no data."""
    return name.startswith(HIDDEN) or name in SYSTEM


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image."""
    return name.lower().endswith(IMAGES)


def natural(name: str) -> str:
    """Return a text that sorts as the name, numbers counting as numbers: ``run-2``, ``run-10``."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), name)


class FoundFile(NamedTuple):
    """A file of a cohort: its path relative to the cohort's folder, and its name.

    ``reason`` says why it cannot hold a scan if that is known without reading it: it is a link to
    nothing, or a folder that has the name of an image. It is empty otherwise.
    """

    path: str
    name: str
    reason: str = ""


class Walk:
    """The files below a folder.

    Hidden files and folders are left out. Links are followed, and each real folder is visited once,
    under its own place rather than that of a link, so that links to a folder above (DataLad's
    ``sourcedata/raw``) neither repeat scans nor keep the walk from ending.

    Parameters
    ----------
    root : Path
        Where to begin.
    within : str, optional
        A regular expression of the folders that are entered, as paths relative to the root;
        default: all.
    """

    def __init__(self, root: Path, within: str = ".*") -> None:
        self.root = root
        self._within = re.compile(within)
        self._closed: list[tuple[str, str]] = []

    def __iter__(self) -> Iterator[FoundFile]:
        """Yield the files, folder by folder, in natural order.

        Raises
        ------
        UserError
            When the root itself cannot be read.
        """
        self._closed = []
        root = os.path.realpath(self.root)
        visited: set[str] = set()
        folders, links = [("", root)], list[tuple[str, str]]()
        while folders or links:
            # Links wait for the end: what they lead to may be found at its own place.
            place, real = folders.pop() if folders else links.pop(0)
            if real in visited:
                continue
            visited.add(real)
            try:
                with os.scandir(real) as content:
                    items = sorted(content, key=lambda item: (natural(item.name), item.name))
            except OSError as error:
                why = error.strerror or str(error)
                if not place:
                    raise UserError(f"The folder {self.root} cannot be read: {why}.") from None
                self._closed.append((_printable(place), why))
                continue
            below = []
            for item in items:
                if is_hidden(item.name):
                    continue
                path = f"{place}/{item.name}" if place else item.name
                link = item.is_symlink()
                folder = os.path.isdir(item.path) if link else item.is_dir()
                if self._within.fullmatch(path):
                    if folder and link:
                        leads = os.path.realpath(item.path)
                        if not (_is_above(leads, real) or _is_above(leads, root)):
                            links.append((path, leads))
                    elif folder:
                        below.append((path, os.path.join(real, item.name)))
                    elif link and "." not in item.name and why_absent(item.path) == BROKEN_LINK:
                        self._closed.append(
                            (_printable(path), "a link to a folder that is not there")
                        )
                reason = why_absent(item.path) if is_image(item.name) and (link or folder) else ""
                if is_image(item.name) or not folder:
                    shown = _printable(path)
                    reason = reason or (NOT_UTF8 if shown != path else "")
                    yield FoundFile(shown, shown.rpartition("/")[2], reason)
            folders += reversed(below)

    @property
    def warnings(self) -> list[str]:
        """A sentence on the folders that could not be read, once the walk is over; or nothing."""
        if not self._closed:
            return []
        n, (place, why) = len(self._closed), self._closed[0]
        return [
            f"{n} folder{'s' if n > 1 else ''} in {self.root} cannot be read, so nothing is known "
            f"of the scans in {'them' if n > 1 else 'it'}; the first is {place}: {why}."
        ]

    def nothing(self, sentence: str) -> UserError:
        """Return the error that there is no scan; it ends with what could not be read."""
        return UserError(" ".join([sentence, *self.warnings]))


def _is_above(folder: str, other: str) -> bool:
    return os.path.join(other, "").startswith(os.path.join(folder, ""))


def _printable(path: str) -> str:
    """Return a path as text; bytes that are none of UTF-8 are written in hexadecimal."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")
