"""Reading the cells of tables: Excel, and text with any common encoding, separator and quoting."""

from __future__ import annotations

import codecs
import csv
import datetime
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from registry.errors import UserError

TABBED = (".tsv", ".tab")
TEXT = (".csv", ".txt", *TABBED)
EXCEL = (".xls", ".xlsx")

BLOCK = 1 << 22
"""Number of bytes that contain the header of most tables."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks of encodings. The order matters, because one is the beginning of another."""

_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of Excel files, whatever their names."""


def rows_of(file: Path) -> list[list[str]]:
    """Return all rows of a table that are not empty, as text, beginning with the header.

    Of an Excel file, the first sheet is read: text keeps leading zeros, integers have no decimal
    point, and dates have no time unless it differs from midnight. In text files, an unmatched
    quote is an ordinary character.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"The table {file} cannot be read: {error.strerror or error}.") from None
    if file.suffix.lower() in EXCEL or raw.startswith(_WORKBOOKS):
        return list(_sheet(file))
    lines, separator, _, _ = _lines(raw, file)
    return [row for row in _records(lines, separator, file) if any(map(str.strip, row))]


def header_of(file: Path) -> tuple[list[str], str, str, int]:
    """Return the columns of a text table, its separator, its encoding, and its header length.

    Only the beginning of the file is read. The length is the number of lines before the data.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    try:
        with open(file, "rb") as stream:
            raw = stream.read(BLOCK)
            while not set(b"\r\n") & set(raw) and (more := stream.read(BLOCK)):
                raw += more
            whole = not stream.read(1)
    except OSError as error:
        raise UserError(f"The table {file} cannot be read: {error.strerror or error}.") from None
    lines, separator, encoding, before = _lines(raw, file, whole=whole)
    names = next(_records(lines[:1], separator, file)) if lines else []
    return names, separator, encoding, before + 1


def is_workbook(file: Path) -> bool:
    """Tell whether a file is an Excel file, by its name or its first bytes."""
    if file.suffix.lower() in EXCEL:
        return True
    try:
        with open(file, "rb") as stream:
            return stream.read(4).startswith(_WORKBOOKS)
    except OSError:
        return False


def _encoding(raw: bytes, file: Path, *, whole: bool) -> str:
    """Return the encoding of a text; `raw` is all of it if `whole`, otherwise its beginning."""
    for mark, name in _MARKS.items():
        if raw.startswith(mark):
            return name
    if 0 in raw:
        even, odd = raw[::2].count(0), raw[1::2].count(0)
        if max(even, odd) < len(raw) / 8:
            raise UserError(
                f"The table {file} is not a text file, although its name ends in {file.suffix}; "
                "save it as CSV or rename it."
            )
        return "utf-16-le" if odd > even else "utf-16-be"
    # Text that is not UTF-8 was most likely saved on Windows; latin-1 can decode any bytes.
    for name in ("utf-8", "cp1252"):
        try:
            codecs.getincrementaldecoder(name)().decode(raw, final=whole)
        except UnicodeDecodeError:
            continue
        return name
    return "latin-1"


def _lines(raw: bytes, file: Path, *, whole: bool = True) -> tuple[list[str], str, str, int]:
    """Return the lines from the header on, separator, encoding, and number of lines before it."""
    encoding = _encoding(raw, file, whole=whole)
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(raw, final=whole)
    except UnicodeDecodeError:
        raise UserError(
            f"The table {file} is damaged: it begins as {encoding} text but cannot be decoded; "
            "save it again."
        ) from None
    lines = [line.rstrip("\n") for line in io.StringIO(text, newline=None)]
    hint = lines[0].lower() if lines else ""
    if len(hint) == 5 and hint.startswith("sep="):
        # A first line such as "sep=;" tells Excel the separator and is not the header.
        return lines[1:], hint[4], encoding, 1
    before = next((n for n, line in enumerate(lines) if line.strip()), len(lines))
    header = lines[before] if before < len(lines) else ""
    separator = "\t" if file.suffix.lower() in TABBED else max(",;\t", key=header.count)
    return lines[before:], separator, encoding, before


def _records(lines: Sequence[str], separator: str, file: Path) -> Iterator[list[str]]:
    try:
        records = [row for row, _ in _strictly(lines, separator)]
    except csv.Error:
        records = []
    # With as many records as lines, no cell contains a line break, so all quotes are matched.
    if len(records) == len(lines):
        yield from records
        return
    width, at = len(lines[0].split(separator)), 0
    while at < len(lines):
        plain = lines[at].split(separator)
        try:
            row, used = next(_strictly(lines, separator, at))
        except csv.Error as error:
            if len(plain) != width:
                raise UserError(
                    f"The table {file} cannot be read: a quote that is opened in line {at + 1} is "
                    f"not closed ({error})."
                ) from None
            row, used = [unquoted(cell) for cell in plain], 1
        if used > 1 and all(len(line.split(separator)) == width for line in lines[at : at + used]):
            # All lines within the quotes are complete rows, so the quote is an ordinary character.
            row, used = [unquoted(cell) for cell in plain], 1
        yield row
        at += used


def _strictly(
    lines: Sequence[str], separator: str, start: int = 0
) -> Iterator[tuple[list[str], int]]:
    """Yield rows with the number of lines read so far; csv.Error if the text is not valid CSV."""
    rest = (lines[at] + "\n" for at in range(start, len(lines)))
    reader = csv.reader(rest, delimiter=separator, strict=True)
    for row in reader:
        yield row, reader.line_num


def unquoted(cell: str) -> str:
    """Return a cell without the quotes around it."""
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if whole else cell


def _sheet(file: Path) -> Iterator[list[str]]:
    import python_calamine

    try:
        book = python_calamine.CalamineWorkbook.from_path(file)
        rows = book.get_sheet_by_index(0).to_python()
    except (python_calamine.CalamineError, OSError, ValueError, IndexError) as error:
        raise UserError(f"The table {file} is not an Excel file: {error}.") from None
    for row in rows:
        cells = [_text(cell) for cell in row]
        if any(cells):
            yield cells


def _text(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime):
        return cell.isoformat(" ") if cell.time() != datetime.time() else str(cell.date())
    return str(cell)
