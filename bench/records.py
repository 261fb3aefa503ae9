"""Records of a cohort in the database, which contain no participant ids and no paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SubjectRecord:
    """Covariates of a subject, which is represented by its index in a manifest kept locally."""

    subject: int
    side: str
    truth: float
    age: float | None = None
    sex: str | None = None
    site: str | None = None


@dataclass(frozen=True)
class DatasetRecord:
    """A cohort with the settings, labels and split that were used."""

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
