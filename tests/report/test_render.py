import csv
import html
import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.build import build_report
from bench.report.render import FORMATS, render
from bench.report.render.latex import escape as latex_escape
from bench.report.render.markdown import escape as markdown_escape
from bench.report.render.terminal import to_terminal
from bench.report.table import Cell, Column, Report, Section, Table
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
    """Return a report with one table of texts, numeric in all but the first column."""
    heads = tuple(Column(f"c{i}", name, numeric=i > 0) for i, name in enumerate(columns))
    body = tuple(tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows)
    table = Table("t", "T", heads, body, lead=lead)
    return Report("R", (Section("S", (table,)),))


# ------------------------------------------------------------------ all formats


class Cells(HTMLParser):
    """The text of the cells of a page's tables, row by row."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.inside = {}, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.rows = self.tables.setdefault(dict(attrs)["id"], [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.inside = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def numbers(cells):
    return [token for cell in cells for token in NUMBER.findall(cell)]


def from_csv(text, table):
    rows = {}
    for line in csv.DictReader(io.StringIO(text)):
        if line["table"] == table.name and line["field"] == "text":
            rows.setdefault(int(line["row"]), []).append(line["value"])
    return [rows[i] for i in sorted(rows)]


def from_json(text, table):
    tables = [t for s in json.loads(text)["sections"] for t in s["tables"] + s["appendix"]]
    (found,) = [each for each in tables if each["name"] == table.name]
    return [[cell["text"] for cell in row.values()] for row in found["rows"]]


def from_html(text, table):
    return Cells(text).tables[table.name][1:]


def from_markdown(text, table):
    lines = text.split(f"### {markdown_escape(table.title)}\n\n")[1].split("\n\n")[0].splitlines()
    rows = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in lines[2:]]
    return [[cell.replace("\\", "") for cell in row] for row in rows]


def from_terminal(text, table):
    lines = text.splitlines()
    start = lines.index(next(x for x in lines if x.strip() == table.title))
    # A title, an empty line, the headings and a rule.
    head = start + next(i for i, line in enumerate(lines[start:]) if set(line.strip()) == {"─"})
    return [[line] for line in lines[head + 1 : head + 1 + len(table.rows)]]


def from_latex(text, table):
    rows = []
    for label in re.findall(r"\\label\{(.*?)\}", text):
        if re.fullmatch(rf"tab:.*-[0-9a-f]{{4}}-{table.name}(-\d+)?", label):
            body = text.split(rf"\label{{{label}}}")[1].split("\\midrule\n")[1]
            body = body.split("\\bottomrule")[0]
            for code, character in (
                (r"\\ensuremath\{-\}", "-"),
                (r"\\texttt\{U\+[0-9A-F]+\}|\\symbol\{34\}|\\textsuperscript\{2\}", "?"),
            ):
                body = re.sub(code, character, body)
            rows += [re.split(r"(?<!\\)&", line) for line in body.split("\\\\\n")[:-1]]
    return rows


READERS = {
    "terminal": from_terminal,
    "markdown": from_markdown,
    "latex": from_latex,
    "html": from_html,
    "csv": from_csv,
    "json": from_json,
}


@pytest.mark.parametrize("format_", FORMATS)
def test_every_number_of_every_cell_is_the_same_to_the_digit_in_every_format(report, format_):
    text = to_terminal(report, width=4000) if format_ == "terminal" else render(report, format_)
    assert text.endswith("\n")
    seen = 0
    for section in report.sections:
        folded = () if format_ in ("terminal", "markdown", "latex") else section.appendix
        for table in (*section.tables, *folded):
            rows = READERS[format_](text, table)
            assert len(rows) == len(table.rows), table.name
            for row, cells in zip(rows, table.rows, strict=True):
                texts = [cell.text for cell in cells]
                if len(row) == len(texts):
                    assert [numbers([t]) for t in row] == [numbers([t]) for t in texts]
                assert numbers(row) == numbers(texts)
                seen += len(numbers(texts))
    assert seen > 200


@pytest.mark.parametrize("format_", FORMATS)
def test_every_word_of_every_cell_is_in_every_format(report, format_):
    plain = " ".join(render(report, format_, wide=True).split())
    escapes = {"latex": latex_escape, "markdown": markdown_escape, "html": html.escape}
    escape = escapes.get(format_, str)
    for table in report.sections[0].tables:
        if table.name == "failures":
            continue
        words = {w for row in table.rows for cell in row[1:] for w in cell.text.split()}
        for word in words:
            # siunitx sets the sign of a plain number itself.
            assert escape(word) in plain or word in plain, (table.name, word)


def test_csv_and_json_hold_the_same_numbers_at_full_precision(report):
    lines = list(csv.DictReader(io.StringIO(render(report, "csv"))))
    tidy = {(r["table"], r["row"], r["column"], r["field"]): r["value"] for r in lines}
    assert len(tidy) == len(lines)
    content = json.loads(render(report, "json"))
    sections = content["sections"]
    tables = [table for each in sections for table in (*each["tables"], *each["appendix"])]
    assert [table["name"] for table in tables] == [table.name for table in report.tables]
    seen = 0
    for table, source in zip(tables, report.tables, strict=True):
        for number_, (row, cells) in enumerate(zip(table["rows"], source.rows, strict=True), 1):
            for column, cell in zip(source.columns, cells, strict=True):
                assert row[column.key]["text"] == cell.text
                assert row[column.key]["bold"] == cell.bold
                assert row[column.key]["tied"] == cell.tied
                assert tidy[table["name"], str(number_), column.key, "tied"] == f"{cell.tied:d}"
                for field, value in row[column.key]["values"].items():
                    written = tidy[table["name"], str(number_), column.key, field]
                    if value is None:
                        assert written == ""
                        assert not math.isfinite(cell.values[field])
                    else:
                        assert written == str(value)
                        assert value == cell.values[field]
                    seen += 1
    assert seen > 300


def test_undefined_numbers_are_null_and_not_nan(report):
    text = render(report, "json")
    assert "NaN" not in text
    assert "Infinity" not in text
    assert "null" in text


def test_bold_is_shown_in_every_format(report):
    best = report.tables[0].rows[0][1]
    assert best.bold
    assert f"**{markdown_escape(best.text)}**" in render(report, "markdown")
    assert rf"\textbf{{{latex_escape(best.text)}}}" in render(report, "latex")
    assert r"\best 5" in render(made(("a", Cell("5", bold=True))), "latex")
    assert f"{best.text} ^" in render(report, "terminal")
    styled = to_terminal(report, styled=True, width=200)
    assert re.search(rf"\x1b\[1;32m *{re.escape(best.text)}", styled)


MARKED = (
    ("a", Cell("0.70", bold=True)),
    ("b", Cell("0.69", tied=True)),
    ("c", Cell("0.60", untested=True)),
    ("d", "0.50"),
)


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
@pytest.mark.parametrize("no_color", ["", "1"])
@pytest.mark.parametrize("styled", [False, True])
def test_all_terminals_show_the_marks(styled, no_color, term, monkeypatch):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("NO_COLOR", no_color)
    text = to_terminal(made(*MARKED), styled=styled, width=80)
    assert all(words in text for words in ("0.70 ^", "0.69 ~", "0.60 ?"))
    assert "*" not in text
    assert [text.count(sign) for sign in "^~?"] == [1, 1, 1]


def test_marks_are_the_same_in_every_format():
    found = made(*MARKED)
    assert "| a | **0.70** ^ |" in render(found, "markdown")
    assert "| b | 0.69 ~ |" in render(found, "markdown")
    assert "| c | 0.60 ? |" in render(found, "markdown")
    latex = render(found, "latex")
    assert r"a & \best 0.70 {\sign{\textasciicircum{}}} \\" in latex
    assert r"b & 0.69 {\sign{\textasciitilde{}}} \\" in latex
    assert r"c & 0.60 {\sign{?}} \\" in latex
    assert [row[1] for row in Cells(render(found, "html")).tables["t"][1:]] == [
        "0.70 ^",
        "0.69 ~",
        "0.60 ?",
        "0.50",
    ]
    assert "t,2,c1,tied,1\n" in render(found, "csv")
    assert "t,3,c1,untested,1\n" in render(found, "csv")
    assert '"tied": true' in render(found, "json")
    assert '"untested": 1' in render(found, "json")


def test_the_best_is_never_marked_as_tied_with_itself():
    found = made(("a", Cell("0.70", bold=True, tied=True)), ("b", Cell("words", tied=True)))
    for format_ in ("terminal", "markdown", "html"):
        assert "0.70 ~" not in render(found, format_)
        assert "0.70 ^ ~" not in render(found, format_)
    text = render(found, "latex")
    assert r"a & \best 0.70 {\sign{\textasciicircum{}}} \\" in text
    assert r"b & {words\sign{\textasciitilde{}}} \\" in text


def test_the_appendix_is_in_html_csv_and_json_only():
    one = made(("shown", "1")).sections[0].tables
    two = Table("long", "Long", (Column("a", "A"),), ((Cell("folded"),),))
    found = Report("R", (Section("S", one, appendix=(two,)),))
    for format_ in FORMATS:
        text = render(found, format_)
        assert ("folded" in text) == (format_ in ("html", "csv", "json"))


def test_names_and_notes_are_never_taken_for_markup(report):
    rows = json.loads(render(report, "json"))["sections"][0]["tables"][0]["rows"]
    assert rows[2]["arm"]["text"] == WILD
    # Unescaped brackets and percent signs would be lost in rich markup and LaTeX.
    text = "".join(render(report, "terminal").split())
    assert WILD[:8] in text
    assert latex_escape(WILD) in render(report, "latex")
    assert markdown_escape(WILD) in render(report, "markdown")


def test_no_format_needs_torch():
    code = (
        "import sys\n"
        "import bench.report.build, bench.report.status, bench.report.render\n"
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


HIDDEN = re.compile(r"Columns omitted for lack of width: (.*?); use --wide to show them\.")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_a_narrow_terminal_cuts_no_number_and_lists_omitted_columns(report, width):
    board = replace(report.sections[0], tables=report.tables[:1])
    text = to_terminal(replace(report, sections=(board,)), width=width, wide=False)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    hidden = " ".join(HIDDEN.findall(" ".join(text.split()))).split(", ")
    columns = report.tables[0].columns
    shown = [i for i, column in enumerate(columns) if column.title not in hidden]
    # The primary size is the last to be omitted.
    assert 2 in shown
    for cell in (row[i] for row in report.tables[0].rows[:2] for i in shown if i):
        assert cell.text in text


def test_a_wide_table_has_every_column_on_one_line(report):
    text = to_terminal(report, width=60, wide=True)
    assert "Columns omitted" not in text
    lines = text.splitlines()
    for table in report.sections[0].tables:
        for row in table.rows:
            words = [cell.text for cell in row]
            assert any(all(w in line for w in words) for line in lines), (table.name, words)


def test_the_least_important_column_is_omitted_first_and_titles_never_wrap():
    heads = ("model", "kept", "minor", "last")
    columns = tuple(
        Column(f"c{i}", title, numeric=i > 0, minor=5 * (title == "minor"))
        for i, title in enumerate(heads)
    )
    row = ("alpha", *["1.234 [1.000, 2.000] n=5"] * 3)
    title = "A title that is wider than what is left of the table"
    table = Table("t", title, columns, (tuple(map(Cell, row)),))
    found = Report("R", (Section("S", (table,)),))
    text = to_terminal(found, width=80, wide=False)
    assert HIDDEN.findall(text) == ["minor"]
    assert text.count("1.234 [1.000, 2.000] n=5") == 2
    text = to_terminal(found, width=56)
    assert title in text
    assert "Columns omitted for lack of width: minor, last." in text
    assert text.count("alpha") == 1


def test_columns_of_text_share_the_remaining_width():
    heads = (Column("a", "item"), Column("b", "question"), Column("c", "n", numeric=True))
    rows = (("short", "words " * 40, "12"), ("name " * 12, "no", "3"))
    table = Table("t", "T", heads, tuple(tuple(map(Cell, row)) for row in rows))
    text = to_terminal(Report("R", (Section("S", (table,)),)), width=80)
    assert "Columns omitted" not in text
    assert text.count("words") == 40
    assert max(map(len, text.splitlines())) <= 80


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


def test_a_long_table_is_continued_on_the_next_page_with_its_own_label():
    text = render(made(*[(f"m{i}", "1") for i in range(60)]), "latex")
    first, *rest = re.findall(r"\\label\{(.*?)\}", text)
    assert re.fullmatch(r"tab:S-[0-9a-f]{4}-t", first)
    assert rest == [f"{first}-2", f"{first}-3"]
    assert text.count(r"(continued)") == 2
    assert all(f"m{i} &" in text for i in range(60))


def test_names_that_differ_only_in_special_characters_have_different_labels():
    one, two, three = (
        Table(name, "T", (Column("a", "A"),), tuple((Cell(str(i)),) for i in range(30)))
        for name in ("a b", "a-b", "a_b-2")
    )
    text = render(Report("R", (Section("S", (one, two, three)),)), "latex")
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(labels) == len(set(labels)) == 6


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (("0.7", "12.25", "n/a"), "S[table-format=2.2]"),
        (("-1.5", "10", ""), "S[table-format=-2.1]"),
        (("3", "160"), "S[table-format=3]"),
        (("< 0.001", "0.020"), "r"),
        (("0.7 (1 of 5 failed)", "0.6"), "r"),
        (("0.7 [0.6, 0.8]", "0.6 [0.5, 0.7]"), "r"),
        (("n/a", "missing"), "r"),
    ],
)
def test_numbers_are_aligned_at_the_decimal_point(texts, wanted):
    text = render(made(*[("a", each) for each in texts]), "latex")
    assert f"{{tabular}}{{l{wanted}}}" in text
    assert "{n/a}" in text or not ("S[" in wanted and "n/a" in texts)


def test_a_wide_table_spans_both_columns_and_breaks_text_but_not_numbers():
    name = "slice2d-imagenet-pos [efficientnet-lite0] vs linear-voxels"
    heads = ("A vs B", *["a number"] * 6)
    text = render(made((name, *["1.234 [1.000, 2.000]"] * 6), columns=heads), "latex")
    assert r"\begin{table*}" in text
    assert re.search(r"\\begin\{tabular\}\{>\{[^ ]*\}p\{[0-9.]+em\}r{6}\}", text)
    assert r"\begin{table}" in render(made(("a", "1")), "latex")


def test_a_fragment_contains_tables_and_names_required_packages(report):
    text = render(report, "latex")
    head = text.splitlines()[:2]
    assert all(line.startswith("% ") for line in head)
    assert all(name in head[1] for name in ("booktabs", "graphicx", "siunitx"))
    for word in ("documentclass", r"\begin{document}", r"\section", "[H]"):
        assert word not in text
    # Its settings are local.
    assert text.count(r"\begingroup") == text.count(r"\endgroup") == 1
    assert text.index(r"\begingroup") < text.index(r"\sisetup")
    assert text.rstrip().endswith(r"\endgroup")


def needs(*programs):
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def pdf(text, folder):
    """Compile a document and return the log, which must not contain errors or overfull boxes."""
    needs("pdflatex")
    (folder / "report.tex").write_text(text, encoding="utf-8")
    for _ in range(2):
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
        )
        assert done.returncode == 0, done.stdout[-2000:]
    log = (folder / "report.log").read_text(errors="replace")
    assert not re.search(r"Overfull \\hbox \((?:\d{2,}|[3-9])\.\d+pt", log)
    assert not re.search(r"Overfull \\vbox|Float too large|multiply defined|siunitx.*Warning", log)
    return log


def article(*fragments, folder, options="", siunitx=r"\usepackage{siunitx}"):
    """Compile a paper that includes fragments and refers to every table."""
    for i, fragment in enumerate(fragments):
        (folder / f"tables{i}.tex").write_text(fragment, encoding="utf-8")
    references = "".join(rf"\ref{{{label}}} " for text in fragments for label in labels(text))
    inputs = "".join(rf"\input{{tables{i}}}" for i in range(len(fragments)))
    log = pdf(
        rf"\documentclass[{options}]{{article}}\usepackage[T1]{{fontenc}}"
        rf"\usepackage{{booktabs,graphicx}}{siunitx}\begin{{document}}Before {references}."
        rf"{inputs}After \num{{12345.678}}.\end{{document}}",
        folder,
    )
    assert not re.search("undefined", log)
    return log


def labels(text):
    return re.findall(r"\\label\{(.*?)\}", text)


def printed(folder):
    """Return the numbers in the compiled document."""
    needs("pdftotext")
    done = subprocess.run(
        ["pdftotext", "-layout", "report.pdf", "-"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return Counter(NUMBER.findall(done.stdout.replace("−", "-")))


def test_a_document_compiles_with_all_numbers_unchanged(report, tmp_path):
    pdf(render(report, "latex", standalone=True), tmp_path)
    wanted = Counter(
        token
        for table in report.sections[0].tables
        for row in table.rows
        for column, cell in zip(table.columns, row, strict=True)
        if column.numeric
        for token in numbers([cell.text])
    )
    assert wanted <= printed(tmp_path)


@pytest.mark.parametrize("options", ["", "twocolumn"])
def test_a_fragment_compiles_in_a_paper(report, tmp_path, options):
    article(render(report, "latex"), folder=tmp_path, options=options)


def test_two_reports_in_one_paper_have_different_labels(report, tmp_path):
    # One report is of another database, the other has another caption.
    other = replace(report, title=f"{report.title} 2")
    page = replace(
        report, sections=tuple(replace(s, caption=("A beats B.",)) for s in report.sections)
    )
    texts = [render(each, "latex") for each in (report, other, page)]
    assert len({label for text in texts for label in labels(text)}) == sum(
        map(len, map(labels, texts))
    )
    article(*texts, folder=tmp_path)


def test_labels_do_not_change_unless_models_or_sizes_do(report):
    first, second = made(("a", "0.70"), ("b", "0.60")), made(("a", "0.71"), ("b", "0.65"))
    assert labels(render(first, "latex")) == labels(render(second, "latex"))
    assert labels(render(first, "latex")) != labels(render(made(("a", "0.70")), "latex"))
    (named,) = labels(render(first, "latex", name="paper tables_1"))
    assert named.startswith("tab:paper-tables-1-")


@pytest.mark.parametrize("version", ["", "[=v2]"])
def test_no_setting_of_the_paper_changes_a_digit(tmp_path, version):
    rows = [
        ("a", Cell("12345.0", bold=True), "< 0.001", "-0.10"),
        ("b", Cell("-0.04", tied=True), "0.0215", "n/a"),
        ("c", "0.50", Cell("< 0.001", bold=True, tied=True), Cell("x", bold=True)),
    ]
    setup = rf"\usepackage{{siunitx}}{version}\sisetup{{round-mode=places,round-precision=1}}"
    article(
        render(made(*rows, columns=("m", "x", "y", "z")), "latex"), folder=tmp_path, siunitx=setup
    )
    found = printed(tmp_path)
    assert found >= Counter(["12345.0", "-0.04", "0.50", "0.001", "0.001", "0.0215", "-0.10"])
    # Outside of the fragment, numbers are rounded as before.
    assert "678" not in " ".join(found)


def test_more_floats_than_latex_can_hold_compile(tmp_path):
    article(render(made(*[(f"m{i}", "1") for i in range(1500)]), "latex"), folder=tmp_path)


def test_long_words_are_not_cut_off(tmp_path):
    rows = [("m" * 90, "1", "word " * 400), ("-".join(["part"] * 30), "2", "x" * 70)]
    heads = (Column("a", "name"), Column("b", "n", numeric=True), Column("c", "message"))
    table = Table("t", "T", heads, tuple(tuple(map(Cell, row)) for row in rows))
    report = Report("R", (Section("S", (table,)),))
    pdf(render(report, "latex", standalone=True), tmp_path)


def test_latex_compiles_with_every_character_that_could_be_in_a_name(tmp_path):
    characters = [chr(i) for i in [*range(32, 127), *range(160, 592), *range(913, 970)]]
    rows = [("x" + "".join(characters[i : i + 8]) + "x", "1") for i in range(0, len(characters), 8)]
    rows += [(c, "1") for c in "[*]-–—…†→≤≥±×−²" + WILD]
    pdf(render(made(*rows), "latex", standalone=True), tmp_path)
    article(render(made(*rows), "latex"), folder=tmp_path)


# ------------------------------------------------------------------ words


def test_numbers_are_formatted_consistently():
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


def test_a_row_that_does_not_match_the_columns_is_refused():
    with pytest.raises(ValueError, match="one cell per column"):
        Table("t", "T", (Column("a", "A"),), ((Cell("1"), Cell("2")),))
