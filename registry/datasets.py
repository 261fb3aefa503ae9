"""The built-in datasets and the options that they share."""

from __future__ import annotations

from registry.cards import DatasetCard, Option

CONFORM: dict[str, Option] = {
    "grid": Option("mni-2mm", "the grid of all volumes", choices=("mni-1mm", "mni-2mm", "mni-4mm")),
    "zscore": Option(
        "whole",
        "standardise by all voxels (as in the papers), by those that are not 0, or not at all",
        choices=("whole", "brain", "none"),
    ),
    "space": Option(
        "auto",
        "the scans' space: as their names say, MNI although they do not say so, or native "
        "(unregistered: centred on the head's centre of mass)",
        choices=("auto", "mni", "native"),
    ),
}
"""Options of every dataset, plugins included: how scans become volumes of one shape."""

LABELS: dict[str, Option] = {
    "age": Option("age", "column with the age in years"),
    "diagnosis": Option("diagnosis", "column with the diagnosis"),
    "sex": Option("sex", "column with the sex, F or M"),
    "site": Option("site", "column with the site"),
}

TABLE: dict[str, Option] = {
    "table": Option("", "CSV, TSV or Parquet file, one row a scan (--table)"),
    "path": Option("path", "column with the scan's file, relative to the root or absolute"),
    "subject": Option("subject_id", "column with the subject"),
    "session": Option("session_id", "column with the session"),
}


def options_of(card: DatasetCard) -> dict[str, Option]:
    """Return every option that a dataset takes: its own and those of conforming."""
    return {**CONFORM, **card.options}


def synthetic(name: str, summary: str, targets: tuple[str, ...]) -> DatasetCard:
    """Return the card of an embedded cohort; its first target is the default."""
    small = name.endswith("-4mm")
    return DatasetCard(
        name=name,
        target="bench.data.adapters.synthetic:manifest",
        summary=summary + (", 160 subjects at 4 mm" if small else ", 400 subjects at 2 mm"),
        targets=targets,
        default_target=targets[0],
        needs_root=False,
        options=CONFORM,
        defaults={"grid": "mni-4mm" if small else "mni-2mm"},
        synthetic=True,
    )


AD = ("diagnosis", "age", "sex")
AGE = ("age", "sex")

DATASETS: tuple[DatasetCard, ...] = (
    DatasetCard(
        name="bids",
        target="bench.data.adapters.bids:manifest",
        summary="any BIDS folder of T1w images with participants.tsv",
        options={**LABELS, **CONFORM},
    ),
    DatasetCard(
        name="table",
        target="bench.data.adapters.table:manifest",
        summary="any table with a column of paths to scans",
        needs_root=False,
        options={**TABLE, **LABELS, **CONFORM},
    ),
    synthetic("synthetic-ad", "Alzheimer's disease against controls, embedded", AD),
    synthetic("synthetic-ad-4mm", "Alzheimer's disease against controls, embedded", AD),
    synthetic("synthetic-age", "healthy ageing, embedded", AGE),
    synthetic("synthetic-age-4mm", "healthy ageing, embedded", AGE),
    synthetic("synthetic-null", "images without any link to their labels, embedded", AD),
    synthetic("synthetic-null-4mm", "images without any link to their labels, embedded", AD),
)
