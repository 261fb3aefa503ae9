"""The built-in datasets and their shared options."""

from __future__ import annotations

from registry.cards import DatasetCard, Option

CONFORM: dict[str, Option] = {
    "grid": Option(
        "mni-2mm", "voxel grid of the volumes", choices=("mni-1mm", "mni-2mm", "mni-4mm")
    ),
    "crop": Option(
        "none", "crop the grid to the bounding box of the brain", choices=("none", "brain")
    ),
    "zscore": Option(
        "whole",
        "standardise with all voxels (as in the papers), with non-zero voxels, or not at all",
        choices=("whole", "brain", "none"),
    ),
    "space": Option(
        "auto",
        "space of the scans: according to their file names, MNI even if the names do not say so, "
        "or native (not registered; centred on the centre of mass of the head)",
        choices=("auto", "mni", "native"),
    ),
    "register": Option(
        "none",
        "register raw scans to the MNI152 template (requires the extra `registration`)",
        choices=("none", "affine"),
    ),
    "storage": Option("float16", "data type of the stored volumes", choices=("float16", "float32")),
}
"""Options of all datasets, including plugins, that determine how scans become volumes."""

CHOICES: dict[str, Option] = {
    "visits": Option(
        "all", "which visits of a subject to use", choices=("all", "baseline", "last")
    ),
    "classes": Option(
        "",
        "diagnoses that form the classes, controls first: CN,AD or CN,MCI,AD or CN+SMC,AD or "
        "sMCI,pMCI; empty for the values in the table",
    ),
    "horizon": Option(
        36.0, "months of follow-up after a scan to distinguish sMCI from pMCI", low=1.0
    ),
    "withdrawals": Option(
        "", "file with the ids of withdrawn subjects, text or Excel (--withdrawals)"
    ),
    "hold_out_site": Option("", "site whose subjects form the test set (--hold-out-site)"),
    "cohort": Option("", "name of the cohort, if it differs from the name of the dataset"),
}
"""Options of all datasets, including plugins, that determine which scans are used."""

VISIT: dict[str, Option] = {
    "labels": Option(
        "visit",
        "the diagnosis at the scan's visit, or at the subject's baseline",
        choices=("visit", "baseline"),
    ),
}
"""Options of cohorts with a diagnosis at each visit."""

GROUP: dict[str, Option] = {
    "labels": Option(
        "visit",
        "the diagnosis at the scan's visit, at the subject's baseline, or the subject's group",
        choices=("visit", "baseline", "group"),
    ),
}
"""The same for cohorts whose tables also contain one group for all visits of a subject."""

EXAMS: dict[str, Option] = {
    **VISIT,
    "within_days": Option(
        180.0, "maximum number of days between a scan and the examination that labels it", low=0
    ),
}
"""Options of cohorts whose diagnoses come from examinations with their own dates."""

LABELS: dict[str, Option] = {
    "age": Option("age", "column with the age in years"),
    "diagnosis": Option("diagnosis", "column with the diagnosis"),
    "sex": Option("sex", "column with the sex, F or M"),
    "site": Option("site", "column with the site"),
    "family": Option("family", "column with the family, which is never divided by the split"),
    "split": Option("split", "column with the official split: train, validation or test"),
}
"""Options of datasets whose tables have no fixed column names."""

TABLES: dict[str, Option] = {
    "table": Option("", "tables of the cohort, separated by line breaks (--table)")
}

LONI: dict[str, Option] = {
    "image": Option(
        "processed",
        "which image of a visit to use: the processed one if available, or the raw one",
        choices=("processed", "raw"),
    ),
}
"""Options of collections downloaded from LONI, with several images per visit."""

TABLE: dict[str, Option] = {
    "table": Option("", "CSV, TSV, Parquet or Excel file with one row per scan (--table)"),
    "path": Option("path", "column with the path of the scan, relative to the root or absolute"),
    "subject": Option("subject_id", "column with the subject"),
    "session": Option("session_id", "column with the session"),
}

UKBB_IMAGES = ("T1_brain_to_MNI", "T1_brain", "T1_unbiased_brain", "T1_unbiased", "T1")
"""Scans in UK Biobank's bulk field 20252."""

DIAGNOSED = {"classes": "CN,AD"}
"""Defaults of cohorts with Alzheimer's disease."""


def dataset_options(card: DatasetCard) -> dict[str, Option]:
    """Return all options of a dataset: its own and those of all datasets."""
    return {**CONFORM, **CHOICES, **card.options}


def synthetic(
    name: str, summary: str, targets: tuple[str, ...], *, small: bool = False
) -> DatasetCard:
    """Return the card of a synthetic cohort, whose default target is the first one."""
    return DatasetCard(
        name=f"{name}-4mm" if small else name,
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
        summary="UK Biobank, bulk field 20252 as folders, flat files or zip archives",
        targets=AGE,
        options={
            **TABLES,
            "image": Option(
                "T1_brain_to_MNI",
                "which file of the bulk field to use; T1_brain_to_MNI is non-linearly registered",
                choices=UKBB_IMAGES,
            ),
        },
    ),
    DatasetCard(
        name="oasis1",
        target="bench.data.adapters.oasis1:manifest",
        summary="OASIS-1, cross-sectional, including the repeat scans",
        targets=AD,
        default_target="diagnosis",
        options={
            **TABLES,
            "image": Option(
                "T88_111",
                "which image to use: T88_111 (Talairach space), SUBJ_111 (averaged) or RAW",
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
        summary="IXI, healthy subjects from three hospitals in London",
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
        summary="BIDS directory written by Clinica's converters, for example of ADNI",
        targets=AD,
        default_target="diagnosis",
        options={**TABLES, **VISIT},
        defaults={**DIAGNOSED, "cohort": "adni"},
    ),
    DatasetCard(
        name="caps",
        target="bench.data.adapters.clinica:caps",
        summary="Clinica's CAPS directory with t1-linear volumes, labels from its BIDS tables",
        targets=AD,
        default_target="diagnosis",
        options={
            **TABLES,
            **VISIT,
            "image": Option(
                "full", "the full volume or the one cropped by Clinica", choices=("full", "crop")
            ),
        },
        defaults={**DIAGNOSED, "cohort": "adni"},
    ),
    DatasetCard(
        name="bids",
        target="bench.data.adapters.bids:manifest",
        summary="any BIDS directory with T1w images and participants.tsv",
        options={**TABLES, **LABELS},
    ),
    DatasetCard(
        name="table",
        target="bench.data.adapters.table:manifest",
        summary="any table with a column of paths to scans",
        needs_root=False,
        options={**TABLE, **LABELS},
    ),
    *(
        synthetic(name, summary, targets, small=small)
        for name, summary, targets in (
            ("synthetic-ad", "synthetic controls and patients with Alzheimer's disease", AD),
            ("synthetic-age", "synthetic healthy ageing", AGE),
            ("synthetic-null", "synthetic images that are unrelated to their labels", AD),
        )
        for small in (False, True)
    ),
)
