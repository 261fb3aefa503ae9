"""What the database keeps of a cohort: no id of a participant, no path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SubjectRecord:
    """A subject as an index in a manifest that stays on this machine, with its covariates."""

    subject: int
    side: str
    truth: float
    age: float | None = None
    sex: str | None = None
    site: str | None = None


@dataclass(frozen=True)
class DatasetRecord:
    """A cohort as it was used."""

    fingerprint: str
    name: str
    manifest_digest: str
    split_digest: str
    target: str
    kind: str
    classes: Sequence[str]
    shape: Sequence[int]
    settings: Mapping[str, Any]
    flow: Sequence[Sequence[Any]]
    n_pool: int
    n_validation: int
    n_test: int
    subjects: Sequence[SubjectRecord]
