"""The built-in datasets and the options that they share."""

from __future__ import annotations

from registry.cards import DatasetCard, Option

CONFORM: dict[str, Option] = {
    "grid": Option("mni-2mm", "the grid of all volumes", choices=("mni-1mm", "mni-2mm", "mni-4mm")),
    "crop": Option("none", "cut the grid to the box of the brain", choices=("none", "brain")),
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
    "register": Option(
        "none",
        "register raw scans to the MNI152 template (needs the extra `registration`)",
        choices=("none", "affine"),
    ),
    "storage": Option("float16", "how volumes are stored", choices=("float16", "float32")),
}
"""Options of every dataset, plugins included: how scans become volumes of one shape."""

CHOICES: dict[str, Option] = {
    "visits": Option(
        "all", "which visits of a subject are used", choices=("all", "baseline", "last")
    ),
    "classes": Option(
        "",
        "diagnoses that form the classes, healthy first: CN,AD or CN,MCI,AD or CN+SMC,AD or "
        "sMCI,pMCI; empty: as the table says",
    ),
    "horizon": Option(36.0, "months after a scan that decide between sMCI and pMCI", low=1.0),
    "withdrawals": Option("", "list of withdrawn subject ids, text or Excel (--withdrawals)"),
    "hold_out_site": Option("", "site whose subjects are the test set (--hold-out-site)"),
    "cohort": Option("", "what cohort this is, when the dataset is not named after it"),
}
"""Options of every dataset, plugins included: which of the scans found are used, and how."""

VISIT: dict[str, Option] = {
    "labels": Option(
        "visit",
        "the diagnosis at the scan's visit, or at the subject's baseline",
        choices=("visit", "baseline"),
    ),
}
"""Option of cohorts whose subjects are diagnosed at every visit."""

GROUP: dict[str, Option] = {
    "labels": Option(
        "visit",
        "the diagnosis at the scan's visit, at the subject's baseline, or the group of the table",
        choices=("visit", "baseline", "group"),
    ),
}
"""The same where a table has one group for all visits of a subject, too."""

EXAMS: dict[str, Option] = {
    **VISIT,
    "within_days": Option(180.0, "days at most between a scan and the exam that labels it", low=0),
}
"""Options of cohorts whose diagnoses come from exams with dates of their own."""

LABELS: dict[str, Option] = {
    "age": Option("age", "column with the age in years"),
    "diagnosis": Option("diagnosis", "column with the diagnosis"),
    "sex": Option("sex", "column with the sex, F or M"),
    "site": Option("site", "column with the site"),
    "family": Option("family", "column with the family; a family is on one side of the split"),
    "split": Option("split", "column with the cohort's official split: train, validation, test"),
}
"""Options of datasets whose tables have no fixed columns."""

TABLES: dict[str, Option] = {"table": Option("", "the cohort's tables, one a line (--table)")}

LONI: dict[str, Option] = {
    "image": Option(
        "processed",
        "which image of a visit: the processed one if there is one, or the raw one",
        choices=("processed", "raw"),
    ),
}
"""Options of collections downloaded from LONI, where a visit has several images."""

TABLE: dict[str, Option] = {
    "table": Option("", "CSV, TSV, Parquet or Excel file, one row a scan (--table)"),
    "path": Option("path", "column with the scan's file, relative to the root or absolute"),
    "subject": Option("subject_id", "column with the subject"),
    "session": Option("session_id", "column with the session"),
}

UKBB_IMAGES = ("T1_brain_to_MNI", "T1_brain", "T1_unbiased_brain", "T1_unbiased", "T1")
"""Files of UK Biobank's bulk field 20252 that are scans."""

DIAGNOSED = {"classes": "CN,AD"}
"""Defaults of cohorts of the Alzheimer's continuum."""


def dataset_options(card: DatasetCard) -> dict[str, Option]:
    """Return every option that a dataset takes: its own and those of all datasets."""
    return {**CONFORM, **CHOICES, **card.options}


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
        defaults={"grid": "mni-4mm" if small else "mni-2mm"},
        synthetic=True,
    )


AD = ("diagnosis", "age", "sex")
AGE = ("age", "sex")

