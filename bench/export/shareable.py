"""What may be shared: tables without labels, subjects, sites and machines."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from registry.datasets import CONFORM

SETTINGS = (
    *("adapter", "adapter_version", *CONFORM, "visits", "classes", "horizon", "labels"),
    *("within_days", "image", "cohort", "split", "split_seed", "test_cohort", "test_adapter"),
)
"""Settings of a cohort whose values are not names of sites, columns or files."""

ENVIRONMENT = (
    *("slicebench", "python", "numpy", "optuna", "torch", "timm", "scikit-learn", "system"),
    *("cpu", "machine", "git", "device", "gpu", "threads", "tf32", "layout", "deterministic"),
)
"""Entries of an environment to share: versions and hardware, but no names of machines."""

OPTIONS = (
    *("--model", "--data", "--test-data", "--encoder", "--train-sizes", "--seeds", "--trials"),
    *("--epochs", "--set", "--tune", "--target", "--visits", "--classes", "--crop", "--space"),
    *("--register", "--workers", "--threads", "--device", "--precision", "--per-gpu"),
    *("--keep-weights", "--time-limit", "--reuse", "--metric", "--primary-size", "--reference"),
    *("--margin", "--executor"),
)
"""Options of ``bench run`` whose values are not names of files, sites or persons."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "trials": (
        *("key", "arm", "study", "n_train", "seed", "state", "params", "best_epoch", "epochs"),
        *("error", "finished", "seconds", "timings", "environment", "command"),
    ),
    "metrics": ("trial", "split", "metric", "value", "reason"),
    "history": ("trial", "epoch", "train_loss", "validation", "seconds"),
    "studies": (
        *("key", "arm", "n_train", "seed", "state", "best", "error", "finished", "seconds"),
        "environment",
    ),
    "tuning": (
        *("study", "number", "state", "params", "distributions", "value", "intermediate"),
        "seconds",
    ),
    "datasets": (
        *("fingerprint", "name", "manifest_digest", "split_digest", "target", "kind", "classes"),
        *("shape", "settings", "flow", "n_pool", "n_validation", "n_test"),
    ),
    "arms": ("key", "fingerprint", "model", "encoder", "deterministic", "spec"),
    "environments": ("key", "content"),
    "commands": ("id", "created", "argv", "arms", "sizes", "seeds", "dropped", "declared"),
}
"""The columns to share; columns added to the database later are not shared by default."""

LEFT_OUT = (
    "the table subjects: true values, age, sex, site and side of every subject",
    "settings of cohorts that contain names of sites, columns or files, such as --hold-out-site",
    "values of options that may contain paths or names: --root, --table, --db, --weights, "
    "--plugins, --withdrawals, --hold-out-site (replaced by the name of the option in capitals)",
    "names of machines, and commands in the table environments",
    "error messages except for their type, and the logs of workers",
)

_PATH = re.compile(r"""(?<![\w.~])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s,;'"]+""")
_KIND = re.compile(r"[A-Za-z_]\w*(?=:|$)")


def without_paths(value: Any) -> Any:
    """Return a plain value in which all paths are replaced by ``PATH``."""
    if isinstance(value, str):
        return _PATH.sub("PATH", value)
    if isinstance(value, Mapping):
        return {name: without_paths(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(each) for each in value]
    return value


def argv_without_places(argv: Sequence[str]) -> list[str]:
    """Return a stored command, with values that may contain paths or names replaced by capitals."""
    words = [part for word in argv[2:] for part in _parts(word)]
    kept = list(argv[:2])
    option = ""
    for word in words:
        if word.startswith("--"):
            option = word
            kept.append(word)
        elif option in OPTIONS or _is_safe_setting(option, word):
            kept.append(without_paths(word))
        else:
            name, sign, _ = word.partition("=")
            capitals = option.lstrip("-").upper().replace("-", "_") or "VALUE"
            kept.append(f"{name}={capitals}" if option in _PAIRS and sign else capitals)
    return kept


_PAIRS = ("--weights", "--data-set")


def _is_safe_setting(option: str, word: str) -> bool:
    return option == "--data-set" and word.partition("=")[0].strip() in SETTINGS


def _parts(word: str) -> list[str]:
    """Split ``--option=value`` at the first equals sign."""
    option, sign, value = word.partition("=")
    return [option, value] if sign and option.startswith("--") else [word]


def _only(names: Sequence[str]) -> Callable[[Any], Any]:
    return lambda content: without_paths({k: v for k, v in content.items() if k in names})


def _kind(error: str | None) -> str | None:
    """Return the type of an error without its message, which may contain names."""
    if not error:
        return error
    found = _KIND.match(error)
    return found.group() if found else "message left out"


CLEAN: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("trials", "error"): _kind,
    ("trials", "params"): without_paths,
    ("studies", "error"): _kind,
    ("studies", "best"): without_paths,
    ("tuning", "params"): without_paths,
    ("tuning", "distributions"): without_paths,
    ("datasets", "settings"): _only(SETTINGS),
    ("datasets", "flow"): without_paths,
    ("arms", "spec"): without_paths,
    ("environments", "content"): _only(ENVIRONMENT),
    ("commands", "argv"): argv_without_places,
    ("commands", "dropped"): without_paths,
}
"""Functions that are applied to columns (table, column) before they are shared."""
