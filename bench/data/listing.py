"""From a request to the list of a dataset's scans, with the reason why any of them is not used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.data import choices, manifest
from bench.data.adapters.reading import listed
from bench.data.cache import Progress
from bench.data.volume import Conform
from registry.cards import DatasetCard, Task, Value
from registry.core import catalogue, counted, did_you_mean, resolve
from registry.datasets import CONFORM, dataset_options
from registry.errors import UserError

UPDATABLE = ("table", "withdrawals")
"""Options naming files of which a newer version may be used later."""


@dataclass(frozen=True)
class CohortRequest:
    """A dataset with its options. Names and values are checked, but no file was read yet.

    Parameters
    ----------
    name : str
        The name that the user gave it.
    card : DatasetCard
        The card of its adapter.
    root : Path or None
        The root directory; None for synthetic cohorts, and for a table, whose folder is then used.
    options : dict
        All options of the card and of the preparation of volumes.
    target : str
        ``age``, ``diagnosis`` or ``sex``.
    new_split : bool
        Whether a stored split is ignored.
    test : CohortRequest or None
        Another dataset whose subjects are the test set.
    """

    name: str
    card: DatasetCard
    root: Path | None
    options: Mapping[str, Value]
    target: str
    new_split: bool = False
    test: CohortRequest | None = None

    @property
    def cohort(self) -> str:
        """Name of the cohort; several datasets may contain scans of the same cohort."""
        return str(self.options["cohort"]) or self.card.name


def cohort_request(
    name: str,
    configured: Mapping[str, Any],
    *,
    root: Path | None = None,
    options: Mapping[str, str] | None = None,
    target: str | None = None,
    new_split: bool = False,
) -> CohortRequest:
    """Combine the configuration of a dataset with options of the command line.

    Parameters
    ----------
    name : str
        Name of a dataset's card, or of a ``[data.NAME]`` table in ``bench.toml``.
    configured : mapping
        That table, or an empty mapping: ``adapter``, ``root``, ``target`` and options.
    root, options, target
        Values from the command line, which take precedence.
    new_split : bool
        Whether a stored split is ignored.

    Returns
    -------
    CohortRequest

    Raises
    ------
    UserError
        If a dataset, option or target is unknown, a value is out of range, or a required root is
        missing.
    """
    card = catalogue.dataset(str(configured.get("adapter", name)))
    known = dataset_options(card)
    rest = {k: v for k, v in configured.items() if k not in ("adapter", "root", "target")}
    values = {key: card.defaults.get(key, option.default) for key, option in known.items()}
    for where, given in ((f"[data.{name}] ", rest), ("--data-set ", options or {})):
        for key, value in given.items():
            if key not in known:
                raise UserError(
                    f"{where}{key}: the dataset {card.name} has no such option"
                    f"{did_you_mean(key, known)}; its options are {', '.join(known) or 'none'}."
                )
            try:
                values[key] = known[key].parse(str(value))
            except ValueError as error:
                raise UserError(f"{where}{key}={value}: {error}.") from None
    target = target or configured.get("target") or card.default_target
    if target not in manifest.TARGETS or target not in card.targets:
        raise UserError(
            f"--target {target}: the dataset {card.name} has no such target; choose one of "
            f"{', '.join(card.targets)}."
        )
    place = root or (Path(configured["root"]) if "root" in configured else None)
    if place is None and card.needs_root:
        raise UserError(
            f"The dataset {name} needs its root directory: use --root DIR, or set "
            f'root = "DIR" in [data.{name}] of bench.toml.'
        )
    if card.synthetic:
        place = None
    if target != "diagnosis" and "classes" not in {**rest, **(options or {})}:
        values["classes"] = ""
    if values["crop"] == "brain" and values["space"] == "native" and values["register"] == "none":
        raise UserError(
            "crop=brain needs scans in MNI space, so it cannot be used with space=native; add "
            "--register affine, or use crop=none."
        )
    return CohortRequest(name, card, place, values, target, new_split)


def with_test_cohort(request: CohortRequest, test: CohortRequest) -> CohortRequest:
    """Return a request that trains on one dataset and tests on another.

    The options of the first determine the volumes and classes of both.
    """
    shared = [*CONFORM, "classes", "horizon"]
    options = {**test.options, **{name: request.options[name] for name in shared}}
    return dataclasses.replace(request, test=dataclasses.replace(test, options=options))


@dataclass(frozen=True)
class Listing:
    """The scans of a dataset, chosen by tables and file names without reading any voxels.

    Parameters
    ----------
    request : CohortRequest
        The dataset and its options.
    folder : Path
        The cohort's folder in the cache, which contains its split.
    scans : DataFrame
        All scans found, with the columns of `bench.data.manifest.tidy`, ``file`` (the path, as
        str) and ``external`` (True for scans of the test cohort). Scans to be used have an empty
        ``reason``; ``attrs["warnings"]`` contains messages for the user.
    """

    request: CohortRequest
    folder: Path
    scans: pd.DataFrame

    @property
    def chosen(self) -> pd.DataFrame:
        """The scans that are not excluded, whose voxels are to be read."""
        return self.scans[self.scans["reason"] == ""]

    @property
    def files(self) -> list[Path]:
        """The files of the chosen scans."""
        return [Path(file) for file in self.chosen["file"]]

    @property
    def substitutes(self) -> dict[int, list[Path]]:
        """The files that may replace a chosen scan, in order, by the number of the scan."""
        number = {index: row for row, index in enumerate(self.chosen.index)}
        found = choices.substitutes(self.scans, self.request.target)
        return {
            number[one]: [Path(file) for file in self.scans.loc[others, "file"]]
            for one, others in found.items()
        }

    def after_reading(self, unusable: Mapping[Path, str]) -> tuple[Listing, pd.Index]:
        """Return the listing in which substitutes replace unusable scans.

        Parameters
        ----------
        unusable : mapping
            The reason why a file cannot be used, for each unusable file that was read.

        Returns
        -------
        listing : Listing
            The listing with the new choice.
        rows : Index
            For each previously chosen scan, in order, the index in `scans` of its substitute, or
            its own index if it was not replaced.
        """
        # Series.map is avoided because it does not support file names that are not UTF-8.
        whys = {str(file): why for file, why in unusable.items()}
        files = self.scans["file"].items()
        bad = {int(str(index)): whys[file] for index, file in files if file in whys}
        scans, taken = choices.replace(self.scans, self.request.target, bad)
        rows = pd.Index([taken.get(one, one) for one in self.chosen.index])
        return dataclasses.replace(self, scans=scans), rows

    @property
    def task(self) -> Task:
        """The task given by the labels of the chosen scans; UserError if there is none."""
        return manifest.task_of(self.scans[~self.scans["external"]], self.request.target)

    @property
    def conform(self) -> Conform:
        """How the chosen scans are prepared; UserError if their space is unknown."""
        options = self.request.options
        return Conform(
            grid=str(options["grid"]),
            zscore=str(options["zscore"]),
            space=_space(self.request, self.chosen),
            crop=str(options["crop"]),
            storage=str(options["storage"]),
            register=str(options["register"]),
        )


def list_scans(
    request: CohortRequest, cache_dir: Path, progress: Progress | None = None
) -> Listing:
    """Find all scans of a dataset and choose those to be used, without reading any voxels.

    Parameters
    ----------
    request : CohortRequest
        The dataset and its options.
    cache_dir : Path
        The cache folder, in which synthetic cohorts are generated.
    progress : callable, optional
        Called while a synthetic cohort is generated.

    Returns
    -------
    Listing

    Raises
    ------
    UserError
        If the dataset is not found, or does not have the expected structure.
    """
    root = _root(request, cache_dir, progress)
    scans = _found(request, root)
    scans["external"] = False
    if request.test is not None:
        scans = _with_external(scans, request, cache_dir, progress)
    return Listing(request, _folder(request, root, cache_dir), scans)


MANIFEST = ("subject_id", "session_id", "path", "age", "sex", "diagnosis", "site")


def manifest_table(scans: pd.DataFrame, target: str) -> pd.DataFrame:
    """Return the manifest for users, with one row per scan found.

    Its columns are ``subject_id, session_id, path, age, sex, diagnosis, site, raw_label`` (the
    source of the label), ``used`` (yes or no) and ``reason``.

    Parameters
    ----------
    scans : DataFrame
        The scans of a `Listing` or of a `bench.data.inspect.Inspection`.
    target : str
        The label that a scan must have to be used.
    """
    rows = scans[list(MANIFEST)].assign(age=scans["age"].round(2), raw_label=scans["source"])
    reasons = scans["reason"].where(
        (scans["reason"] != "") | manifest.labelled(scans, target), f"no {target}"
    )
    rows["used"] = (reasons == "").map({True: "yes", False: "no"})
    return rows.assign(reason=reasons)


def _found(request: CohortRequest, root: Path) -> pd.DataFrame:
    found = resolve(request.card.target)(root, dict(request.options))
    scans = choices.choose(manifest.tidy(found), request.options)
    manifest.refuse_repeats(scans)
    # The type is object because the path of the root need not be UTF-8.
    scans["file"] = pd.Series([str(root / path) for path in scans["path"]], dtype=object)
    return scans


def _with_external(
    scans: pd.DataFrame, request: CohortRequest, cache_dir: Path, progress: Progress | None
) -> pd.DataFrame:
    """Add the scans of the test cohort, whose name is prepended to its subject ids.

    A subject has the same id in all datasets of a cohort, so datasets of one cohort must not share
    ids. Ids of different cohorts may be equal by chance.
    """
    test = request.test
    assert test is not None
    others = _found(test, _root(test, cache_dir, progress))
    shared = sorted(set(scans["subject_id"]) & set(others["subject_id"]))
    if shared and test.cohort == request.cohort:
        raise UserError(
            f"{request.name} and the test cohort {test.name} share "
            f"{counted(len(shared), 'subject')} ({listed(shared[:2])}), so training data would "
            "leak into the test set; use another test cohort. If they are different people with "
            'the same ids, set cohort = "NAME" in the bench.toml table of one of them.'
        )
    known = scans.attrs.get("classes")
    if request.target != "age":
        classes = known or manifest.class_order(scans.loc[scans["reason"] == "", request.target])
        # Upper and lower case may differ between the two cohorts.
        names = {name.casefold(): name for name in classes}
        words = others[request.target]
        others[request.target] = words.map(lambda word: names.get(word.casefold(), word))
        outside = ~others[request.target].isin([*classes, ""])
        choices.leave_out(others, outside, f"{request.target} that is not trained on")
    others["subject_id"] = f"{test.name}:" + others["subject_id"]
    others["external"] = True
    attrs = {
        **scans.attrs,
        "warnings": [*scans.attrs.get("warnings", ()), *others.attrs.get("warnings", ())],
    }
    both = pd.concat([scans.assign(), others.assign()], ignore_index=True)
    both["subject"] = both["subject_id"].rank(method="dense").astype(int) - 1
    both.attrs = attrs
    return both


def _root(request: CohortRequest, cache_dir: Path, progress: Progress | None) -> Path:
    if request.card.synthetic:
        from bench.data.synthetic import materialise

        return materialise(request.card.name, cache_dir, progress)
    if request.root is not None:
        root = request.root.expanduser()
    else:
        root = Path(str(request.options.get("table", ""))).expanduser().parent
    if not root.is_dir():
        raise UserError(
            f"The root {root} of the dataset {request.name} is not a directory; check --root."
        )
    return root.absolute()


def _folder(request: CohortRequest, root: Path, cache_dir: Path) -> Path:
    """Return the cohort's folder, which is specific to the adapter, root and choice of scans.

    The folder contains the split. The grid and newer versions of tables and lists of withdrawals
    do not change it, so that no subject moves to another set.
    """
    options = {k: v for k, v in request.options.items() if k not in (*CONFORM, *UPDATABLE)}
    if request.root is None:
        options["table"] = str(Path(str(request.options.get("table", ""))).expanduser().resolve())
    if request.test is not None:
        options["test"] = request.test.name
    place = manifest.sha256_of([request.card.name, str(root.resolve()), options])
    return cache_dir / "cohorts" / f"{request.card.name}-{place[:8]}"


def _space(request: CohortRequest, used: pd.DataFrame) -> str:
    """Return ``mni`` or ``native``; raise UserError if the space of any scan is unknown."""
    if request.options["register"] == "affine":
        return "mni"
    if request.options["space"] != "auto":
        return str(request.options["space"])
    unknown = used[used["space"] != "mni"]
    if len(unknown):
        raise UserError(
            f"The file names of {len(unknown)} of {len(used)} scans of {request.name} do not "
            f"declare MNI space (for example {unknown['path'].iloc[0]}): add `--space mni` if they "
            "are registered to it, `--register affine` to register them, or `--space native` to "
            "only centre them on the head."
        )
    return "mni"
