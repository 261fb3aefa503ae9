"""Reading tables as users save them: ids stay text, and missing values become empty."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from bench.data.adapters.rows import EXCEL, TEXT, header_of, is_workbook, rows_of
from bench.data.adapters.walk import is_hidden, natural
from registry.cards import Value
from registry.core import did_you_mean
from registry.errors import UserError

SUFFIXES = (*TEXT, ".parquet", *EXCEL)
"""Suffixes of tables."""

MISSING = frozenset(
    {
        *("", "n/a", "na", "n.a.", "nan", "-nan", "<na>", "nat", "null", "nil", "none", "missing"),
        *("not available", "unknown", "unk", "?", "-", "--", "."),
        *("#n/a", "#n/a n/a", "#na", "#null!", "#div/0!", "#value!", "#ref!", "#name?", "#num!"),
    }
)
"""Representations of missing values by users, pandas, R and Excel, in lower case."""

OLDEST = 130.0
"""Largest valid age in years."""

_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
_OTHER_SEXES = {"o", "other", "u", "x"}
_MNI = re.compile(r"(^|_)space-MNI[A-Za-z0-9]*([_.]|$)")


def tables_of(root: Path, options: Mapping[str, Value]) -> list[Path]:
    """Return the tables of a cohort: those that were named, then those in its root.

    Parameters
    ----------
    root : Path
        The root directory of the cohort; tables in its subdirectories must be named.
    options : mapping
        ``table`` has one file per line.

    Raises
    ------
    UserError
        If a named table does not exist or cannot be read.
    """
    named = [Path(line).expanduser() for line in str(options["table"]).splitlines() if line]
    for file in named:
        if not file.is_file():
            raise UserError(f"The table {file} does not exist; check --table.")
        columns_of(file)  # raises if a named table cannot be read; other tables may be unreadable
    found = sorted(
        (file for file in root.iterdir() if file.suffix.lower() in SUFFIXES),
        key=lambda file: natural(file.name),
    )
    found = [file for file in found if not is_hidden(file.name) and os.path.isfile(file)]
    known = {file.resolve() for file in named}
    return named + [file for file in found if file.resolve() not in known]


def find_table(
    tables: Sequence[Path], marks: Sequence[str], wanted: Sequence[str] = ()
) -> tuple[Path, pd.DataFrame] | None:
    """Return the first table that has certain columns, whatever its file name.

    Case, spaces and punctuation in the names of columns are ignored (``Image Data ID`` is the same
    as ``Image.Data.ID``). In the returned table, the columns in `marks` and `wanted` have the
    names given here.

    Parameters
    ----------
    tables : sequence of Path
        The tables to search, in order.
    marks : sequence of str
        Columns that identify the table.
    wanted : sequence of str
        Optional columns.
    """
    for file in tables:
        if {_plain(name) for name in marks} <= {_plain(name) for name in readable_columns(file)}:
            table = read_table(file)
            spelled = {_plain(name): name for name in (*marks, *wanted)}
            names = {name: spelled.get(_plain(name), name) for name in table.columns}
            table = table.rename(columns=names)
            refuse_twice(table.columns, file)
            return file, table
    return None


def need_table(
    tables: Sequence[Path], marks: Sequence[str], wanted: Sequence[str], what: str, root: Path
) -> tuple[Path, pd.DataFrame]:
    """Return the result of `find_table`, or raise an error.

    Raises
    ------
    UserError
        If there is none; the message says which columns are missing in the closest table.
    """
    found = find_table(tables, marks, wanted)
    if found is not None:
        return found
    nearest, fewest = "", len(marks)
    for file in tables:
        columns = readable_columns(file)
        have = {_plain(name) for name in columns}
        lacking = [name for name in marks if _plain(name) not in have]
        if len(lacking) < fewest:
            fewest = len(lacking)
            nearest = (
                f" {file.name} has no column {listed(lacking)}"
                f"{did_you_mean(lacking[0], columns)}; its columns are {listed(columns)}."
            )
    looked = listed(file.name for file in tables)
    raise UserError(
        f"{what} is needed, but no table has its columns {listed(marks)}; name it with --table "
        f"FILE. Tables found in {root} and at --table: {looked}.{nearest}"
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def readable_columns(file: Path) -> list[str]:
    """Return the result of `columns_of`, or an empty list if the table cannot be read."""
    try:
        return columns_of(file)
    except UserError:
        return []


def columns_of(file: Path) -> list[str]:
    """Return the names of a table's columns, without reading its rows if the format allows it."""
    if file.suffix.lower() in TEXT and not is_workbook(file):
        return [name.strip() for name in header_of(file)[0] if name.strip()]
    if file.suffix.lower() == ".parquet":
        import pyarrow.parquet

        try:
            return [str(name).strip() for name in pyarrow.parquet.read_schema(file).names]
        except (pyarrow.ArrowInvalid, OSError):
            return []
    return list(read_table(file).columns)


