"""Build the report of a database: leaderboards, tests of differences and their explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.report.claims import captions, section_notes
from bench.report.data import SectionData, section_data
from bench.report.family import check_reference
from bench.report.methods import methods, software
from bench.report.parts import APPENDIX, PARTS, tables_of
from bench.report.select import Protocol, select_protocols
from bench.report.table import Picture, Report, Section
from bench.report.words import one_line
from bench.stats.metric import Metric
from bench.stats.metrics import metric_of, metrics_for
from bench.store.store import Store
from registry.core import counted, did_you_mean
from registry.errors import UserError


def build_report(
    store: Store,
    *,
    metric: str | None = None,
    reference: str | None = None,
    where: Mapping[str, str] | None = None,
    appendix: bool = False,
    pictures: bool = False,
) -> Report:
    """Compute everything that a report shows about a database.

    Parameters
    ----------
    store : Store
        Open for reading.
    metric : str, optional
        A metric or ``all``; default: the primary metric of each task.
    reference : str, optional
        Model or label of the row with which all others are compared. By default, the declared
        reference is used; if none was declared, all pairs are compared, or each row with a
        baseline if there are many rows.
    where : mapping, optional
        Key of a protocol (or ``dataset``) to the requested value; default: the protocols of the
        latest command with results.
    appendix : bool
        Whether to add the tables that are too long for a terminal.
    pictures : bool
        Whether to draw the figures.

    Raises
    ------
    UserError
        If no run has finished, or a metric, reference or ``where`` matches nothing.
    """
    selection = select_protocols(store, where or {})
    _check_metric(metric, selection.protocols)
    if reference is not None:
        check_reference(reference, selection.protocols)
    several = len(selection.protocols) > 1
    sections = [
        _section(
            section_data(store, protocol, metrics, reference, place if several else None),
            appendix=appendix,
            pictures=pictures,
        )
        for place, protocol in enumerate(selection.protocols, start=1)
        if (metrics := _metrics(metric, protocol))
    ]
    return Report(
        title=f"slicebench: {one_line(store.name)}",
        sections=tuple(sections),
        notes=tuple(
            f"Not shown, because it is not comparable with these results: bench report {words}"
            for words in selection.others
        ),
    )


def _section(data: SectionData, *, appendix: bool, pictures: bool) -> Section:
    notes = [*data.test_plan.notes, *section_notes(data.protocol, data.evidence)]
    if data.failures:
        notes.append(
            f"{counted(len(data.failures), 'run')} failed: means and tests use only the runs that "
            "succeeded, and a cell with a failed run is never marked as the best."
        )
    figures: tuple[Picture, ...] = ()
    if pictures:
        from bench.report.plots import pictures_for

        figures = pictures_for(data)
    return Section(
        title=data.protocol.name,
        tables=tables_of(PARTS, data),
        caption=tuple(captions(data.protocol, data.evidence, data.metrics)),
        notes=tuple(notes),
        methods=(
            *methods(data.protocol, data.test_plan, data.family),
            *software(data.environments),
        ),
        pictures=figures,
        appendix=tables_of(APPENDIX, data) if appendix else (),
    )


def _metrics(asked: str | None, protocol: Protocol) -> list[Metric]:
    names = metrics_for(protocol.kind, protocol.n_classes)
    if asked is None:
        return [metric_of(protocol.primary_metric)]
    return [metric_of(name) for name in names if asked in ("all", name)]


def _check_metric(asked: str | None, protocols: Sequence[Protocol]) -> None:
    if asked is None or any(_metrics(asked, protocol) for protocol in protocols):
        return
    known = dict.fromkeys(
        name for each in protocols for name in metrics_for(each.kind, each.n_classes)
    )
    raise UserError(
        f"--metric {asked} is not available for these results{did_you_mean(asked, known)}; choose "
        f"one of {', '.join(known)}, or all."
    )
