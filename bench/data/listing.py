"""From a request to a list: every scan that a dataset has, which are used, and why others not."""

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
from registry.core import catalogue, did_you_mean, resolve
from registry.datasets import CONFORM, dataset_options
from registry.errors import UserError

UPDATABLE = ("table", "withdrawals")
"""Options naming files of which a newer version may be used later."""


@dataclass(frozen=True)
class CohortRequest:
    """Which dataset, and how: names and values are checked, no file was touched.

    Parameters
    ----------
    name : str
        What the user calls it.
    card : DatasetCard
        Its adapter.
    root : Path or None
        Where it lies; None for embedded cohorts, and for a table whose folder it is then.
    options : dict
        Every option of the card and of conforming, resolved.
    target : str
        ``age``, ``diagnosis`` or ``sex``.
    new_split : bool
        Forget the split that was drawn before.
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
        """Which cohort this is: people may be in it under several datasets."""
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
    """Join what the configuration says of a dataset with what the command line says.

    Parameters
    ----------
    name : str
        A dataset's card, or the name of a ``[data.NAME]`` table of ``bench.toml``.
    configured : mapping
        That table, empty when there is none: ``adapter``, ``root``, ``target`` and options.
    root, options, target
        From the command line; they win.
    new_split : bool
        Draw train, validation and test anew.

    Returns
    -------
    CohortRequest

    Raises
    ------
    UserError
        For an unknown dataset, option or target, a value out of range, or a root that is needed and
        was not given.
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
                    f"{did_you_mean(key, known)}; it has {', '.join(known) or 'none'}."
                )
            try:
                values[key] = known[key].parse(str(value))
            except ValueError as error:
                raise UserError(f"{where}{key}={value}: {error}.") from None
    target = target or configured.get("target") or card.default_target
    if target not in manifest.TARGETS or target not in card.targets:
        raise UserError(
            f"--target {target}: the dataset {card.name} has {', '.join(card.targets)}."
        )
    place = root or (Path(configured["root"]) if "root" in configured else None)
    if place is None and card.needs_root:
        raise UserError(
            f"The dataset {name} needs the folder that it lies in: --root DIR, or root = "
            f'"DIR" in [data.{name}] of bench.toml.'
        )
    if card.synthetic:
        place = None
    if target != "diagnosis" and "classes" not in {**rest, **(options or {})}:
        values["classes"] = ""
    if values["crop"] == "brain" and values["space"] == "native" and values["register"] == "none":
        raise UserError(
            "crop=brain cuts a box of MNI space, and space=native has none; use --register affine, "
            "or leave the crop out."
        )
    return CohortRequest(name, card, place, values, target, new_split)


def with_test_cohort(request: CohortRequest, test: CohortRequest) -> CohortRequest:
    """Return a request that trains on one dataset and tests on another.

    The volumes and classes of both are made by the options of the first.
    """
    shared = [*CONFORM, "classes", "horizon"]
    options = {**test.options, **{name: request.options[name] for name in shared}}
    return dataclasses.replace(request, test=dataclasses.replace(test, options=options))


@dataclass(frozen=True)
class Listing:
    """The scans of a dataset, chosen by its tables and names; no voxel was read.

    Parameters
    ----------
    request : CohortRequest
        What was asked for.
    folder : Path
        The cohort's folder in the cache, which holds its split.
    scans : DataFrame
        Every scan found, as `bench.data.manifest.tidy` describes it, with ``file`` (str, where it
        lies) and ``external`` (True for scans of the test cohort). Those to be used have no
        ``reason``; its ``attrs["warnings"]`` are sentences that a user should read.
    """

    request: CohortRequest
    folder: Path
    scans: pd.DataFrame

    @property
    def chosen(self) -> pd.DataFrame:
        """The scans without a reason against them: those whose voxels are read."""
        return self.scans[self.scans["reason"] == ""]

    @property
    def files(self) -> list[Path]:
        """Where the chosen scans lie."""
        return [Path(file) for file in self.chosen["file"]]

    @property
    def substitutes(self) -> dict[int, list[Path]]:
        """By the number of a chosen scan, the files that stand in for it, in order."""
        number = {index: row for row, index in enumerate(self.chosen.index)}
        found = choices.substitutes(self.scans, self.request.target)
        return {
            number[one]: [Path(file) for file in self.scans.loc[others, "file"]]
            for one, others in found.items()
        }

    def after_reading(self, unusable: Mapping[Path, str]) -> tuple[Listing, pd.Index]:
        """Return the listing with substitutes for what cannot be used.

        Parameters
        ----------
        unusable : mapping
            Why files that were read cannot be used.

        Returns
        -------
        listing : Listing
            What is chosen now.
        rows : Index
            For each scan that was chosen before, in order, the index in `scans` of the one that
            took its place, or its own.
        """
        # Not by Series.map, whose strings cannot hold a name that is not UTF-8.
        whys = {str(file): why for file, why in unusable.items()}
        files = self.scans["file"].items()
        bad = {int(str(index)): whys[file] for index, file in files if file in whys}
        scans, taken = choices.replace(self.scans, self.request.target, bad)
        rows = pd.Index([taken.get(one, one) for one in self.chosen.index])
        return dataclasses.replace(self, scans=scans), rows

    @property
    def task(self) -> Task:
        """What the labels of the chosen scans pose; UserError when they pose nothing."""
        return manifest.task_of(self.scans[~self.scans["external"]], self.request.target)

    @property
    def conform(self) -> Conform:
        """How the chosen scans become volumes; UserError when their space is unknown."""
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
    """Find every scan of a dataset and choose among them, without reading a voxel.

    Parameters
    ----------
    request : CohortRequest
        Which dataset, and how.
    cache_dir : Path
        Where embedded cohorts are made.
    progress : callable, optional
        Told when an embedded cohort is made.

    Returns
    -------
    Listing

    Raises
    ------
    UserError
        When the dataset is not where it should be, or not what it should be.
    """
    root = _root(request, cache_dir, progress)
    scans = _found(request, root)
    scans["external"] = False
    if request.test is not None:
        scans = _with_external(scans, request, cache_dir, progress)
    return Listing(request, _folder(request, root, cache_dir), scans)


