"""Reading tables as people save them: ids stay text, what is missing is empty, codes are named."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from registry.errors import UserError

MISSING = frozenset({"", "n/a", "na", "nan", "null"})
"""What counts as no value, in any case."""

OLDEST = 130.0

_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
_OTHER_SEXES = {"o", "other"}
_MNI = re.compile(r"(^|_)space-MNI[A-Za-z0-9]*([_.]|$)")


def read_table(file: Path) -> pd.DataFrame:
    """Read a CSV, TSV or Parquet file as text.

    Parameters
    ----------
    file : Path
        Its name ends in ``.csv`` (comma, semicolon or tab), ``.tsv`` or ``.parquet``.

    Returns
    -------
    DataFrame of str
        Stripped cells, ``""`` where a value is missing.

    Raises
    ------
    UserError
        When it cannot be read; the sentence says why.
    """
    suffix = file.suffix.lower()
    try:
        if suffix == ".parquet":
            table = _read_parquet(file)
        elif suffix in (".csv", ".tsv", ".txt"):
            table = _read_text(file, "\t" if suffix == ".tsv" else None)
        else:
            raise UserError(f"The table {file} is none of .csv, .tsv and .parquet.")
    except UnicodeDecodeError:
        raise UserError(f"The table {file} is not UTF-8 text; save it as UTF-8.") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise UserError(f"The table {file} cannot be read: {error}.") from None
    except OSError as error:
        raise UserError(f"The table {file} cannot be read: {error.strerror or error}.") from None
    table.columns = [str(name).strip() for name in table.columns]
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()].unique()
        raise UserError(f"The table {file} has columns of one name: {listed(twice)}.")
    for name in table.columns:
        cells = table[name].fillna("").str.strip()
        table[name] = cells.where(~cells.str.lower().isin(MISSING), "")
    return table


def _read_text(file: Path, separator: str | None) -> pd.DataFrame:
    if separator is None:
        with open(file, encoding="utf-8-sig") as stream:
            header = stream.readline()
        separator = max(",;\t", key=header.count)
    with warnings.catch_warnings():
        # Rows longer than the header would be cut, or their first cell taken for an index.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            file,
            sep=separator,
            dtype=str,
            keep_default_na=False,
            index_col=False,
            encoding="utf-8-sig",
        )


def _read_parquet(file: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(file)
    except ImportError:
        raise UserError(
            f"Reading {file} needs pyarrow: `pip install pyarrow`, or save the table as CSV."
        ) from None
    except ValueError as error:
        raise UserError(f"The table {file} is not a Parquet file: {error}.") from None
    text = {}
    for name in table.columns:
        column = table[name]
        # A column of whole numbers with gaps is stored as floats: 7.0 is the id 7.
        if column.dtype.kind == "f" and (column.dropna() % 1 == 0).all():
            column = column.astype("Int64")
        text[name] = column.astype("string").fillna("").astype(str)
    return pd.DataFrame(text)


def parse_ages(texts: pd.Series, file: Path) -> pd.Series:
    """Return ages in years: ``89+`` is 89, a comma may be the decimal sign, empty is NaN.

    Raises
    ------
    UserError
        When a value is no age between 0 and 130; the sentence lists such values.
    """
    plain = texts.str.removesuffix("+").str.strip().str.replace(",", ".", regex=False)
    ages = pd.to_numeric(plain, errors="coerce").astype(float)
    wrong = (texts != "") & ~ages.between(0, OLDEST)
    if wrong.any():
        raise UserError(
            f"{file} has values in the column {texts.name!r} that are no ages in years: "
            f"{listed(texts[wrong].unique())}; write n/a where the age is unknown."
        )
    return ages


def parse_sexes(texts: pd.Series, file: Path) -> pd.Series:
    """Return F or M, empty for other and unknown.

    Raises
    ------
    UserError
        When a value is neither; numbers are never guessed, cohorts code them both ways.
    """
    lower = texts.str.lower()
    wrong = ~lower.isin([*_SEXES, *_OTHER_SEXES, ""])
    if wrong.any():
        raise UserError(
            f"{file} has values in the column {texts.name!r} that do not say F or M: "
            f"{listed(texts[wrong].unique())}; rewrite them, or use `--data-set sex=` to do "
            "without."
        )
    return lower.map(_SEXES).fillna("").astype(str)


def space_of(file_name: str) -> str:
    """Return ``"mni"`` when a file's name has a ``space-MNI*`` entity, else ``"unknown"``."""
    return "mni" if _MNI.search(file_name) else "unknown"


def listed(values: Iterable[str], most: int = 12) -> str:
    """Return values as words, at most so many."""
    names = [repr(str(value)) for value in values]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
