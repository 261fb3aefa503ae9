"""A new part of a report is a function of the section's data and one line in a list."""

from bench.report import build
from bench.report.build import build_report
from bench.report.parts import APPENDIX, PARTS
from bench.report.render import render
from bench.report.table import Cell, Column, Table
from tests.report.figures import three


def seeds_table(data):
    """Return a table of the number of seeds of every model, as an example of a part."""
    return Table(
        name=data.name("seed-counts"),
        title=f"Seeds by model, {data.protocol.name}",
        columns=(Column("arm", "model"), Column("n", "seeds", numeric=True)),
        rows=tuple(
            (Cell(row.label), Cell(str(n), {"value": n}))
            for row in data.rows
            if (n := len(data.protocol.at(row, data.protocol.primary_size).seeds))
        ),
    )


def test_a_part_added_to_the_list_is_in_every_format(bench, reading, monkeypatch):
    three(bench)
    bench.cohort("other")
    store = reading()
    names = [table.name for table in build_report(store, appendix=True).tables]
    monkeypatch.setattr(build, "PARTS", (*PARTS, seeds_table))
    report = build_report(store, appendix=True)
    assert [t.name for t in report.tables if t.name != "seed-counts"] == names
    (added,) = (table for table in report.tables if table.name == "seed-counts")
    assert [[cell.text for cell in row] for row in added.rows] == [
        ["good", "3"],
        ["fair", "3"],
        ["bad", "3"],
    ]
    for format_ in ("terminal", "markdown", "latex", "html", "csv", "json"):
        assert "Seeds by model" in render(report, format_) or format_ == "csv"
    assert "seed-counts" in render(report, "csv")


def test_every_part_is_listed_once():
    assert len({*PARTS, *APPENDIX}) == len(PARTS) + len(APPENDIX)
