import csv
import io
import json
import re
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.render import FORMATS, render
from bench.report.render.latex import escape as latex_escape
from bench.report.render.markdown import escape as markdown_escape
from bench.report.render.terminal import to_terminal
from bench.report.table import Cell, Column, Report, Section, Table
from bench.report.tables import build_report
from bench.report.words import interval, number, one_line, p_value

WILD = r"a&b%c_d{e}~f^g\h|i$j#k<l>m`n*o[p](q)é±≥×中😀"


@pytest.fixture
def report(bench):
    bench.cohort()
    arms = [bench.arm(name) for name in ("good", "fair")]
    command = bench.grid([*arms], sizes=(24, 48))
    odd = bench.arm(WILD)
    bench.ask(*arms, odd, sizes=(24, 48))
    bench.run(command, odd, 48, 0, error=9)
    bench.run(command, odd, 48, 1, failed="loss <nan> at 100% & more | _x_")
    return build_report(bench.store, metric="all")


def made(*rows, columns=("model", "value"), lead=1):
    """Return a report of one table of plain texts, numbers in all but the first column."""
    heads = tuple(Column(f"c{i}", name, numeric=i > 0) for i, name in enumerate(columns))
    body = tuple(tuple(Cell(text) for text in row) for row in rows)
    table = Table("t", "T", heads, body, lead=lead)
    return Report("R", (Section("S", (table,)),))


# ------------------------------------------------------------------ all formats


@pytest.mark.parametrize("format_", FORMATS)
def test_every_cell_is_in_every_format(report, format_):
    text = render(report, format_)
    assert text.endswith("\n")
    plain = " ".join(text.split())
    for table in report.tables:
        if table.name == "failures":
            continue
        for row in table.rows:
            for cell in row[1:]:
                for word in cell.text.split():
                    wanted = {
                        "latex": latex_escape(word),
                        "markdown": markdown_escape(word),
                    }.get(format_, word)
                    assert wanted in plain, (table.name, cell.text)


def test_csv_and_json_hold_the_same_numbers_at_full_precision(report):
    lines = list(csv.DictReader(io.StringIO(render(report, "csv"))))
    tidy = {(r["table"], r["row"], r["column"], r["field"]): r["value"] for r in lines}
    assert len(tidy) == len(lines)
    content = json.loads(render(report, "json"))
    tables = [table for section in content["sections"] for table in section["tables"]]
    assert [table["name"] for table in tables] == [table.name for table in report.tables]
    seen = 0
    for table, source in zip(tables, report.tables, strict=True):
        for number_, (row, cells) in enumerate(zip(table["rows"], source.rows, strict=True), 1):
            for column, cell in zip(source.columns, cells, strict=True):
                assert row[column.key]["text"] == cell.text
                assert row[column.key]["bold"] == cell.bold
                for field, value in row[column.key]["values"].items():
                    written = tidy[table["name"], str(number_), column.key, field]
                    if value is None:
                        assert written == ""
                        assert cell.values[field] != cell.values[field]
                    else:
                        assert written == str(value)
                        assert value == cell.values[field]
                    seen += 1
    assert seen > 300


def test_what_is_undefined_is_null_and_not_nan(report):
    text = render(report, "json")
    assert "NaN" not in text
    assert "Infinity" not in text
    assert "null" in text


def test_bold_is_shown_in_every_format(report):
    best = report.tables[0].rows[0][1]
    assert best.bold
    assert f"**{markdown_escape(best.text)}**" in render(report, "markdown")
    assert rf"\textbf{{{latex_escape(best.text)}}}" in render(report, "latex")
    assert f"{best.text} *" in render(report, "terminal")
    assert f"\x1b[1;32m{best.text}" in to_terminal(report, styled=True, width=200)


def test_names_and_notes_are_never_taken_for_markup(report):
    rows = json.loads(render(report, "json"))["sections"][0]["tables"][0]["rows"]
    assert rows[2]["arm"]["text"] == WILD
    # Rich markup and LaTeX would swallow the brackets and the percent sign.
    text = "".join(render(report, "terminal").split())
    assert WILD[:8] in text
    assert latex_escape(WILD) in render(report, "latex")
    assert markdown_escape(WILD) in render(report, "markdown")


