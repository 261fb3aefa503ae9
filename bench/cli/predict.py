"""``bench predict``: predictions of a stored trial for any cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.help import DATA, OUTPUT
from bench.cli.options import DatasetOptions, Db, Device, Plugins, Work, expand_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.data.cohort import Cohort
    from bench.store.database import Database

PREPARATION = ("grid", "crop", "zscore", "space")
"""Settings of a cohort that determine how a scan becomes a volume."""


@expand_options
def predict(
    trial: Annotated[str, typer.Argument(help="Key of a trial, or its first characters.")],
    data: Annotated[
        str,
        typer.Option("--data", metavar="NAME", help="Dataset to predict.", rich_help_panel=DATA),
    ],
    dataset: DatasetOptions,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="CSV file to write.", rich_help_panel=OUTPUT),
    ] = Path("predictions.csv"),
    which: Annotated[
        str,
        typer.Option(
            "--which",
            metavar="best|last",
            help="Which of the saved weights to use.",
            rich_help_panel=OUTPUT,
        ),
    ] = "best",
    device: Device = "auto",
    db: Db = None,
    work: Work = None,
    plugins: Plugins = None,
) -> None:
    """Predict all subjects of a dataset with the weights of a trial.

    One scan per subject is predicted.
    """
    from bench.cli.catalogue import load_plugins
    from bench.cli.progress import Ticker, stoppable
    from bench.config import load_config
    from bench.data.cohort import open_cohort
    from bench.execute.settings import weights_folder
    from bench.store.database import find_database
    from registry.errors import UserError

    config = load_config()
    load_plugins(plugins, strict=True)
    if which not in ("best", "last"):
        raise UserError(f"--which must be best or last, got {which!r}.")
    if not out.absolute().parent.is_dir():
        raise UserError(
            f"The directory {out.parent} does not exist; create it or choose another --out."
        )
    database = find_database(db or config.db)
    weights = _find(weights_folder(database, work), trial, which)
    trained = _preparation(weights, database)
    request = dataset.request(data, config)
    # Everything but the space of the scans can be checked before they are read.
    _refuse_other({**trained, **dict(request.options), "space": trained["space"]}, trained)
    with stoppable():
        cohort = open_cohort(request, config.cache, Ticker(f"{data}: preparing scan"))
    _refuse_other(cohort.settings, trained)
    n = _write(weights, cohort, device, out)
    print(f"Predictions of trial {weights.parent.name} for {n} subjects of {data}: {out}")


def _find(folder: Path, trial: str, which: str) -> Path:
    from registry.errors import UserError

    kept = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [one for one in kept if one.name.startswith(trial)]
    if len(found) > 1:
        raise UserError(
            f"The key {trial} is ambiguous: {len(found)} trials with saved weights start with it. "
            "Use more characters of the key."
        )
    if not found or not (found[0] / f"{which}.safetensors").is_file():
        raise UserError(
            f"There are no {which} weights of a trial {trial} in {folder}. Run its command again "
            "with --keep-weights best (or both) and --reuse no. Weights of estimators cannot be "
            "saved."
        )
    return found[0] / f"{which}.safetensors"


def _preparation(weights: Path, database: Database) -> dict[str, Any]:
    """Return how the training volumes of a trial were prepared."""
    from bench.store import schema
    from bench.store.store import Store
    from bench.train.saved_weights import read_spec
    from registry.errors import UserError

    store = Store.for_reading(database)
    try:
        cohorts = store.frame(schema.datasets).set_index("fingerprint")["settings"]
    finally:
        store.close()
    fingerprint = read_spec(weights)["arm"]["fingerprint"]
    if fingerprint not in cohorts.index:
        raise UserError(
            f"{database} does not contain the cohort of trial {weights.parent.name}; specify the "
            "database in which the trial is stored with --db."
        )
    return {name: cohorts[fingerprint][name] for name in PREPARATION}


def _refuse_other(found: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    """Refuse volumes that were prepared with other settings than those used for training."""
    from registry.errors import UserError

    other = {name: value for name, value in trained.items() if found[name] != value}
    if other:
        theirs = ", ".join(f"{name}={value}" for name, value in other.items())
        here = ", ".join(f"{name}={found[name]}" for name in other)
        options = " ".join(f"--data-set {name}={value}" for name, value in other.items())
        raise UserError(
            f"The trial was trained on volumes prepared with {theirs}, but these were prepared "
            f"with {here}, so that its predictions would be meaningless. Use {options}."
        )


def _write(weights: Path, cohort: Cohort, device: str, out: Path) -> int:
    import numpy as np
    import pandas as pd

    from bench.data.cache import as_csv
    from bench.files import write_output
    from bench.spec import arm_from_plain
    from bench.train.numerics import device_for
    from bench.train.saved_weights import predict_with, read_spec

    subjects = np.sort(cohort.frame["subject"].unique())
    rows = cohort.rows(subjects, one_per_subject=True)
    volumes = np.load(cohort.volumes_file, mmap_mode="r")
    found = predict_with(weights, volumes, rows, device_for(device))
    task = arm_from_plain(read_spec(weights)["arm"]).task
    columns = dict(zip(task.output_names, found.T, strict=True))
    ids = [cohort.ids[subject] for subject in cohort.subjects_of(rows)]
    write_output(out, as_csv(pd.DataFrame({"subject_id": ids, **columns})))
    return len(ids)
