"""Copies of finished studies in Optuna's tables, for optuna-dashboard."""

from __future__ import annotations

from sqlalchemy import select

from bench.store import schema
from bench.store.database import optuna_url
from bench.store.store import DONE, Store
from bench.unit import TuningTrial

TRIALS = schema.tuning_trials
COLUMNS = [column for column in TRIALS.c if column.name != "study"]


def mirror_study(store: Store, key: str) -> str:
    """Copy a finished study into Optuna's tables in the same database, replacing an older copy.

    Returns
    -------
    str
        A warning with its remedy if copying failed, which does not affect the results; otherwise
        an empty string.
    """
    import optuna
    from optuna.storages import RDBStorage

    from bench.tune import frozen_trial

    waiting = "timeout" if store.engine.dialect.name == "sqlite" else "connect_timeout"
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        query = select(*COLUMNS).where(TRIALS.c.study == key).order_by(TRIALS.c.number)
        with store.engine.connect() as connection:
            trials = [TuningTrial(**row) for row in connection.execute(query).mappings()]
        storage = RDBStorage(
            optuna_url(store.database),
            engine_kwargs={"connect_args": {waiting: 30}},
        )
        for older in optuna.study.get_all_study_names(storage):
            # In early versions, the name of a study was its key.
            if older == key or older.endswith(f" ({key})"):
                optuna.delete_study(study_name=older, storage=storage)
        study = optuna.create_study(
            study_name=_name(store, key), storage=storage, direction="minimize"
        )
        for trial in trials:
            study.add_trial(frozen_trial(trial))
        storage.engine.dispose()
    except Exception as error:
        # Optuna may raise anything, for example for tables of another version. The results are
        # already stored in our tables.
        return (
            f"study {key} is stored, but could not be copied into Optuna's tables "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); try again with `bench db "
            "mirror`"
        )
    finally:
        optuna.logging.set_verbosity(before)
    return ""


def _name(store: Store, key: str) -> str:
    """Return a descriptive name of a study that ends with its key, which makes it unique."""
    arms, datasets, studies = schema.arms.c, schema.datasets.c, schema.studies.c
    query = (
        select(arms.model, arms.encoder, datasets.name, datasets.target)
        .add_columns(studies.n_train, studies.seed)
        .join_from(schema.studies, schema.arms, studies.arm == arms.key)
        .join(schema.datasets, datasets.fingerprint == arms.fingerprint)
        .where(studies.key == key)
    )
    with store.engine.connect() as connection:
        row = connection.execute(query).one()
    model = f"{row.model} [{row.encoder}]" if row.encoder else row.model
    seeds = "all seeds" if row.seed is None else f"seed {row.seed}"
    return f"{model} on {row.name}, {row.target}, n={row.n_train}, {seeds} ({key})"


def mirror_all(store: Store) -> list[str]:
    """Copy all finished studies into Optuna's tables; return the warnings."""
    done = store.frame(select(schema.studies.c.key).where(schema.studies.c.state == DONE))
    return [problem for key in done["key"] if (problem := mirror_study(store, key))]
