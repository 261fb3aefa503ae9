"""A LaTeX document that compiles as it is with pdflatex: article, booktabs."""

from __future__ import annotations

import re

from bench.report.table import Cell, Report, Section, Table

WIDE = 7
"""Columns from which the page is turned."""
ROWS = 28
"""Rows of a table on one page; the rest goes on in a table of its own."""

_SPECIAL = {
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
    '"': r"\textquotedbl{}",
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
    "²": r"\textsuperscript{2}",
}
_LETTERS = (
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿŁłŚśŠšŽžŻżĆćČčŃńŐőŰűĘęĄąŘřŮůĞğŞş"
)
"""Letters that pdflatex sets as they are in the T1 encoding."""


def to_latex(report: Report) -> str:
    """Return a report as a complete document."""
    wide = any(len(table.columns) > WIDE for table in report.tables)
    lines = [
        r"\documentclass[10pt]{article}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage[T1]{fontenc}",
        r"\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}",
        r"\usepackage{textcomp}",
        rf"\usepackage[a4paper,margin=2cm{',landscape' if wide else ''}]{{geometry}}",
        r"\usepackage{booktabs,graphicx,float}",
        r"% As wide as the text at most: nothing is cut off, nothing is blown up.",
        r"\newcommand{\fit}[1]{\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{#1}}",
        r"\setlength{\parindent}{0pt}",
        r"\setlength{\parskip}{4pt}",
        r"\sloppy",
        r"\begin{document}",
        rf"\section*{{{escape(report.title)}}}",
    ]
    for section in report.sections:
        lines += _section(section)
    lines += _list(report.notes)
    return "\n".join([*lines, r"\end{document}"]) + "\n"


def escape(text: str) -> str:
    """Return a text that prints as it is; what pdflatex has no glyph for becomes its code point."""
    # A minus sign before a number is one, not a hyphen.
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    # Two hyphens would be set as a dash.
    return "".join(_glyph(character) for character in text).replace("--", "-{}-")


def _glyph(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii() or character in _LETTERS:
        return character
    return rf"\texttt{{U+{ord(character):04X}}}"


def _section(section: Section) -> list[str]:
    lines = [rf"\subsection*{{{escape(section.title)}}}"]
    lines += [f"{escape(paragraph)}\n" for paragraph in section.caption]
    for table in section.tables:
        lines += _table(table)
    if section.notes:
        lines += [r"\subsubsection*{Notes}", *_list(section.notes)]
    if section.methods:
        lines += [r"\subsubsection*{Methods}"]
        lines += [f"{escape(paragraph)}\n" for paragraph in section.methods]
    return lines


def _table(table: Table) -> list[str]:
    pages = [table.rows[i : i + ROWS] for i in range(0, len(table.rows), ROWS)] or [()]
    label = re.sub(r"[^A-Za-z0-9-]+", "-", table.name)
    alignment = "".join("r" if column.numeric else "l" for column in table.columns)
    lines: list[str] = []
    for number, rows in enumerate(pages):
        title = escape(table.title) + (" (continued)" if number else "")
        part = f"-{number + 1}" if number else ""
        lines += [
            r"\begin{table}[H]",
            r"\centering",
            rf"\caption{{{title}}}",
            rf"\label{{tab:{label}{part}}}",
            rf"\fit{{\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            " & ".join(escape(column.title) for column in table.columns) + r" \\",
            r"\midrule",
            *[" & ".join(_cell(cell) for cell in row) + r" \\" for row in rows],
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    return [*lines, *_list(table.notes)]


def _cell(cell: Cell) -> str:
    return rf"\textbf{{{escape(cell.text)}}}" if cell.bold else escape(cell.text)


def _list(lines: tuple[str, ...]) -> list[str]:
    if not lines:
        return []
    items = [rf"\item {escape(line)}" for line in lines]
    return [r"\begin{itemize}\setlength{\itemsep}{0pt}", *items, r"\end{itemize}"]
