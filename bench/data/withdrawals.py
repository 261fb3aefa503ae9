"""Lists of withdrawn subjects as distributed: text or Excel, with or without a header."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.data.adapters.clinica import own_id
from bench.data.adapters.reading import listed, read_table
from bench.data.adapters.rows import rows_of
from registry.errors import UserError

ID_COLUMNS = frozenset(
    {
        *("id", "ids", "iid", "eid", "feid", "neid", "participanteid", "rid", "ptid", "oasisid"),
        *("subject", "subjects", "subjectid", "sub", "subid", "participant", "participantid"),
        *("participants", "ixiid", "patient", "patientid"),
    }
)
"""Names of columns with ids, in lower case without spaces and punctuation."""

_COHORT = re.compile(r"^(?:sub|ixi|aibl)[-_]?(?=\d)", re.IGNORECASE)
_SESSION = re.compile(r"_MR(?:_?d?\d+)?$")


def read_withdrawn(file: Path, subjects: Iterable[str]) -> tuple[set[str], str]:
    """Return the subjects that match a list, and a message on how many of its ids match.

    Ids may be written as in the cohort, with ``sub-``, as by Clinica's converters, as sessions, or
    without leading zeros if that is unambiguous.

    Parameters
    ----------
    file : Path
        Text in any common encoding and with any separator, or Excel; the ids may be in any column.
    subjects : iterable of str
        The subjects of the cohort.

    Raises
    ------
    UserError
        If the file does not exist, if no subject matches it, or if it is unclear which of its
        columns contains the ids.
    """
    if not file.is_file():
        raise UserError(f"The list of withdrawals {file} does not exist; check --withdrawals.")
    known = sorted(set(subjects))
    rows = _rows(file)
    names, bare = set(known), defaultdict(list)
    for name in known:
        bare[_bare(name)].append(name)
    meant = {cell: _meant(cell, names, bare) for row in rows for cell in row}
    ids = [cell for cell in _ids(rows, meant, file) if cell and not cell.startswith("#")]
    found = {meant[cell] for cell in ids} - {""}
    if not found:
        raise UserError(
            f"The list of withdrawals {file} matches none of the {len(known)} subjects: it has "
            f"{listed(ids, 3)}, while the cohort has {listed(known, 3)}. Check that the list "
            "belongs to this cohort, or omit --withdrawals if it concerns no subject here."
        )
    lost = [cell for cell in dict.fromkeys(ids) if not meant[cell]]
    message = f"{file.name} lists {len(set(ids))} withdrawn ids: {len(found)} match subjects"
    return found, message + (f", {len(lost)} match none ({listed(lost, 5)})." if lost else ".")


def _rows(file: Path) -> list[list[str]]:
    if file.suffix.lower() == ".parquet":
        table = read_table(file)
        return [list(table.columns), *table.to_numpy().tolist()]
    rows = [[cell.strip().strip("\"'") for cell in row] for row in rows_of(file)]
    if all(len(row) == 1 for row in rows):
        return [row[0].split() or [""] for row in rows]
    return rows


def _ids(rows: Sequence[Sequence[str]], meant: dict[str, str], file: Path) -> list[str]:
    """Return the cells that contain ids: those of one column, or those of a single row."""
    if len(rows) == 1:
        return list(rows[0])
    header = [re.sub(r"[^a-z]", "", cell.lower()) for cell in rows[0]] if rows else []
    columns = {}
    for at in range(max(map(len, rows), default=0)):
        column = [row[at] for row in rows if at < len(row)]
        headed = not meant[rows[0][at]] if at < len(rows[0]) else False
        # A first cell that has no digit and matches no subject is the name of the column.
        if headed and not re.search(r"\d", column[0]):
            column = column[1:]
        columns[at] = column
    named = [at for at in columns if at < len(header) and header[at] in ID_COLUMNS]
    matching = [at for at in columns if any(meant[cell] for cell in columns[at])]
    candidates = [at for at in matching if at in named] or matching or named or list(columns)[:1]
    people = [{meant[cell] for cell in columns[at]} - {""} for at in candidates]
    if any(one != people[0] for one in people):
        raise UserError(
            f"The list of withdrawals {file} has ids of different subjects in {len(candidates)} "
            "columns; keep only one column of ids."
        )
    return columns[candidates[0]] if candidates else []


def _meant(cell: str, names: set[str], bare: Mapping[str, Sequence[str]]) -> str:
    """Return the subject that matches an id, ``""`` if there is none."""
    plain = cell.removesuffix(".0")
    forms = [cell, plain, own_id(plain), _COHORT.sub("", plain), _SESSION.sub("", plain)]
    for form in forms:
        if form in names:
            return form
    for form in forms:
        alike = bare.get(_bare(form), ()) if form else ()
        if len(alike) == 1:
            return alike[0]
    return ""


def _bare(name: str) -> str:
    return name.lstrip("0") if name.isdecimal() else name.casefold()