def test_no_format_needs_torch():
    code = (
        "import sys\n"
        "import bench.report.tables, bench.report.status, bench.report.render\n"
        "print([m for m in ('torch', 'timm', 'optuna', 'matplotlib') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# ------------------------------------------------------------------ markdown


@given(st.text(max_size=30))
def test_a_markdown_table_has_the_same_cells_whatever_the_name(name):
    lines = render(made((one_line(name), "1")), "markdown").splitlines()
    row = lines[-1]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3


@pytest.mark.parametrize("text", ["a|b", "*x*", "_x_", "`x`", "<b>", "[a](b)", "&lt;", "$x$", "~~"])
def test_markdown_is_escaped(text):
    assert markdown_escape(text) != text


def test_numbers_stay_readable_in_markdown():
    assert markdown_escape("5.31 [4.90, 5.72] n=5 (< 0.001)") == "5.31 [4.90, 5.72] n=5 (< 0.001)"


# ------------------------------------------------------------------ terminal


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_narrow_terminal_cuts_nothing(report, width):
    text = to_terminal(report, width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for cell in (row[i] for row in report.tables[0].rows[:2] for i in (1, 2)):
        assert cell.text in text


def test_a_table_that_fits_is_one_block():
    text = to_terminal(made(("a", "1"), ("b", "2")), width=80)
    assert "continued" not in text


def test_rows_keep_their_name_in_every_block():
    rows = [("alpha", *["1.234 [1.000, 2.000] n=5"] * 4), ("beta", *["9.9"] * 4)]
    found = made(*rows, columns=("model", "a", "b", "c", "d"))
    text = to_terminal(found, width=70)
    blocks = text.count("continued") + 1
    assert blocks > 1
    assert text.count("alpha") == text.count("beta") == blocks
    assert text.count("1.234 [1.000, 2.000] n=5") == 4


# ------------------------------------------------------------------ latex


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a&b", r"a\&b"),
        ("50 %", r"50 \%"),
        ("a_b", r"a\_b"),
        ("{x}", r"\{x\}"),
        ("~", r"\textasciitilde{}"),
        ("^", r"\textasciicircum{}"),
        ("\\", r"\textbackslash{}"),
        ("±", r"\ensuremath{\pm}"),
        ("≥", r"\ensuremath{\geq}"),
        ("[-0.30, 2.61]", r"{[}\ensuremath{-}0.30, 2.61{]}"),
        ("slice2d-own", "slice2d-own"),
        ("--where", "-{}-where"),
        ("中", r"\texttt{U+4E2D}"),
    ],
)
def test_latex_is_escaped(text, wanted):
    assert latex_escape(text) == wanted


def test_a_long_table_goes_on_on_the_next_page_under_its_own_label():
    text = render(made(*[(f"m{i}", "1") for i in range(60)]), "latex")
    assert re.findall(r"\\label\{(.*?)\}", text) == ["tab:t", "tab:t-2", "tab:t-3"]
    assert text.count(r"(continued)") == 2
    assert all(f"m{i} &" in text for i in range(60))


def pdf(text, folder):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    (folder / "report.tex").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def test_latex_compiles_as_it_is_and_nothing_is_cut_off(report, tmp_path):
    log = pdf(render(report, "latex"), tmp_path)
    assert (tmp_path / "report.pdf").stat().st_size > 1000
    assert not re.search(r"Overfull \\hbox \((?:[1-9]\d+|[3-9])\.\d+pt", log)


def test_latex_compiles_with_every_character_that_could_be_in_a_name(tmp_path):
    characters = [chr(i) for i in [*range(32, 127), *range(160, 592), *range(913, 970)]]
    rows = [("x" + "".join(characters[i : i + 8]) + "x", "1") for i in range(0, len(characters), 8)]
    rows += [(c, "1") for c in "[*]-–—…†→≤≥±×−²" + WILD]
    pdf(render(made(*rows), "latex"), tmp_path)


# ------------------------------------------------------------------ words


def test_numbers_are_worded_the_same_everywhere():
    assert number(-0.001, 2) == "0.00"
    assert number(float("nan"), 2) == "n/a"
    assert interval(1.0, float("nan"), 2) == "[n/a]"
    assert p_value(0.0) == "< 0.001"
    assert p_value(0.0009999) == "< 0.001"
    assert p_value(0.001) == "0.001"


@given(st.text())
def test_one_line_is_one_printable_line(text):
    found = one_line(text)
    assert found.isprintable()
    assert found == found.strip()


def test_a_row_that_does_not_fit_its_columns_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        Table("t", "T", (Column("a", "A"),), ((Cell("1"), Cell("2")),))