MANIFEST = ("subject_id", "session_id", "path", "age", "sex", "diagnosis", "site")


def manifest_table(scans: pd.DataFrame, target: str) -> pd.DataFrame:
    """Return one row a scan found, for people to read.

    Columns ``subject_id, session_id, path, age, sex, diagnosis, site, raw_label`` (what the label
    came from), ``used`` (yes or no) and ``reason``.

    Parameters
    ----------
    scans : DataFrame
        Of a `Listing`, or as reading them left them (`bench.data.inspect.Inspection`).
    target : str
        What must be known of a scan that is used.
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
    # As objects: the root's own name need not be UTF-8.
    scans["file"] = pd.Series([str(root / path) for path in scans["path"]], dtype=object)
    return scans


def _with_external(
    scans: pd.DataFrame, request: CohortRequest, cache_dir: Path, progress: Progress | None
) -> pd.DataFrame:
    """Add the scans of the test cohort; its subjects are named after it.

    People of one cohort have the same ids wherever they lie, so those must not occur on both sides.
    Ids of different cohorts may be equal by chance.
    """
    test = request.test
    assert test is not None
    others = _found(test, _root(test, cache_dir, progress))
    shared = sorted(set(scans["subject_id"]) & set(others["subject_id"]))
    if shared and test.cohort == request.cohort:
        raise UserError(
            f"{request.name} and the test cohort {test.name} share {len(shared)} subjects "
            f"({listed(shared[:2])}), so the test would leak; use another test cohort. If they are "
            "different people with equal ids, give one of them a name of its own: cohort = "
            '"NAME" in its table of bench.toml.'
        )
    known = scans.attrs.get("classes")
    if request.target != "age":
        classes = known or manifest.class_order(scans.loc[scans["reason"] == "", request.target])
        # One class, however the two cohorts write it.
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
        raise UserError(f"The root {root} of the dataset {request.name} is not a folder.")
    return root.absolute()


def _folder(request: CohortRequest, root: Path, cache_dir: Path) -> Path:
    """Return the cohort's folder: one for each adapter, root and choice of scans.

    What is not in its name does not move anybody to another side: the grid, a later table, a later
    list of withdrawals.
    """
    options = {k: v for k, v in request.options.items() if k not in (*CONFORM, *UPDATABLE)}
    if request.root is None:
        options["table"] = str(Path(str(request.options.get("table", ""))).expanduser().resolve())
    if request.test is not None:
        options["test"] = request.test.name
    place = manifest.sha256_of([request.card.name, str(root.resolve()), options])
    return cache_dir / "cohorts" / f"{request.card.name}-{place[:8]}"


def _space(request: CohortRequest, used: pd.DataFrame) -> str:
    """Return ``mni`` or ``native``; a scan of unknown space is never resampled on a guess."""
    if request.options["register"] == "affine":
        return "mni"
    if request.options["space"] != "auto":
        return str(request.options["space"])
    unknown = used[used["space"] != "mni"]
    if len(unknown):
        raise UserError(
            f"{len(unknown)} of {len(used)} scans of {request.name} are not said to be in MNI "
            f"space (the first is {unknown['path'].iloc[0]}): add `--space mni` if they are "
            "registered to it, `--register affine` to have them registered, or `--space native` to "
            "use them as they are, centred on the head's centre of mass."
        )
    return "mni"
