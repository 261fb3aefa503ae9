"""The flow of scans and subjects, and the numbers of finished, failed and missing runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bench.report.select import Protocol, Row
from bench.report.table import Cell, Column, Table
from bench.report.tables.failures import Failure
from bench.report.words import one_line
from bench.store.store import FAILED, KILLED


def flow_table(flow: Sequence[tuple[str, int]], sides: Mapping[str, int], name: str) -> Table:
    """Return the numbers of scans found, excluded (by reason) and used, and of subjects."""
    words = {"pool": "training", "train": "training"}
    people = [(f"{words.get(side, side)} subjects", n) for side, n in sides.items()]
    steps = [*flow, *people]
    return Table(
        name=name,
        title="Flow of scans and subjects",
        columns=(Column("step", "step"), Column("n", "n", numeric=True)),
        rows=tuple(
            (Cell(one_line(str(what)), {"step": one_line(str(what))}), Cell(str(n), {"n": int(n)}))
            for what, n in steps
        ),
    )


def coverage_table(protocol: Protocol, failures: tuple[Failure, ...], name: str) -> Table:
    """Return the numbers of finished, failed, killed and planned runs of each cell."""
    unsuccessful = Counter((f.row.key, f.size, f.state) for f in failures)
    return Table(
        name=name,
        title=f"Runs by model and training size, {protocol.name}",
        columns=(
            Column("arm", "model"),
            *(Column(f"n{n}", f"n={protocol.size_label(n)}") for n in protocol.sizes),
        ),
        rows=tuple(
            (
                Cell(row.label),
                *(_cell(protocol, row, size, unsuccessful) for size in protocol.sizes),
            )
            for row in protocol.rows
        ),
    )


def _cell(
    protocol: Protocol, row: Row, size: int, unsuccessful: Counter[tuple[str, int, str]]
) -> Cell:
    runs = protocol.at(row, size)
    done = len(runs.seeds)
    failed = unsuccessful[row.key, size, FAILED]
    killed = unsuccessful[row.key, size, KILLED]
    planned = runs.asked - done - failed - killed
    counts = {"done": done, "failed": failed, "killed": killed, "planned": planned}
    words = [f"{n} {state}" for state, n in counts.items() if n]
    return Cell(", ".join(words) or "not requested", dict(counts))
