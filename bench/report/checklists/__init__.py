"""Checklists, filled in as far as the database contains the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.report.checklists.claim import claim_items
from bench.report.checklists.comparison import comparison_items
from bench.report.checklists.facts import Item, ProtocolFacts, load_facts
from bench.report.checklists.tripod import tripod_items
from bench.report.select import Protocol, select_protocols
from bench.report.table import Cell, Column, Report, Section, Table
from bench.report.words import one_line
from bench.store.store import Store
from registry.core import counted, did_you_mean
from registry.errors import UserError


@dataclass(frozen=True)
class _Checklist:
    title: str
    items: Callable[[ProtocolFacts], list[Item]]
    note: str


CHECKLISTS: dict[str, _Checklist] = {
    "claim": _Checklist(
        "CLAIM 2024 (paraphrased)",
        claim_items,
        "Numbered as in the 2024 update; the items are reworded and shortened. It helps to "
        "complete the original checklist and does not replace it. Tejani AS, Klontzas ME, Gatti "
        "AA, et al. Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 "
        "Update. Radiol Artif Intell 2024;6(4):e240300.",
    ),
    "comparison": _Checklist(
        "Checklist for a comparison of architectures",
        comparison_items,
        "Written for this project, not a published checklist: what a reader needs to know to "
        "judge the claim that one architecture is better than another.",
    ),
    "tripod-ai": _Checklist(
        "TRIPOD+AI (paraphrased)",
        tripod_items,
        "Numbered as in the statement; the items are reworded and shortened. It helps to "
        "complete the original checklist and does not replace it. Collins GS, Moons KGM, Dhiman "
        "P, et al. TRIPOD+AI statement. BMJ 2024;385:e078378.",
    ),
}


def build_checklist(store: Store, kind: str, where: Mapping[str, str] | None = None) -> Report:
    """Fill a checklist for each protocol that a report would show.

    Parameters
    ----------
    store : Store
        Open for reading.
    kind : str
        One of `CHECKLISTS`.
    where : mapping, optional
        As for `bench.report.build.build_report`.

    Raises
    ------
    UserError
        If there is no such checklist, no run has finished, or `where` matches nothing.
    """
    if kind not in CHECKLISTS:
        raise UserError(
            f"--checklist {kind}: no such checklist{did_you_mean(kind, CHECKLISTS)}; choose one "
            f"of {', '.join(CHECKLISTS)}."
        )
    checklist = CHECKLISTS[kind]
    selection = select_protocols(store, where or {})
    alone = len(selection.protocols) == 1
    return Report(
        title=f"{checklist.title}: {one_line(store.name)}",
        sections=tuple(
            _section(
                protocol,
                checklist.items(load_facts(store, protocol, len(selection.others))),
                f"checklist-{kind}" if alone else f"checklist-{kind}-{number}",
            )
            for number, protocol in enumerate(selection.protocols, 1)
        ),
        notes=(
            checklist.note,
            *(f"Not included: bench report {words}" for words in selection.others),
        ),
    )


def _section(protocol: Protocol, items: list[Item], name: str) -> Section:
    open_ = sum(bool(item.remaining) for item in items)
    return Section(
        title=protocol.name,
        tables=(
            Table(
                name=name,
                title=f"{counted(len(items), 'item')}, of which {open_} need an answer",
                columns=(
                    Column("item", "item"),
                    Column("question", "question"),
                    Column("answer", "answer"),
                ),
                rows=tuple(
                    (
                        Cell(item.name),
                        Cell(item.question),
                        Cell(item.text, {"state": item.state}),
                    )
                    for item in items
                ),
                lead=2,
            ),
        ),
    )