def by_id(table: pd.DataFrame, key: str, columns: Sequence[str], file: Path) -> pd.DataFrame:
    """Return columns of a table, indexed by its ids.

    Raises
    ------
    UserError
        If two rows of an id differ.
    """
    rows = table.loc[table[key] != "", [key, *columns]].drop_duplicates()
    again = rows[key].duplicated()
    if again.any():
        raise UserError(
            f"{file} has contradictory rows for {listed(rows.loc[again, key].unique())}; keep one "
            "row for each."
        )
    return rows.set_index(key)


def restore_zeros(ids: pd.Series, known: Iterable[str]) -> pd.Series:
    """Return the ids of a table with leading zeros that a spreadsheet program removed.

    A numeric id that is unknown, but differs from exactly one known id only by leading zeros, is
    replaced by it, unless two ids of the table would then be equal.
    """
    names = set(known)
    full: dict[str, list[str]] = {}
    for name in sorted(names):
        full.setdefault(name.lstrip("0") if name.isdecimal() else name, []).append(name)

    def restored(text: str) -> str:
        meant = full.get(text.lstrip("0"), []) if text.isdecimal() and text not in names else []
        return meant[0] if len(meant) == 1 else text

    pairs = pd.DataFrame({"text": ids, "meant": ids.map(restored)})
    once = ~pairs.drop_duplicates()["meant"].duplicated(keep=False)
    unique = set(pairs.drop_duplicates()[once]["meant"])
    return pairs["meant"].where(pairs["meant"].isin(unique), ids)


def refuse_disjoint(images: Iterable[str], rows: Iterable[str], root: Path, table: str) -> None:
    """Raise UserError, with examples of ids, if no subject with images is in the table."""
    with_images, in_table = sorted(set(images)), sorted(set(rows))
    if set(with_images).isdisjoint(in_table):
        raise UserError(
            f"None of the {len(with_images)} subjects with images in {root} is among the "
            f"{len(in_table)} subjects of {table}: the images have ids such as "
            f"{listed(with_images[:2])}, the table such as {listed(in_table[:2])}. Check that both "
            "belong to the same cohort and use the same ids."
        )


def read_table(file: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a CSV, TSV, Parquet or Excel file as text.

    Parameters
    ----------
    file : Path
        Its name ends in ``.csv`` or ``.txt`` (comma, semicolon or tab), ``.tsv`` or ``.tab``,
        ``.parquet``, ``.xls`` or ``.xlsx`` (the first sheet).
    columns : sequence of str, optional
        Columns to read from a Parquet file; by default all.

    Returns
    -------
    DataFrame of str
        Stripped cells, ``""`` if a value is missing; columns without a name are omitted.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"The format of the table {file} is not supported; save it as one of "
            f"{', '.join(SUFFIXES)}."
        )
    table = _read_parquet(file, columns) if suffix == ".parquet" else _read_rows(file)
    refuse_twice(table.columns, file)
    return pd.DataFrame({name: blanked(table[name]) for name in table.columns})


def blanked(texts: pd.Series) -> pd.Series:
    """Return stripped cells, with ``""`` for all representations of missing values."""
    cells = texts.fillna("").astype(str).str.strip()
    return cells.where(~cells.str.lower().isin(MISSING), "")


