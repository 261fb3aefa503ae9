"""The tables; their names start with ``bench_``, because Optuna has tables in the same database."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class UTCDateTime(TypeDecorator[datetime]):
    """A time with the zone UTC, which is restored on reading because SQLite does not store it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert times to UTC; raise ValueError for times without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Restore the time zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

KEY = String(16)

datasets = Table(
    "bench_datasets",
    metadata,
    Column("fingerprint", KEY, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("manifest_digest", String(64), nullable=False),
    Column("split_digest", String(64), nullable=False),
    Column("target", String(40), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("classes", JSON, nullable=False),
    Column("shape", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("flow", JSON, nullable=False),
    Column("n_pool", Integer, nullable=False),
    Column("n_validation", Integer, nullable=False),
    Column("n_test", Integer, nullable=False),
)

# True values and covariates of a cohort; a subject is an index in a manifest that is kept locally.
subjects = Table(
    "bench_subjects",
    metadata,
    Column("fingerprint", KEY, ForeignKey("bench_datasets.fingerprint"), primary_key=True),
    Column("subject", Integer, primary_key=True, autoincrement=False),
    Column("side", String(12), nullable=False),
    Column("truth", Float, nullable=False),
    Column("age", Float),
    Column("sex", String(4)),
    Column("site", String(100)),
)

arms = Table(
    "bench_arms",
    metadata,
    Column("key", KEY, primary_key=True),
    Column("fingerprint", KEY, ForeignKey("bench_datasets.fingerprint"), nullable=False),
    Column("model", String(200), nullable=False),
    Column("encoder", String(200)),
    Column("deterministic", Integer, nullable=False),
    Column("spec", JSON, nullable=False),
)

environments = Table(
    "bench_environments",
    metadata,
    Column("key", KEY, primary_key=True),
    Column("content", JSON, nullable=False),
)

# Commands with what was requested and declared, so that reports can label exploratory tests.
commands = Table(
    "bench_commands",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created", UTCDateTime, nullable=False),
    Column("argv", JSON, nullable=False),
    Column("arms", JSON, nullable=False),
    Column("sizes", JSON, nullable=False),  # fingerprint to the requested training sizes
    Column("seeds", JSON, nullable=False),
    Column("dropped", JSON, nullable=False),  # [dataset, what, why]
    Column("declared", JSON),  # metric, size, reference, margin; the rule applies to missing ones
)

studies = Table(
    "bench_studies",
    metadata,
    Column("key", KEY, primary_key=True),
    Column("arm", KEY, ForeignKey("bench_arms.key"), nullable=False),
    Column("n_train", Integer, nullable=False),
    Column("seed", Integer),
    Column("state", String(12), nullable=False),
    Column("best", JSON),
    Column("error", Text),
    Column("finished", UTCDateTime, nullable=False),
    Column("seconds", Float),
    Column("environment", KEY, ForeignKey("bench_environments.key")),
)

tuning_trials = Table(
    "bench_tuning_trials",
    metadata,
    Column("study", KEY, ForeignKey("bench_studies.key", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", String(12), nullable=False),
    Column("params", JSON, nullable=False),
    Column("distributions", JSON, nullable=False),
    Column("value", Float),
    Column("intermediate", JSON, nullable=False),
    Column("seconds", Float),
)

trials = Table(
    "bench_trials",
    metadata,
    Column("key", KEY, primary_key=True),
    Column("arm", KEY, ForeignKey("bench_arms.key"), nullable=False),
    Column("study", KEY, ForeignKey("bench_studies.key")),
    Column("n_train", Integer, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    Column("params", JSON, nullable=False),
    Column("best_epoch", Integer),
    Column("epochs", Integer),
    Column("error", Text),
    Column("finished", UTCDateTime, nullable=False),
    Column("seconds", Float),
    Column("timings", JSON),
    Column("environment", KEY, ForeignKey("bench_environments.key")),
    Column("command", Integer, ForeignKey("bench_commands.id")),
    UniqueConstraint("arm", "n_train", "seed"),
    Index("ix_bench_trials_arm_state", "arm", "state"),
)

metrics = Table(
    "bench_metrics",
    metadata,
    Column("trial", KEY, ForeignKey("bench_trials.key", ondelete="CASCADE"), primary_key=True),
    Column("split", String(12), primary_key=True),
    Column("metric", String(40), primary_key=True),
    Column("value", Float),
    Column("reason", Text),
)

# One row per trial and split: little-endian float64 (n, outputs) and int32 subject indices.
predictions = Table(
    "bench_predictions",
    metadata,
    Column("trial", KEY, ForeignKey("bench_trials.key", ondelete="CASCADE"), primary_key=True),
    Column("split", String(12), primary_key=True),
    Column("subjects", LargeBinary, nullable=False),
    Column("outputs", Integer, nullable=False),
    Column("values", LargeBinary, nullable=False),
)

history = Table(
    "bench_history",
    metadata,
    Column("trial", KEY, ForeignKey("bench_trials.key", ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("train_loss", Float),
    Column("validation", Float),
    Column("seconds", Float),
)

attempts = Table(
    "bench_attempts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("unit", KEY, nullable=False, index=True),
    Column("kind", String(12), nullable=False),
    Column("state", String(12), nullable=False),
    Column("started", UTCDateTime, nullable=False),
    Column("finished", UTCDateTime, nullable=False),
    Column("error", Text),
    Column("log", Text),
)
