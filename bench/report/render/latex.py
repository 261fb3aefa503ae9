r"""Reports as LaTeX: tables to ``\input`` into a paper, or a complete document for pdflatex."""

from __future__ import annotations

import hashlib
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.report.render.marks import mark
from bench.report.table import Cell, Column, Report, Table

LANDSCAPE = 100
"""Characters per line from which a document is in landscape format."""
COLUMN = 52
"""Characters per line from which a table spans both columns of a paper."""
PAGE = 80
"""Characters per line from which text is broken into lines, so that numbers are not shrunk."""
WRAP = 30
"""The minimum width, in characters, of a column of text that is broken into lines."""
LINES = 28
"""Lines of a table per page; longer tables are continued in another float."""
WAITING = 15
"""Floats after which the page is cleared; older versions of LaTeX hold at most 18."""

# These options work with versions 2 and 3 of siunitx; version 2 would expand an unprotected
# \bfseries. Numbers are not rounded, whatever the settings of the paper. All settings are local to
# a group, so that they do not affect the paper.
_SETTINGS = (
    r"\setlength{\tabcolsep}{4pt}",
    r"\sisetup{detect-weight=true,group-digits=false,scientific-notation=false}",
    r"\ifcsname siunitx_number_parse:nN\endcsname\sisetup{round-mode=none}"
    r"\else\sisetup{round-mode=off}\fi",
    r"\protected\def\best{\bfseries}",
    r"\def\sign#1{\rlap{\,\normalfont#1}}",
    "% Shrink tables that are wider than the text; never enlarge them.",
    r"\def\fit#1{\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{#1}}",
)
_HANGING = r"!{\hspace{.8em}}"
"""Space for the mark beside a number, which does not affect the alignment of digits."""
_NUMBER = re.compile(r"([-−]?)(\d+)(?:\.(\d+))?")
_LONG = re.compile(r"\S{24,}")
_BREAK = "\u200b"
_SPECIAL = {
    _BREAK: r"\allowbreak{}",
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "≥": r"\ensuremath{\geq}",
    "≤": r"\ensuremath{\leq}",
    "−": r"\ensuremath{-}",
    "→": r"\ensuremath{\rightarrow}",
    "†": r"\dag{}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\ldots{}",
    "\u00a0": "~",
    "\n": " ",
    "\t": " ",
    "²": r"\textsuperscript{2}",
}
_LETTERS = (
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿŁłŚśŠšŽžŻżĆćČčŃńŐőŰűĘęĄąŘřŮůĞğŞş"
)
"""Letters that pdflatex can set in the T1 encoding."""