def refuse_twice(columns: pd.Index, file: Path) -> None:
    """Raise UserError if two columns have the same name."""
    if not columns.is_unique:
        twice = columns[columns.duplicated()].unique()
        raise UserError(
            f"The table {file} has several columns of the same name: {listed(twice)}; rename or "
            "remove all but one."
        )


def _read_rows(file: Path) -> pd.DataFrame:
    rows = rows_of(file)
    if not rows:
        raise UserError(f"The table {file} cannot be read: it is empty.")
    names = [name.strip() for name in rows[0]]
    for row in rows[1:]:
        if any(cell.strip() for cell in row[len(names) :]):
            raise UserError(
                f"The table {file} cannot be read: the row that begins with {listed(row[:2])} has "
                f"{len(row)} cells, but there are {len(names)} columns."
            )
    width = range(len(names))
    cells = [[row[at] if at < len(row) else "" for at in width] for row in rows[1:]]
    table = pd.DataFrame(cells, columns=names, dtype=str)
    return table.loc[:, [name != "" for name in names]]


def _read_parquet(file: Path, columns: list[str] | None) -> pd.DataFrame:
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(file).names
        if columns is not None:
            names = [name for name in names if name.strip() in columns]
        table = _as_text(pd.read_parquet(file, columns=names))
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"The table {file} is not a Parquet file: {error}.") from None
    table.columns = table.columns.str.strip()
    return table


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return typed columns as text: integers without decimal point, dates without time."""
    text = {}
    for name in table.columns:
        column = table[name]
        # Integers with missing values are stored as floats, so that 7.0 may be the id 7.
        if column.dtype.kind == "f" and (column.dropna() % 1 == 0).all():
            column = column.astype("Int64")
        if column.dtype.kind == "M":
            column = column.dt.strftime("%Y-%m-%d")
        text[str(name)] = column.astype("string").fillna("").astype(str)
    return pd.DataFrame(text)


def parse_ages(texts: pd.Series, file: Path) -> pd.Series:
    """Return ages in years: ``89+`` is 89, a decimal comma is allowed, empty is NaN.

    Raises
    ------
    UserError
        If a value is not an age between 0 and 130; the message lists such values.
    """
    plain = texts.str.removesuffix("+").str.strip().str.replace(",", ".", regex=False)
    ages = pd.to_numeric(plain, errors="coerce").astype(float)
    wrong = (texts != "") & ~ages.between(0, OLDEST)
    if wrong.any():
        raise UserError(
            f"{file} has values in the column {texts.name!r} that are not ages in years: "
            f"{listed(texts[wrong].unique())}; use n/a for unknown ages."
        )
    return ages


def parse_sexes(texts: pd.Series, file: Path, codes: Mapping[str, str] | None = None) -> pd.Series:
    """Return F or M, or an empty string for other and unknown values.

    Parameters
    ----------
    texts : Series of str
        Words or codes.
    file : Path
        The table that contains them, for the error message.
    codes : mapping, optional
        The meaning of numbers in this cohort (``{"1": "M", "2": "F"}``).

    Raises
    ------
    UserError
        If the meaning of a value is unknown. The meaning of numbers is never guessed, because it
        differs between cohorts.
    """
    codes = {**_SEXES, **(codes or {})}
    lower = texts.str.lower().str.removesuffix(".0")
    wrong = ~lower.isin([*codes, *_OTHER_SEXES, ""])
    if wrong.any():
        raise UserError(
            f"{file} has values in the column {texts.name!r} that do not mean F or M: "
            f"{listed(texts[wrong].unique())}; replace them by F, M or n/a."
        )
    return lower.map(codes).fillna("").astype(str)


def space_of(file_name: str) -> str:
    """Return ``"mni"`` if a file name contains a ``space-MNI*`` entity, else ``"unknown"``."""
    return "mni" if _MNI.search(file_name) else "unknown"


def listed(values: Iterable[str], most: int = 12) -> str:
    """Return values as a comma-separated list for messages, shortened after `most` values."""
    names = [repr(str(value)) for value in values]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
