"""Alembic's environment, which ignores Optuna's tables in the same database."""

from alembic import context

from bench.store.engine import VERSION_TABLE
from bench.store.schema import metadata


def _ours(name: str | None, kind: str, parents: object) -> bool:
    return kind != "table" or (name or "").startswith("bench_")


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=_ours,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
