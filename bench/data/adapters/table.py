"""Tables with one row per scan: a column of paths and columns of labels, named by options."""

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
"""Default names of columns that differ from the names of their options."""


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the scans of a table.

    Parameters
    ----------
    root : Path
        The directory to which relative paths refer.
    options : mapping
        ``table`` is the file; ``path``, ``subject``, ``session``, ``age``, ``diagnosis``, ``sex``,
        ``site``, ``family`` and ``split`` are the names of its columns.

    Returns
    -------
    DataFrame
        As `bench.data.adapters.bids.manifest`; paths outside the root are absolute.

    Raises
    ------
    UserError
        If there is no table, or if it lacks the column of paths or subjects, or a named one.
    """
    file = Path(str(options.get("table", ""))).expanduser()
    if not str(options.get("table", "")):
        raise UserError("The dataset `table` needs a table; name it with --table FILE.")
    if not file.is_file():
        raise UserError(f"The table {file} does not exist; check --table.")
    rows = read_table(file)

    def get(option: str, *, needed: bool = False) -> pd.Series | None:
        default = DEFAULTS.get(option, option)
        name = str(options.get(option, default))
        if name in rows.columns:
            return rows[name]
        if name in (default, "") and not needed:
            return None
        raise UserError(
            f"{file} has no column {name!r}; name the right one with --data-set {option}=COLUMN. "
            f"The columns are {listed(rows.columns)}."
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
    unassigned = scans["subject_id"] == ""
    if unassigned.any():
        raise UserError(
            f"{file} has {int(unassigned.sum())} rows without a subject. All scans need one, as "
            "all scans of a subject must be in the same set; add the ids to the table."
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
    """Return a path relative to the root if it is inside, so that the root may be moved."""
    file = Path(path).expanduser()
    base = root.absolute()
    return (file.relative_to(base) if file.is_relative_to(base) else file).as_posix()
