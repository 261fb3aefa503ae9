"""Configuration: ``bench.toml`` in the working directory, and environment variables."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.errors import UserError
from registry.executors import EXECUTORS

FILE = "bench.toml"
PATHS = {"root", "table", "withdrawals"}
"""Entries of a ``[data.NAME]`` table that are paths."""


@dataclass(frozen=True)
class Config:
    """Configured paths and cohorts; options of the command line override them.

    ``[data.NAME]`` tables contain ``adapter``, ``root``, ``table`` (one file or a list) and the
    options of the adapter, ``[weights]`` maps names of encoders to files, and ``[slurm]`` (or the
    name of another executor) contains its options. ``cache`` and ``db`` are paths at the top level.
    """

    cache_folder: str
    """The configured cache directory, empty for the default."""
    db: str
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    executors: dict[str, dict[str, Any]] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()

    @property
    def cache(self) -> Path:
        """The directory of prepared cohorts, features and measured layouts.

        Raises
        ------
        UserError
            If none is configured and the user has no home directory for the default.
        """
        if self.cache_folder:
            return Path(self.cache_folder)
        try:
            return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slicebench"
        except RuntimeError:
            raise UserError(
                "Prepared cohorts cannot be stored, because the current user has no home "
                f"directory. Set BENCH_CACHE, or cache in {FILE}, to a writable directory."
            ) from None


def load_config(folder: Path | None = None) -> Config:
    """Read ``bench.toml`` in `folder` (default: the working directory) and the environment.

    ``BENCH_CACHE``, ``BENCH_DB`` and ``BENCH_PLUGINS`` take precedence over the file, and so do
    ``BENCH_ROOT_ADNI`` and ``BENCH_TABLE_ADNI`` for the dataset ``adni`` (in general, its name in
    capitals with ``_`` for all other characters). Several plugins or tables are separated by the
    path separator of the system.

    Raises
    ------
    UserError
        If the file is not valid TOML or one of its entries has the wrong type.
    """
    file = (folder or Path.cwd()) / FILE
    values: dict[str, Any] = {}
    if file.is_file():
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{FILE} is not valid TOML: {error}.") from None
    executors = [card.name for card in EXECUTORS if card.remote]
    unknown = sorted(set(values) - {"cache", "db", "data", "weights", "plugins", *executors})
    if unknown:
        raise UserError(
            f"{FILE} has unknown entries: {', '.join(unknown)}. It may contain cache, db, "
            f"plugins, [weights], {', '.join(f'[{name}]' for name in executors)} and [data.NAME]."
        )
    for name in ("data", "weights", *executors):
        if not isinstance(values.get(name, {}), dict):
            raise UserError(f"[{name}] in {FILE} must be a table.")
    for name, entry in values.get("data", {}).items():
        if not isinstance(entry, dict):
            raise UserError(f"[data.{name}] in {FILE} must be a table.")
    given = os.environ.get("BENCH_PLUGINS")
    plugins = given.split(os.pathsep) if given else values.get("plugins", [])
    return Config(
        cache_folder=_path(os.environ.get("BENCH_CACHE") or values.get("cache") or ""),
        db=_path(os.environ.get("BENCH_DB") or values.get("db") or "results.db"),
        data=_with_environment(values.get("data", {})),
        weights={name: _path(file) for name, file in values.get("weights", {}).items()},
        executors={name: values[name] for name in executors if name in values},
        plugins=tuple(
            _path(file) for file in ([plugins] if isinstance(plugins, str) else plugins) if file
        ),
    )


def _path(value: object) -> str:
    """Return a path with ``~`` expanded to the home directory."""
    return os.path.expanduser(str(value))


def _with_environment(data: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Add roots and tables from the environment; several tables are separated by line breaks."""
    from registry.core import catalogue

    found = {}
    for name in dict.fromkeys([*data, *(card.name for card in catalogue.datasets)]):
        entry = dict(data.get(name, {}))
        suffix = re.sub(r"[^A-Z0-9]", "_", name.upper())
        root, tables = (
            os.environ.get(f"BENCH_ROOT_{suffix}"),
            os.environ.get(f"BENCH_TABLE_{suffix}"),
        )
        if isinstance(entry.get("table"), list):
            entry["table"] = "\n".join(map(str, entry["table"]))
        if root:
            entry["root"] = root
        if tables:
            entry["table"] = "\n".join(tables.split(os.pathsep))
        for key in PATHS & entry.keys():
            entry[key] = "\n".join(map(_path, str(entry[key]).splitlines()))
        if entry:
            found[name] = entry
    return found
