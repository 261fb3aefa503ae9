"""Writing an export, which is either complete or absent."""

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
    """Write all trials of a database as tidy tables.

    The tables are written into a hidden directory next to `out`, which is renamed when it is
    complete. Therefore, an interruption leaves no incomplete export.

    Parameters
    ----------
    store : Store
        The database.
    out : Path
        The directory to write, which must be new or empty.
    format_ : str
        One of `FORMATS`. Both preserve numbers exactly.
    shareable : bool
        Whether to omit true values, covariates, paths and names of machines.
    repro : bool
        Whether to add ``repro.json``, which contains what others need to repeat the runs.

    Returns
    -------
    dict
        The number of rows by name of the table.

    Raises
    ------
    UserError
        If `out` is not empty or cannot be created, or there are no finished trials.
    """
    out = _free(out)
    part = out.with_name(f".{out.name}.part-{uuid.uuid4().hex[:8]}")
    with store.snapshot() as connection, _whole(part):
        if not connection.execute(select(func.count()).select_from(schema.trials)).scalar():
            raise UserError(
                f"There are no finished trials in {store.database}; `bench status` shows what was "
                "requested."
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
                f"The directory {out} cannot be created ({error.strerror}); choose another --out."
            ) from None
    return rows


def _free(out: Path) -> Path:
    """Return the absolute path of a directory that is new or empty."""
    out = out.expanduser().resolve()
    if not out.parent.is_dir():
        raise UserError(
            f"The directory {out.parent} does not exist; create it or choose another --out."
        )
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a directory, but {out} is a file; choose another one.")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"The directory {out} is not empty; choose a new or empty one for --out.")
    return out


@contextmanager
def _whole(part: Path) -> Iterator[None]:
    """Create a directory that is removed at the end unless it was renamed."""
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
        "Subjects are indices in a manifest that is kept by the owner of the data; no table "
        "contains the ids of participants. Numbers are exactly those stored, in double precision; "
        "times are UTC. Nested values are stored as JSON in one column."
    ]
    if format_ == "csv":
        blocks.append(
            "pandas reads these numbers exactly only with "
            'read_csv(..., float_precision="round_trip").'
        )
    if repro:
        blocks.append(
            "repro.json: specs, tuned settings, seeds, versions, digests of the cohort and split, "
            "a command to repeat each trial, and the sha256 of all tables."
        )
    if shareable:
        blocks.append("Omitted for sharing:")
        blocks += [f"- {what}." for what in LEFT_OUT]
        blocks.append(
            "Remaining risks: the predictions of a good model are close to the true values, and "
            "the metrics of many trials narrow these down further. Anyone who has the cohort can "
            "find out which ids the indices stand for. Share the tables only if this is permitted."
        )
    return "\n".join(map(_filled, blocks)) + "\n"


def _filled(block: str) -> str:
    return textwrap.fill(block, 88, subsequent_indent="  " if block.startswith("-") else "")
