"""Writing an export: a folder that is complete or not there."""

from __future__ import annotations

import hashlib
import json
import shutil
import textwrap
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from sqlalchemy import Connection, func, select

from bench.export.repro import bundle
from bench.export.shareable import LEFT_OUT
from bench.export.tables import Exported, exported_tables
from bench.store import schema
from bench.store.store import Store
from registry.errors import UserError

FORMATS = ("parquet", "csv")


def export(
    store: Store, out: Path, *, format_: str = "parquet", shareable: bool = False, repro: bool
) -> dict[str, int]:
    """Write every trial of a database as tidy tables.

    They are written into a hidden folder beside `out`, which gets its name last: whatever stops
    this, nothing that looks complete is left.

    Parameters
    ----------
    store : Store
        Open for reading.
    out : Path
        A folder that does not exist yet, or is empty.
    format_ : str
        One of `FORMATS`. Both hold every number to the last bit.
    shareable : bool
        Leave out true values, covariates, places and machines.
    repro : bool
        Add ``repro.json``: what another needs to repeat the runs and to compare.

    Returns
    -------
    dict
        Rows by name of the table.

    Raises
    ------
    UserError
        When `out` holds something already or cannot be made, or nothing has finished yet.
    """
    out = _free(out)
    part = out.with_name(f".{out.name}.part-{uuid.uuid4().hex[:8]}")
    with store.engine.connect() as connection, _whole(part):
        # One transaction: what a driver writes meanwhile is in no table or in all of them.
        connection.exec_driver_sql("BEGIN")
        if not connection.execute(select(func.count()).select_from(schema.trials)).scalar():
            raise UserError(
                f"Nothing has finished in {store.file} yet; `bench status` shows what was asked "
                "for."
            )
        rows, words = {}, {}
        for table in exported_tables(connection, shareable=shareable):
            rows[table.name] = _write(table, part / f"{table.name}.{format_}", format_)
            words[table.name] = table.about
        if repro:
            _write_bundle(connection, part, rows, shareable=shareable)
        readme = _readme(words, rows, format_, shareable=shareable, repro=repro)
        (part / "README.txt").write_text(readme, encoding="utf-8")
        try:
            part.rename(out)
        except OSError as error:
            raise UserError(
                f"--out {out}: the folder cannot be put there ({error.strerror}); name another."
            ) from None
    return rows


def _free(out: Path) -> Path:
    """Return the absolute path of a folder that may be made."""
    out = out.expanduser().resolve()
    if not out.parent.is_dir():
        raise UserError(
            f"The folder {out.parent} does not exist; create it or choose another --out."
        )
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder that does not exist yet.")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(
            f"--out {out} holds something already, and an export never mixes with it; name a "
            "folder that does not exist yet."
        )
    return out


@contextmanager
def _whole(part: Path) -> Iterator[None]:
    """Make a folder that is removed unless it was renamed."""
    part.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(table: Exported, file: Path, format_: str) -> int:
    rows = 0
    if format_ == "csv":
        writer: Any = pa.csv.CSVWriter(str(file), table.schema)
    else:
        writer = pa.parquet.ParquetWriter(str(file), table.schema, compression="zstd")
    with writer:
        for batch in table.batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _write_bundle(
    connection: Connection, part: Path, rows: Mapping[str, int], *, shareable: bool
) -> None:
    content = bundle(connection, shareable=shareable)
    content["files"] = {
        file.name: {"sha256": _sha256(file), "rows": rows[file.stem]}
        for file in sorted(part.iterdir())
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (part / "repro.json").write_text(text + "\n", encoding="utf-8")


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _readme(
    words: Mapping[str, str],
    rows: Mapping[str, int],
    format_: str,
    *,
    shareable: bool,
    repro: bool,
) -> str:
    blocks = ["Results of slicebench, exported by `bench export`.", "Tables:"]
    blocks += [f"- {name}.{format_} ({rows[name]} rows): {words[name]}." for name in words]
    blocks += [
        "A subject is its index in a manifest that stays with its owner; no table holds the id of "
        "a participant. Numbers are the stored doubles to the last bit; times are UTC. What has "
        "several parts stands as JSON in one column."
    ]
    if format_ == "csv":
        blocks.append(
            "pandas reads these numbers exactly only with "
            'read_csv(..., float_precision="round_trip").'
        )
    if repro:
        blocks.append(
            "repro.json: specs, chosen settings, seeds, versions, digests of cohort and split, the "
            "command that repeats each trial, and the sha256 of every table."
        )
    if shareable:
        blocks.append("Left out, so that it may be shared:")
        blocks += [f"- {what}." for what in LEFT_OUT]
        blocks.append(
            "What a reader can still learn: predictions of a good model are close to the true "
            "values, and the metrics of many trials narrow them further. Whoever holds the cohort "
            "can put ids to the indices. Share it only where that is allowed."
        )
    return "\n".join(map(_filled, blocks)) + "\n"


def _filled(block: str) -> str:
    return textwrap.fill(block, 88, subsequent_indent="  " if block.startswith("-") else "")
