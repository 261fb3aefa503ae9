"""The report of ``bench data check``."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.data.inspect import Inspection
from bench.report.table import Cell, Column, Picture, Report, Section, Table
from bench.report.tables.flow import flow_table
from bench.report.words import number, one_line, p_value

MANY_PICTURES = 48
SIDES = ("train", "validation", "test")


def build_cohort_report(found: Inspection) -> Report:
    """Return the result of an inspection as tables and pictures.

    Parameters
    ----------
    found : Inspection
        As returned by `bench.data.inspect.inspect`.
    """
    request, used = found.listing.request, found.used
    sides = {}
    if "side" in used.columns:
        of_side = used.drop_duplicates("subject_id")["side"].value_counts()
        sides = {side: int(of_side.get(side, 0)) for side in SIDES}
    tables = [
        flow_table(found.flow, sides, "flow"),
        _people(used, request.target),
        _counts(used),
        _left_out(found.scans),
        _concerns(found),
    ]
    balance = found.balance
    if balance is not None:
        tables.append(_balance(balance))
    conform = found.conform
    shape = " x ".join(map(str, conform.target.shape))
    caption = (
        f"Target {one_line(request.target)}; volumes of {shape} voxels of "
        f"{conform.target.voxel_mm:g} mm ({conform.space} space), intensities standardised "
        f"({conform.zscore}), stored as {conform.storage}.",
        "Options: " + ", ".join(_choices(found)) + ".",
    )
    section = Section(
        title=f"Dataset {one_line(request.name)}",
        tables=tuple(table for table in tables if table.rows),
        caption=caption,
        notes=tuple(f"Warning: {one_line(words)}" for words in found.warnings),
        pictures=tuple(_pictures(found)),
        appendix=_all_left_out(found.scans),
    )
    problem = (f"Cannot be used as requested: {found.problem}",) if found.problem else ()
    return Report(f"slicebench: check of {one_line(request.name)}", (section,), problem)


def _choices(found: Inspection) -> list[str]:
    skip = ("table", "withdrawals", "grid", "zscore", "storage", "space")
    options = found.listing.request.options
    return [
        f"{name}={one_line(str(v))}" for name, v in options.items() if name not in skip and v != ""
    ]


def _text(value: object, **values: float | int | str | None) -> Cell:
    return Cell(one_line(str(value)), values or {"text": one_line(str(value))})


def _number(value: int) -> Cell:
    return Cell(str(value), {"n": int(value)})


def _people(used: pd.DataFrame, target: str) -> Table:
    groups = [("all", used)]
    if target != "age":
        groups = [*((str(name), part) for name, part in used.groupby(target)), *groups]
    rows = []
    for name, part in groups:
        people = part.drop_duplicates("subject_id")
        age = people["age"].dropna()
        words = "unknown"
        if len(age):
            words = f"{number(age.mean(), 1)} ({number(age.std(), 1)}), " + (
                f"{number(age.min(), 1)} to {number(age.max(), 1)}"
            )
        sexes = pd.Series([sex or "unknown" for sex in people["sex"]]).value_counts()
        rows.append(
            (
                _text(name),
                _number(len(people)),
                _number(len(part)),
                Cell(words, {"mean": float(age.mean()), "sd": float(age.std())}),
                _text(", ".join(f"{n} {sex}" for sex, n in sexes.sort_index().items())),
            )
        )
    columns = (
        Column("group", "group"),
        Column("subjects", "subjects", numeric=True),
        Column("scans", "scans", numeric=True),
        Column("age", "age: mean (SD), range"),
        Column("sex", "sex"),
    )
    return Table("people", "Subjects", columns, tuple(rows))


def _counts(used: pd.DataFrame) -> Table:
    per_subject = used.groupby("subject_id").size().rename("scans per subject")
    people = used.drop_duplicates("subject_id")
    site: pd.Series = people["site"].replace("", "unknown")
    parts: list[tuple[str, pd.Series]] = [("site", site), ("scans per subject", per_subject)]
    parts += [(what, used[what]) for what in ("orientation", "voxel_mm", "shape")]
    rows = [
        (_text(what), _text(value), _number(int(n)))
        for what, values in parts
        for value, n in values.value_counts().items()
    ]
    columns = (Column("what", "variable"), Column("value", "value"), Column("n", "n", numeric=True))
    notes = ("Sites and scans per subject are counted in subjects, all other rows in scans.",)
    return Table("counts", "Sites, visits and image geometry", columns, tuple(rows), notes, lead=2)


def _left_out(scans: pd.DataFrame) -> Table:
    left = scans[scans["reason"] != ""]
    rows = [
        (_text(reason), _number(len(part)), _text(_example(part["path"])))
        for reason, part in sorted(left.groupby("reason"), key=lambda pair: -len(pair[1]))
    ]
    columns = (
        Column("reason", "reason"),
        Column("n", "n", numeric=True),
        Column("such", "first example"),
    )
    notes = (
        "`bench data check --html FILE` and `--out FILE` list every excluded scan with its "
        "subject, path and reason.",
    )
    return Table("left-out", "Excluded scans", columns, tuple(rows), notes)


def _all_left_out(scans: pd.DataFrame) -> tuple[Table, ...]:
    """Return the table of every excluded scan, none where all are used."""
    left = scans[scans["reason"] != ""].sort_values(["reason", "subject_id", "path"])
    if left.empty:
        return ()
    columns = (
        Column("reason", "reason"),
        Column("subject", "subject"),
        Column("path", "path"),
    )
    rows = [tuple(map(_text, row)) for row in left[["reason", "subject_id", "path"]].to_numpy()]
    return (Table("all-left-out", "Every excluded scan", columns, tuple(rows)),)


def _concerns(found: Inspection) -> Table:
    rows = [
        (
            _text(concern.what),
            _number(len(concern.scans)),
            _text(concern.rule),
            _text(_example(found.used.loc[concern.scans, "path"])),
        )
        for concern in found.concerns
    ]
    columns = (
        Column("what", "check"),
        Column("n", "scans", numeric=True),
        Column("rule", "rule"),
        Column("such", "first example"),
    )
    return Table(
        "concerns", "Quality checks (scans are flagged, not excluded)", columns, tuple(rows)
    )


def _example(paths: pd.Series) -> str:
    return str(paths.iloc[0]).rsplit("/", 1)[-1] if len(paths) else ""


def _balance(balance: pd.DataFrame) -> Table:
    rows = [
        (
            _text(row["what"]),
            _text(row["value"]),
            *(_number(int(row[side])) for side in SIDES),
            Cell(p_value(float(row["p"])), {"p": float(row["p"])}),
        )
        for row in balance.to_dict("records")
    ]
    columns = (
        Column("what", "variable"),
        Column("value", "value"),
        *(Column(side, side, numeric=True) for side in SIDES),
        Column("p", "p", numeric=True),
    )
    notes = (
        "Subjects at their first scan; p of a chi-squared test of homogeneity across the three "
        "sets, by permutation where expected counts are small.",
    )
    return Table("balance", "Balance of the split", columns, tuple(rows), notes, lead=2)


def _pictures(found: Inspection) -> list[Picture]:
    of_scan: dict[int, list[str]] = {}
    for concern in found.concerns:
        for index in concern.scans:
            of_scan.setdefault(int(index), []).append(concern.what)
    rest = [int(index) for index in found.used.index if index not in of_scan]
    step = max(1, len(rest) // MANY_PICTURES)
    shown = [*of_scan, *rest[::step]][:MANY_PICTURES]
    pictures = []
    for index, pixels in found.pictures(shown).items():
        scan = found.scans.loc[[index]].iloc[0]
        about = [_label(scan), *of_scan.get(index, ())]
        title = f"{one_line(str(scan['path']))}: {', '.join(about)}"
        pictures.append(
            Picture(title, _png(pixels), f"Sagittal, coronal and axial planes of {title}")
        )
    return pictures


def _label(scan: pd.Series) -> str:
    words = [str(scan["diagnosis"]), str(scan["sex"])]
    if pd.notna(scan["age"]):
        words.append(f"{scan['age']:.0f} years")
    return " ".join(word for word in words if word)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return stream.getvalue()
