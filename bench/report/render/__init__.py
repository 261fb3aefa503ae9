"""The renderers: each turns one `Report` into text, computing nothing."""

from __future__ import annotations

from bench.report.render.data import to_csv, to_json
from bench.report.render.html import to_html
from bench.report.render.latex import to_latex
from bench.report.render.markdown import to_markdown
from bench.report.render.terminal import to_terminal
from bench.report.table import Report

_RENDERERS = {
    "markdown": to_markdown,
    "html": to_html,
    "csv": to_csv,
    "json": to_json,
}
FORMATS = ("terminal", "markdown", "latex", "html", "csv", "json")


def render(
    report: Report,
    format_: str,
    *,
    styled: bool = False,
    standalone: bool = False,
    name: str = "",
    wide: bool | None = None,
) -> str:
    """Return a report as text that ends with a line break.

    Parameters
    ----------
    report : Report
        What to show.
    format_ : str
        One of `FORMATS`.
    styled : bool
        Whether the text goes straight to a terminal, which shows bold and colour.
    standalone : bool
        Whether LaTeX is a document of its own and not tables for one.
    name : str
        What labels of LaTeX begin with, such as the name of the file; default: the cohort's.
    wide : bool, optional
        Whether tables on a terminal have all their columns, however long the lines; None where
        nobody can ask for that.

    Raises
    ------
    KeyError
        For another format.
    """
    if format_ == "terminal":
        return to_terminal(report, styled=styled, wide=wide)
    if format_ == "latex":
        return to_latex(report, standalone=standalone, name=name)
    return _RENDERERS[format_](report)
