"""Any table with one row a scan: a column of paths and columns of labels, named by options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bench.data.adapters.reading import (
    listed,
    parse_ages,
    parse_sexes,
    read_table,
    space_of,
)
from registry.cards import Value
from registry.errors import UserError

NO_PATH = "no path in the table"

DEFAULTS = {"subject": "subject_id", "session": "session_id"}
"""Columns that are not called as their options are."""


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the scans of a table.

    Parameters
    ----------
    root : Path
        What relative paths are relative to.
    options : mapping
        ``table`` is the file; ``path``, ``subject``, ``session``, ``age``, ``diagnosis``, ``sex``,
        ``site``, ``family`` and ``split`` name its columns.

    Returns
    -------
    DataFrame
        As `bench.data.adapters.bids.manifest`; paths outside the root are absolute.

    Raises
    ------
    UserError
        When there is no table, or it lacks the column of paths or subjects or one that was named.
    """
    file = Path(str(options.get("table", ""))).expanduser()
    if not str(options.get("table", "")):
        raise UserError("The dataset `table` needs a table: --table FILE.")
    if not file.is_file():
        raise UserError(f"The table {file} does not exist.")
    rows = read_table(file)

    def get(option: str, *, needed: bool = False) -> pd.Series | None:
        default = DEFAULTS.get(option, option)
        name = str(options.get(option, default))
        if name in rows.columns:
            return rows[name]
        if name in (default, "") and not needed:
            return None
        raise UserError(
            f"{file} has no column {name!r}; it has {listed(rows.columns)}: say which one it is "
            f"with --data-set {option}=COLUMN."
        )

    path, subject, session = get("path", needed=True), get("subject", needed=True), get("session")
    assert path is not None
    assert subject is not None
    scans = pd.DataFrame(
        {
            "subject_id": subject,
            "session_id": "" if session is None else session,
            "path": path.map(lambda text: _relative(text, root)),
            "space": path.map(lambda text: space_of(Path(text).name)),
            "reason": path.map(lambda text: "" if text else NO_PATH),
        }
    )
    nobody = scans["subject_id"] == ""
    if nobody.any():
        raise UserError(
            f"{file} has {int(nobody.sum())} rows without a subject; every scan needs one, or "
            "scans of one person could end up on both sides of the split."
        )
    for option in ("age", "diagnosis", "sex", "site", "family", "split"):
        texts = get(option)
        if texts is not None:
            parse = {"age": parse_ages, "sex": parse_sexes}.get(option)
            scans[option] = texts if parse is None else parse(texts, file)
            if option in ("age", "diagnosis"):
                scans["source"] = f"{file.name} {texts.name} '" + texts + "'"
    scans.attrs["columns"] = list(rows.columns)
    return scans


def _relative(path: str, root: Path) -> str:
    """Return a path relative to the root where it lies below it, so that the root may move."""
    file = Path(path).expanduser()
    base = root.absolute()
    return (file.relative_to(base) if file.is_relative_to(base) else file).as_posix()
