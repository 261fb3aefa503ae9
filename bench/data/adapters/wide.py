"""Reading a few columns of a table with thousands of columns, without loading all of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow
from pyarrow import csv as arrow

from bench.data.adapters.reading import blanked, columns_of, read_table, refuse_twice
from bench.data.adapters.rows import TEXT, header_of, is_workbook, unquoted
from registry.errors import UserError

BLOCK = 1 << 24
"""Number of bytes of the table that are in memory at a time."""


def read_columns(file: Path, wanted: Callable[[str], bool]) -> pd.DataFrame:
    """Read selected columns of a table as text.

    Parameters
    ----------
    file : Path
        CSV, TSV, Parquet or Excel.
    wanted : callable
        Returns whether a column of a given name is read.

    Returns
    -------
    DataFrame of str
        The columns, with ``""`` if a value is missing; without columns if none is wanted.

    Raises
    ------
    UserError
        If the table cannot be read.
    """
    if file.suffix.lower() in TEXT and not is_workbook(file):
        return _stream(file, wanted)
    if file.suffix.lower() == ".parquet":
        names = [name for name in columns_of(file) if wanted(name)]
        return read_table(file, columns=names) if names else pd.DataFrame()
    table = read_table(file)
    return table[[name for name in table.columns if wanted(name)]]


def _stream(file: Path, wanted: Callable[[str], bool]) -> pd.DataFrame:
    columns, separator, encoding, header = header_of(file)
    names = {at: name.strip() for at, name in enumerate(columns) if wanted(name.strip())}
    if not names:
        return pd.DataFrame()
    refuse_twice(pd.Index(names.values()), file)

    def parse(encoding: str, *, quotes: bool) -> pd.DataFrame:
        """Read columns by their number, because names may contain spaces or occur twice."""
        texts = {str(at): pyarrow.string() for at in names}
        reader = arrow.open_csv(
            file,
            arrow.ReadOptions(
                block_size=BLOCK,
                skip_rows=header,
                column_names=[str(at) for at in range(len(columns))],
                encoding=encoding,
            ),
            arrow.ParseOptions(
                delimiter=separator,
                quote_char='"' if quotes else False,
                # Free text in quotes may contain line breaks.
                newlines_in_values=quotes,
            ),
            arrow.ConvertOptions(
                include_columns=list(texts), column_types=texts, strings_can_be_null=False
            ),
        )
        parts = [batch.to_pandas() for batch in reader]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(texts))

    likely = "utf8" if encoding.startswith("utf-8") else encoding
    first = ""
    # If each line has as many cells as the header, no quoted cell extends over several lines.
    for name, quotes in itertools.product((likely, "latin-1"), (False, True)):
        try:
            table = parse(name, quotes=quotes)
            break
        except pyarrow.ArrowInvalid as error:
            first = first or str(error).splitlines()[0]
        except UnicodeDecodeError as error:
            first = first or error.reason
    else:
        raise UserError(f"The table {file} cannot be read: {first}.")
    cells = {name: table[str(at)] for at, name in names.items()}
    if not quotes:
        cells = {name: texts.map(unquoted) for name, texts in cells.items()}
    return pd.DataFrame({name: blanked(texts) for name, texts in cells.items()})
