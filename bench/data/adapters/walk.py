"""Walking a cohort's directory: each visible file once, in a reproducible order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.data.formats import BROKEN_LINK, why_absent
from registry.errors import UserError

IMAGES = (".nii", ".nii.gz", ".img", ".img.gz")
"""Endings of the names of images in lower case; the ``.img`` file represents a pair."""

HIDDEN = (".", "~$")
"""Beginnings of names of hidden files: ``._scan.nii`` (macOS), ``.git``, lock files of Excel."""

SYSTEM = frozenset(
    {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
"""Folders that are used internally by file systems, file servers and archive programs."""

NOT_UTF8 = "its path is not UTF-8 text; rename it"
"""Reason for excluding a scan whose path cannot be written to a table."""


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is ignored."""
    return name.startswith(HIDDEN) or name in SYSTEM


def is_image(name: str) -> bool:
    """Tell whether a file is an image by its name."""
    return name.lower().endswith(IMAGES)


def natural(name: str) -> str:
    """Return a sorting key that compares numbers as numbers: ``run-2`` precedes ``run-10``."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), name)


class FoundFile(NamedTuple):
    """A file of a cohort: its path relative to the cohort's folder, and its name.

    ``reason`` says why the file cannot contain a scan, if that is known without reading it: because
    it is a broken link, or a folder that has the name of an image. Otherwise it is empty.
    """

    path: str
    name: str
    reason: str = ""


class Walk:
    """The files in a directory and its subdirectories.

    Hidden files and folders are ignored. Links are followed, and each folder is visited once, under
    its own path rather than that of a link. Therefore links to a parent folder (DataLad's
    ``sourcedata/raw``) neither repeat scans nor cause infinite loops.

    Parameters
    ----------
    root : Path
        The directory.
    within : str, optional
        A regular expression for paths, relative to the root, of the folders that are entered; by
        default all.
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
            If the root cannot be read.
        """
        self._closed = []
        root = os.path.realpath(self.root)
        visited: set[str] = set()
        folders, links = [("", root)], list[tuple[str, str]]()
        while folders or links:
            # Links are followed last, because their target may be found under its own path.
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
                    raise UserError(
                        f"The directory {self.root} cannot be read: {why}; check its permissions."
                    ) from None
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
        """A message on folders that could not be read, if any, after the walk."""
        if not self._closed:
            return []
        n, (place, why) = len(self._closed), self._closed[0]
        return [
            f"{n} folder{'s' if n > 1 else ''} in {self.root} cannot be read, so any scans in "
            f"{'them' if n > 1 else 'it'} are missing; the first is {place}: {why}."
        ]

    def nothing(self, sentence: str) -> UserError:
        """Return an error that no scan was found, with a note on folders that could not be read."""
        return UserError(" ".join([sentence, *self.warnings]))


def _is_above(folder: str, other: str) -> bool:
    return os.path.join(other, "").startswith(os.path.join(folder, ""))


def _printable(path: str) -> str:
    """Return a path as text; bytes that are not UTF-8 are written in hexadecimal."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")
