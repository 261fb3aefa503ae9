"""Where cohorts, cache and database are: ``bench.toml`` of this folder and the environment."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.errors import UserError

FILE = "bench.toml"
PATHS = {"root", "table", "withdrawals"}
"""What is a path, or several, in a ``[data.NAME]`` table."""


@dataclass(frozen=True)
class Config:
    """The settings of this place; the command line overrides them.

    ``[data.NAME]`` tables hold ``adapter``, ``root``, ``table`` (one file or a list) and the
    adapter's options;
    ``[weights]`` maps encoder names to files; ``cache`` and ``db`` are paths at the top.
    """

    cache_folder: str
    """As it was given; empty for the default."""
    db: str
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()

    @property
    def cache(self) -> Path:
        """The folder of prepared cohorts, features and measured layouts.

        Raises
        ------
        UserError
            When none was given and this user has no home for the default.
        """
        if self.cache_folder:
            return Path(self.cache_folder)
        try:
            return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slicebench"
        except RuntimeError:
            raise UserError(
                "This user has no home folder to keep prepared cohorts in; set BENCH_CACHE, or "
                f"cache in {FILE}, to a folder that may be written."
            ) from None


def load_config(folder: Path | None = None) -> Config:
    """Read ``bench.toml`` of `folder` and the environment.

    ``BENCH_CACHE``, ``BENCH_DB`` and ``BENCH_PLUGINS`` win over the file, and for the dataset
    ``adni`` ``BENCH_ROOT_ADNI`` and ``BENCH_TABLE_ADNI`` (names in capitals, other characters as
    ``_``). Several plugins or tables are joined by the system's path separator.

    Raises
    ------
    UserError
        When the file is not TOML or a table in it is not of the expected kind.
    """
    file = (folder or Path.cwd()) / FILE
    values: dict[str, Any] = {}
    if file.is_file():
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{FILE} is not valid TOML: {error}.") from None
    unknown = sorted(set(values) - {"cache", "db", "data", "weights", "plugins"})
    if unknown:
        raise UserError(
            f"{FILE} has unknown entries: {', '.join(unknown)}; it may hold cache, db, plugins, "
            "[weights] and [data.NAME]."
        )
    for name in ("data", "weights"):
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
        plugins=tuple(
            _path(file) for file in ([plugins] if isinstance(plugins, str) else plugins) if file
        ),
    )


def _path(value: object) -> str:
    """Return a path as it was written, but for a home folder's ``~``."""
    return os.path.expanduser(str(value))


def _with_environment(data: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the datasets with roots and tables of the environment, tables one a line."""
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
