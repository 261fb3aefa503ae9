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
"""Settings of a cohort that name no site, column or file."""

ENVIRONMENT = (
    *("slicebench", "python", "numpy", "optuna", "torch", "timm", "scikit-learn", "system"),
    *("cpu", "machine", "git", "device", "gpu", "threads", "tf32", "layout", "deterministic"),
)
"""What is kept of an environment: versions and kinds of hardware, no name of a machine."""

OPTIONS = (
    *("--model", "--data", "--test-data", "--encoder", "--train-sizes", "--seeds", "--trials"),
    *("--epochs", "--set", "--tune", "--target", "--visits", "--classes", "--crop", "--space"),
    *("--register", "--workers", "--threads", "--device", "--precision", "--per-gpu"),
    *("--keep-weights", "--time-limit", "--reuse", "--metric", "--primary-size", "--reference"),
    *("--margin", "--executor"),
)
"""Options of ``bench run`` whose values name no file, site or person."""

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
"""The columns that are shared; one that the database gets later is not, until it stands here."""

LEFT_OUT = (
    "the table subjects: true values, age, sex, site and side of every subject",
    "settings of cohorts that name a site, a column or a file, --hold-out-site among them",
    "values of options that are or may be paths or names: --root, --table, --db, --weights, "
    "--plugins, --withdrawals, --hold-out-site (their names in capitals stand for them)",
    "names of machines and the commands in records of environments",
    "messages of errors but for their kind, and the logs of workers",
)

_PATH = re.compile(r"""(?<![\w.~])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s,;'"]+""")
_KIND = re.compile(r"[A-Za-z_]\w*(?=:|$)")


def without_paths(value: Any) -> Any:
    """Return a plain value in which every text that is a path is replaced by ``PATH``."""
    if isinstance(value, str):
        return _PATH.sub("PATH", value)
    if isinstance(value, Mapping):
        return {name: without_paths(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(each) for each in value]
    return value


def argv_without_places(argv: Sequence[str]) -> list[str]:
    """Return a stored command in which capitals stand for what may name a place or a person."""
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
    """Split ``--option=value``; a value may hold further signs."""
    option, sign, value = word.partition("=")
    return [option, value] if sign and option.startswith("--") else [word]


def _only(names: Sequence[str]) -> Callable[[Any], Any]:
    return lambda content: without_paths({k: v for k, v in content.items() if k in names})


def _kind(error: str | None) -> str | None:
    """Return the class of an error; its message may hold anything."""
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
"""What is done to a column of a table before it is shared."""
