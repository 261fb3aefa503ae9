"""A few columns of a table that has thousands: a stream, never the whole."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from bench.data.adapters.reading import MISSING, columns_of, read_table
from registry.errors import UserError

BLOCK = 1 << 24
"""Bytes of the table in memory at a time."""


def header_of(file: Path) -> tuple[list[str], str]:
    """Return the columns of a text table and its separator.

    Raises
    ------
    UserError
        When the file is not text.
    """
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            line = stream.readline()
    except UnicodeDecodeError:
        raise UserError(f"The table {file} is not UTF-8 text; save it as UTF-8.") from None
    separator = max(",;\t", key=line.count)
    return next(csv.reader([line], delimiter=separator), []), separator


def read_columns(file: Path, wanted: Callable[[str], bool]) -> pd.DataFrame:
    """Read those columns of a table whose names are wanted, as text.

    Parameters
    ----------
    file : Path
        CSV, TSV, Parquet or Excel.
    wanted : callable
        Tells by its name whether a column is read.

    Returns
    -------
    DataFrame of str
        ``""`` where a value is missing; without columns when none is wanted.

    Raises
    ------
    UserError
        When the table cannot be read.
    """
    if file.suffix.lower() in (".csv", ".tsv", ".txt"):
        columns, separator = header_of(file)
        names = [name for name in columns if wanted(name)]
        return _stream(file, names, separator) if names else pd.DataFrame()
    if file.suffix.lower() == ".parquet":
        names = [name for name in columns_of(file) if wanted(name)]
        return read_table(file, columns=names) if names else pd.DataFrame()
    table = read_table(file)
    return table[[name for name in table.columns if wanted(name)]]


def _stream(file: Path, names: list[str], separator: str) -> pd.DataFrame:
    import pyarrow
    from pyarrow import csv as arrow

    try:
        reader = arrow.open_csv(
            file,
            read_options=arrow.ReadOptions(block_size=BLOCK),
            # Free text fields have line breaks within quotes.
            parse_options=arrow.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=arrow.ConvertOptions(
                include_columns=names,
                column_types=dict.fromkeys(names, pyarrow.string()),
                strings_can_be_null=False,
            ),
        )
        parts = [batch.to_pandas() for batch in reader]
    except pyarrow.ArrowInvalid as error:
        first = str(error).splitlines()[0]
        raise UserError(f"The table {file} cannot be read: {first}.") from None
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)
    for name in names:
        cells = table[name].str.strip()
        table[name] = cells.where(~cells.str.lower().isin(MISSING), "")
    return table
