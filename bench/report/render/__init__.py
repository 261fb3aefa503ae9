"""The renderers, which turn a `Report` into text without computing anything."""

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
        The report.
    format_ : str
        One of `FORMATS`.
    styled : bool
        Whether the text is shown in a terminal, with bold and colour.
    standalone : bool
        Whether LaTeX is a complete document instead of tables to be included in one.
    name : str
        The beginning of LaTeX labels, such as the name of the file; default: the cohort's name.
    wide : bool, optional
        Whether tables in a terminal have all their columns, however long the lines; None if the
        command has no such option.

    Raises
    ------
    KeyError
        If the format does not exist.
    """
    if format_ == "terminal":
        return to_terminal(report, styled=styled, wide=wide)
    if format_ == "latex":
        return to_latex(report, standalone=standalone, name=name)
    return _RENDERERS[format_](report)
