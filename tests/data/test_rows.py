"""Tables as users save them: encodings, separators, quotes, Excel, and missing values."""

from __future__ import annotations

import datetime
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from bench.data.adapters.reading import columns_of, read_table
from bench.data.adapters.wide import read_columns
from registry.errors import UserError

ROWS = [["eid", "site"], ["007", "Köln"], ["08", "x"]]


def found(file: Path) -> list[list[str]]:
    """Return a table after checking that all ways of reading it agree."""
    table = read_table(file)
    assert columns_of(file) == list(table.columns)
    pd.testing.assert_frame_equal(table, read_columns(file, lambda name: bool(name)))
    return [list(table.columns), *table.to_numpy().tolist()]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_text_may_have_any_usual_encoding(encoding: str, end: str, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes((end.join(";".join(row) for row in ROWS) + end).encode(encoding))
    assert found(file) == ROWS


@pytest.mark.parametrize("name", ["t.tsv", "t.tab", "t.txt", "t.csv"])
def test_tabs_separate_whatever_the_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("".join("\t".join(row) + "\n" for row in ROWS))
    assert found(tmp_path / name) == ROWS


def test_the_line_that_tells_excel_the_separator_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\neid;site,a\n007;x\n")
    assert found(tmp_path / "t.csv") == [["eid", "site,a"], ["007", "x"]]


@pytest.mark.parametrize("comma", ["\t", ","])
@pytest.mark.parametrize(
    "notes",
    [
        ["ok", '"movement', "ok", '"5 mm lesion', "ok"],
        ["ok", '"movement', "ok", 'lesion of 5"', "ok"],
        ["ok", "ok", '"', "ok", "ok"],
        ['"', "ok", '"', '"', "ok"],
        ['say "so"', "ok", "ok", "ok", '"'],
    ],
)
def test_a_lone_quote_swallows_no_row(notes: list[str], comma: str, tmp_path: Path) -> None:
    rows = [["eid", "note", "age"], *([f"0{n}", note, "60"] for n, note in enumerate(notes))]
    (tmp_path / "t.txt").write_text("".join(comma.join(row) + "\n" for row in rows))
    assert found(tmp_path / "t.txt") == rows


def test_quotes_that_are_meant_hold_separators_and_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"eid","note","age"\n"1","a, b\nc ""d""","60"\n2,"",61\n')
    assert found(tmp_path / "t.csv") == [
        ["eid", "note", "age"],
        ["1", 'a, b\nc "d"', "60"],
        ["2", "", "61"],
    ]


def test_text_and_numbers_of_excel_are_what_the_sheet_shows(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    rows = [
        ["id", "n", "x", "date", "time"],
        ["007", 7, 0.5, datetime.date(2012, 3, 1), datetime.datetime(2012, 3, 1, 9, 30)],
        ["7", None, 1, None, None],
    ]
    for row in rows:
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    (tmp_path / "named.csv").write_bytes((tmp_path / "t.xlsx").read_bytes())
    for name in ("t.xlsx", "named.csv"):
        assert read_table(tmp_path / name).to_dict("list") == {
            "id": ["007", "7"],
            "n": ["7", ""],
            "x": ["0.5", "1"],
            "date": ["2012-03-01", ""],
            "time": ["2012-03-01 09:30:00", ""],
        }


@pytest.mark.parametrize("suffix", ["csv", "xlsx", "parquet"])
def test_a_column_that_occurs_twice_is_refused(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"t.{suffix}"
    frame = pd.DataFrame([["1", "60", "61"]], columns=["eid", "age", "age "])
    getattr(frame, {"csv": "to_csv", "xlsx": "to_excel"}.get(suffix, "to_parquet"))(
        file, index=False
    )
    for read in (read_table, lambda file: read_columns(file, bool)):
        with pytest.raises(UserError, match=r"columns of the same name: 'age'; rename or remove"):
            read(file)


def test_columns_without_a_name_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",id,,\n0,1,,\n1,2,,\n")
    assert read_table(tmp_path / "t.csv").to_dict("list") == {"id": ["1", "2"]}


@pytest.mark.parametrize(
    "word", ["", "n/a", "NA", "NaN", "None", "<NA>", "#N/A", "NULL", "?", ".", "-", "Unknown"]
)
def test_what_people_and_programs_write_for_no_value_is_none(word: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"id,diagnosis\n1, {word} \n2,AD\n")
    assert found(tmp_path / "t.csv")[1:] == [["1", ""], ["2", "AD"]]