DATASETS: tuple[DatasetCard, ...] = (
    DatasetCard(
        name="adni",
        target="bench.data.adapters.adni:manifest",
        summary="ADNI as downloaded from LONI, with ADNIMERGE or DXSUM",
        targets=AD,
        default_target="diagnosis",
        options={**TABLES, **LONI, **EXAMS, **GROUP},
        defaults=DIAGNOSED,
    ),
    DatasetCard(
        name="ukbb",
        target="bench.data.adapters.ukbb:manifest",
        summary="UK Biobank bulk field 20252, unzipped, flat or still zipped",
        targets=AGE,
        options={
            **TABLES,
            "image": Option(
                "T1_brain_to_MNI",
                "which file of the bulk field; T1_brain_to_MNI is warped non-linearly",
                choices=UKBB_IMAGES,
            ),
        },
    ),
    DatasetCard(
        name="oasis1",
        target="bench.data.adapters.oasis1:manifest",
        summary="OASIS-1, cross-sectional, with its rescans",
        targets=AD,
        default_target="diagnosis",
        options={
            **TABLES,
            "image": Option(
                "T88_111",
                "which image: T88_111 (Talairach atlas space), SUBJ_111 (averaged) or RAW",
                choices=("T88_111", "SUBJ_111", "RAW"),
            ),
        },
        defaults=DIAGNOSED,
    ),
    DatasetCard(
        name="oasis2",
        target="bench.data.adapters.oasis2:manifest",
        summary="OASIS-2, longitudinal",
        targets=AD,
        default_target="diagnosis",
        options={**TABLES, **GROUP},
        defaults=DIAGNOSED,
    ),
    DatasetCard(
        name="oasis3",
        target="bench.data.adapters.oasis3:manifest",
        summary="OASIS-3, longitudinal, with clinical visits",
        targets=AD,
        default_target="diagnosis",
        options={**TABLES, **EXAMS},
        defaults=DIAGNOSED,
    ),
    DatasetCard(
        name="ixi",
        target="bench.data.adapters.ixi:manifest",
        summary="IXI, healthy ageing at three London hospitals",
        targets=AGE,
        options=TABLES,
    ),
    DatasetCard(
        name="aibl",
        target="bench.data.adapters.aibl:manifest",
        summary="AIBL as downloaded from LONI",
        targets=AD,
        default_target="diagnosis",
        options={**TABLES, **LONI, **EXAMS},
        defaults=DIAGNOSED,
    ),
    DatasetCard(
        name="clinica",
        target="bench.data.adapters.clinica:bids",
        summary="a BIDS folder written by Clinica's converters, e.g. of ADNI",
        targets=AD,
        default_target="diagnosis",
        options={**TABLES, **VISIT},
        defaults={**DIAGNOSED, "cohort": "adni"},
    ),
    DatasetCard(
        name="caps",
        target="bench.data.adapters.clinica:caps",
        summary="Clinica's CAPS with t1-linear volumes, labels from its BIDS tables",
        targets=AD,
        default_target="diagnosis",
        options={
            **TABLES,
            **VISIT,
            "image": Option("full", "the whole volume or Clinica's crop", choices=("full", "crop")),
        },
        defaults={**DIAGNOSED, "cohort": "adni"},
    ),
    DatasetCard(
        name="bids",
        target="bench.data.adapters.bids:manifest",
        summary="any BIDS folder of T1w images with participants.tsv",
        options={**TABLES, **LABELS},
    ),
    DatasetCard(
        name="table",
        target="bench.data.adapters.table:manifest",
        summary="any table with a column of paths to scans",
        needs_root=False,
        options={**TABLE, **LABELS},
    ),
    synthetic("synthetic-ad", "Alzheimer's disease against controls, embedded", AD),
    synthetic("synthetic-ad-4mm", "Alzheimer's disease against controls, embedded", AD),
    synthetic("synthetic-age", "healthy ageing, embedded", AGE),
    synthetic("synthetic-age-4mm", "healthy ageing, embedded", AGE),
    synthetic("synthetic-null", "images without any link to their labels, embedded", AD),
    synthetic("synthetic-null-4mm", "images without any link to their labels, embedded", AD),
)