def to_latex(report: Report, *, standalone: bool = False, name: str = "") -> str:
    """Return the tables of a report.

    Parameters
    ----------
    report : Report
        The report.
    standalone : bool
        Whether to return a complete document. Otherwise, notes and methods are comments, because
        the text of the paper takes their place.
    name : str
        The beginning of labels, such as the name of the file; default: the first section's title.
    """
    if not name:
        name = report.sections[0].title if report.sections else report.title
    labels = _Labels(f"{_slug(name)}-{_digest(report)}", set())
    lines = _document(report, labels) if standalone else _fragment(report, labels)
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape a text; characters that pdflatex cannot set are replaced by their code points."""
    # A hyphen before a number is a minus sign.
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    # Two hyphens would be set as a dash.
    return "".join(_glyph(character) for character in text).replace("--", "-{}-")


def _glyph(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if _is_set(character):
        return character
    return rf"\texttt{{U+{ord(character):04X}}}"


def _is_set(character: str) -> bool:
    plain = character.isascii() and character.isprintable()
    return plain or character in _SPECIAL or character in _LETTERS


# ---------------------------------------------------------------------------- around the tables


@dataclass(frozen=True)
class _Labels:
    """The labels given so far, which are kept unique.

    Names of tables may differ only in characters that labels cannot contain. All labels begin with
    a text that identifies the report, so that several reports can be used in one paper.
    """

    report: str
    taken: set[str]

    def new(self, name: str) -> str:
        wanted = label = _slug(f"{self.report}-{name}")
        number = 1
        while label in self.taken:
            number += 1
            label = f"{wanted}-{number}"
        self.taken.add(label)
        return f"tab:{label}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


def _digest(report: Report) -> str:
    """Return a digest of what is compared, which does not change with further seeds."""
    words = [report.title]
    for section in report.sections:
        words += [section.title, *section.caption]
        for table in section.tables:
            words += [table.title, *(cell.text for row in table.rows for cell in row[: table.lead])]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:4]


def _fragment(report: Report, labels: _Labels) -> list[str]:
    lines = [
        f"% {escape(report.title)}: tables to \\input into a paper, which needs",
        r"% \usepackage[T1]{fontenc} and \usepackage{booktabs,graphicx,siunitx}.",
        *_comments(*report.notes),
        r"\begingroup",
        *_SETTINGS,
    ]
    for section in report.sections:
        lines += _comments(section.title, *section.notes, *section.methods)
        # The caption of the section is printed below its first table.
        said = section.caption
        for table in section.tables:
            star = "*" if _characters(_columns(table)) > COLUMN else ""
            below = (*said, *table.notes)
            for piece in _floats(table, labels, f"table{star}", "htbp", below):
                lines += piece
                if len(labels.taken) % WAITING == 0:
                    lines.append(r"\clearpage")
            said = ()
    return [*lines, r"\endgroup"]


def _document(report: Report, labels: _Labels) -> list[str]:
    wide = any(_characters(_columns(table)) > LANDSCAPE for table in _shown(report))
    lines = [
        r"\documentclass[10pt]{article}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage[T1]{fontenc}",
        r"\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}",
        r"\usepackage{textcomp}",
        rf"\usepackage[a4paper,margin=2cm{',landscape' if wide else ''}]{{geometry}}",
        r"\usepackage{booktabs,graphicx,siunitx,float}",
        r"\setlength{\parindent}{0pt}",
        r"\setlength{\parskip}{4pt}",
        r"\sloppy",
        r"\begin{document}",
        *_SETTINGS,
        rf"\section*{{{escape(report.title)}}}",
    ]
    for section in report.sections:
        lines += [rf"\subsection*{{{escape(section.title)}}}", *_paragraphs(section.caption)]
        for table in section.tables:
            for piece in _floats(table, labels, "table", "H"):
                lines += piece
            lines += _list(table.notes)
        if section.notes:
            lines += [r"\subsubsection*{Notes}", *_list(section.notes)]
        if section.methods:
            lines += [r"\subsubsection*{Methods}", *_paragraphs(section.methods)]
    return [*lines, *_list(report.notes), r"\end{document}"]


def _shown(report: Report) -> Iterator[Table]:
    for section in report.sections:
        yield from section.tables


def _comments(*lines: str) -> list[str]:
    return [f"% {escape(line)}" for line in lines]


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [f"{_prose(line)}\n" for line in lines]


def _prose(text: str) -> str:
    """Return a paragraph in which long names may be broken after punctuation."""
    return escape(_LONG.sub(lambda word: re.sub(r"(?<=\W)(?=\S)", _BREAK, word[0]), text))


def _list(lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    items = [rf"\item {_prose(line)}" for line in lines]
    return [r"\begin{itemize}\setlength{\itemsep}{0pt}", *items, r"\end{itemize}"]


# ---------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class _Column:
    """How a column is set: alignment, heading, width in characters, and lines of each cell."""

    alignment: str
    heading: str
    width: float
    lines: tuple[int, ...]
    by_point: bool = False
    """Whether siunitx aligns numbers at the decimal point."""


def _floats(
    table: Table, labels: _Labels, environment: str, place: str, below: Sequence[str] = ()
) -> Iterator[list[str]]:
    """Yield the floats of a table, one per page; notes are printed below the last."""
    columns = _columns(table)
    pages = list(_pages(table.rows, columns))
    for number, rows in enumerate(pages):
        title = escape(table.title) + (" (continued)" if number else "")
        yield [
            rf"\begin{{{environment}}}[{place}]",
            r"\centering",
            rf"\caption{{{title}}}",
            rf"\label{{{labels.new(table.name)}}}\smallskip",
            rf"\fit{{\begin{{tabular}}{{{''.join(column.alignment for column in columns)}}}",
            r"\toprule",
            _row(column.heading for column in columns),
            r"\midrule",
            *[_row(map(_cell, row, columns)) for row in rows],
            r"\bottomrule",
            r"\end{tabular}}",
            *(_below(below) if number == len(pages) - 1 else []),
            rf"\end{{{environment}}}",
        ]


def _below(lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    words = r"\quad ".join(map(_prose, lines))
    return [r"\par\smallskip", rf"{{\footnotesize\raggedright {words}\par}}"]


def _pages(
    rows: Sequence[tuple[Cell, ...]], columns: Sequence[_Column]
) -> Iterator[list[tuple[Cell, ...]]]:
    page: list[tuple[Cell, ...]] = []
    room = LINES
    for i, row in enumerate(rows):
        height = max(column.lines[i] for column in columns)
        if page and height > room:
            yield page
            page, room = [], LINES
        page.append(row)
        room -= height
    yield page


def _characters(columns: Sequence[_Column]) -> float:
    """Return the width of a table in characters, including gaps between columns."""
    return sum(column.width + 1.5 for column in columns)


def _columns(table: Table) -> list[_Column]:
    """Return the columns, with text broken into lines if the table would be too wide."""
    texts = [[row[i].text for row in table.rows] for i in range(len(table.columns))]
    marked = [any(mark(row[i]) for row in table.rows) for i in range(len(table.columns))]
    found = list(map(_column, table.columns, texts, marked))
    if _characters(found) <= PAGE:
        return found
    return [
        column if head.numeric else _broken(column, [head.title, *below])
        for column, head, below in zip(found, table.columns, texts, strict=True)
    ]


def _column(head: Column, texts: Sequence[str], marked: bool) -> _Column:
    """Align numbers with siunitx, other numeric columns to the right, and text to the left."""
    numbers = _format(texts) if head.numeric else None
    lines = _stacked(head.title, texts) if head.numeric else [head.title]
    heading = " \\\\ ".join(map(escape, lines))
    if len(lines) > 1:
        side = "r" if numbers is None else "c"
        heading = rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{heading}\end{{tabular}}"
    width = max(map(_length, [*lines, *texts]))
    single = (1,) * len(texts)
    after = _HANGING if marked else ""
    if numbers is None:
        return _Column(("r" if head.numeric else "l") + after, heading, width, single)
    alignment = f"S[table-format={numbers}]{after}"
    return _Column(alignment, f"{{{heading}}}", width, single, by_point=True)


def _broken(column: _Column, texts: Sequence[str]) -> _Column:
    """Break a column of text between words, such that no cell is higher than a page."""
    longest = max(_length(word) for text in texts for word in re.split(r"[ -]", text))
    width = max(min(column.width / 2, 2 * WRAP), column.width / 20, WRAP, 1.15 * longest)
    if width >= column.width:
        return column
    alignment = rf">{{\raggedright\arraybackslash}}p{{{width / 2:.1f}em}}{column.alignment[1:]}"
    lines = tuple(math.ceil(1.15 * _length(text) / width) for text in texts[1:])
    return _Column(alignment, column.heading, width, lines)


def _stacked(title: str, texts: Sequence[str]) -> list[str]:
    """Break a heading into lines that are not much wider than the numbers below it."""
    words = [len(word) for word in title.split()]
    width = max([5 + max(map(len, texts), default=0), *words])
    return textwrap.wrap(title, width, break_on_hyphens=False) or [""]


def _format(texts: Sequence[str]) -> str | None:
    """Return the ``table-format`` of numbers; None if some cells contain text with digits."""
    found = [_NUMBER.fullmatch(text) for text in texts]
    numbers = [each for each in found if each]
    words = [text for text, each in zip(texts, found, strict=True) if not each]
    if not numbers or re.search(r"\d", " ".join(words)):
        return None
    sign = "-" if any(each[1] for each in numbers) else ""
    whole = max(len(each[2]) for each in numbers)
    decimals = max(len(each[3] or "") for each in numbers)
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def _length(text: str) -> float:
    """Return the width of a text in half ems, approximately its number of characters."""
    return sum(map(_width, text))


def _width(character: str) -> float:
    if not _is_set(character):
        # The width of a code point as written by `_glyph`.
        return 6.5
    return 1.8 if character in "mwMW@%—…" else 1.5 if character.isupper() else 1.0


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell, column: _Column) -> str:
    """Return one cell, with its mark in the gap so that digits remain aligned."""
    sign = rf"\sign{{{escape(mark(cell).strip())}}}" if mark(cell) else ""
    found = _NUMBER.fullmatch(cell.text) if column.by_point else None
    if found is None:
        text = escape(cell.text)
        text = (rf"\textbf{{{text}}}" if cell.bold else text) + sign
        return f"{{{text}}}" if column.by_point else text
    minus, whole, decimals = found.groups()
    number = ("-" if minus else "") + whole + (f".{decimals}" if decimals else "")
    return (r"\best " if cell.bold else "") + number + (f" {{{sign}}}" if sign else "")
