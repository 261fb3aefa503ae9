"""Captions and notes of a report: what its claims cover, and with which settings and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.data.split import MIN_VALIDATION, validation_size
from bench.report.evidence import Evidence
from bench.report.select import Protocol, Row, chosen_encoders
from bench.report.words import one_line
from bench.stats.metric import Metric
from bench.stats.metrics import metric_of
from registry.core import counted
from registry.models import MODELS, model_options

TOO_SHORT = 5
"""Up to this number of epochs, networks cannot be ranked."""

COVERS = {
    None: "with the published settings",
    "shared": "with these tuned settings; the variance due to tuning is not included",
    "per-seed": "with tuning as part of each architecture",
}
"""What intervals and tests cover, by how settings were tuned."""

SEEN = "encoder pretrained on the test cohort"

CONDITIONAL = "conditional on this training set"


def covered(rows: Sequence[Row]) -> str:
    """Return what a comparison of these rows covers; all rows of a protocol are tuned alike."""
    mode = next((row.arm.tune for row in rows if row.arm.tune is not None), None)
    changed = changed_settings(rows)
    return f"{COVERS[mode]} except {changed}" if changed and mode is None else COVERS[mode]


def changed_settings(rows: Sequence[Row]) -> str:
    """Return the settings of built-in models that differ from the published ones."""
    cards = {(card.name, card.version): card for card in MODELS}
    found: dict[str, list[Row]] = {}
    options: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        model = row.arm.model
        card = None if model.plugin else cards.get((model.name, model.version))
        if card is None:
            continue
        options[row.key] = model_options(card)
        published: Mapping[str, Any] = {
            name: card.defaults.get(name, option.default)
            for name, option in options[row.key].items()
        }
        for name, value in row.arm.params.items():
            if name in published and value != published[name]:
                words = str(value).lower() if isinstance(value, bool) else str(value)
                found.setdefault(f"{name}={one_line(words)}", []).append(row)
    parts = []
    for setting, holders in found.items():
        able = [row for row in rows if setting.partition("=")[0] in options.get(row.key, ())]
        whose = "" if len(holders) == len(able) else f" ({', '.join(r.label for r in holders)})"
        parts.append(setting + whose)
    return ", ".join(parts)


def changed_words(protocol: Protocol) -> list[str]:
    """Return a note on settings that differ from the published ones, if there are any."""
    changed = changed_settings(protocol.rows)
    return [f"Settings that differ from the published ones: {changed}."] if changed else []


def captions(protocol: Protocol, evidence: Evidence, metrics: Sequence[Metric]) -> list[str]:
    """Return the caption of a section."""
    directions = ", ".join(
        f"{metric.label}{f' in {metric.unit}' if metric.unit else ''} "
        f"({'higher' if metric.higher_is_better else 'lower'} is better)"
        for metric in metrics
    )
    n_test = evidence.n_subjects or int(protocol.dataset["n_test"])
    lines = [
        "Mean across seeds [95 % t interval, truncated at the metric's bounds], n = "
        f"{counted(n_test, 'test subject')}; {directions}. Training sizes are numbers of subjects. "
        "Best of each column marked ^; ~ not significantly different from the best at .05 "
        "(headline test, Holm within the column); ? not tested against the best (single run or "
        "no variance).",
        f"{_claim(protocol)}. Models are compared {covered(protocol.rows)}.",
    ]
    conditional = [size for size in protocol.sizes if protocol.conditional(size)]
    if conditional:
        share = [
            *(["nearly identical"] if not all(map(protocol.is_all, conditional)) else []),
            *(["identical"] if any(map(protocol.is_all, conditional)) else []),
        ]
        lines.append(
            f"† More than half of the {protocol.dataset['n_pool']} training subjects: the "
            f"training sets of different seeds are {' or '.join(share)}, and results are "
            f"{CONDITIONAL}."
        )
    if words := validation_words(protocol):
        lines.append(words)
    seen = [row.label for row in protocol.rows if row.arm.encoder and row.arm.encoder.overlap]
    if seen:
        lines.append(f"Not a valid test ({SEEN}): {', '.join(seen)}.")
    return lines + chosen(dict(protocol.dataset["settings"]))


CHOSEN = {
    "space": {"native": "Scans were centred on the head, not registered (space=native)."},
    "register": {"affine": "Scans were registered to the MNI152 template by an affine transform."},
    "crop": {"brain": "Volumes were cropped to the bounding box of the brain (crop=brain)."},
    "image": {
        "T1_brain_to_MNI": "T1_brain_to_MNI images are registered non-linearly to MNI space."
    },
    "visits": {
        "baseline": "Only the first visit of each subject was used.",
        "last": "Only the last visit of each subject was used.",
    },
    "labels": {
        "baseline": "Labels are those of the baseline visit, not of the time of the scan.",
        "group": "Labels are the subject's research group, not the diagnosis at the scan.",
    },
}
"""Sentences in the caption on options of the dataset that are not at their defaults."""


def chosen(settings: Mapping[str, Any]) -> list[str]:
    """Return sentences on how scans and labels of the cohort were chosen."""
    lines = [words[settings[name]] for name, words in CHOSEN.items() if settings.get(name) in words]
    if settings.get("image"):
        lines.append(f"Image used for each visit: {one_line(str(settings['image']))}.")
    if settings.get("classes"):
        lines.append(f"Classes were formed from diagnoses as {one_line(str(settings['classes']))}.")
    if {"sMCI", "pMCI"} & set(str(settings.get("classes", "")).replace("+", ",").split(",")):
        lines.append(
            "Stable and progressive MCI were distinguished by a follow-up of "
            f"{settings['horizon']:g} months."
        )
    if settings.get("within_days"):
        lines.append(
            "Each scan has the label of the nearest examination within "
            f"{settings['within_days']:g} days."
        )
    if settings.get("hold_out_site"):
        lines.append(
            f"The test set is the held-out site {one_line(str(settings['hold_out_site']))}."
        )
    if settings.get("test_cohort"):
        lines.append(f"The test set is the cohort {one_line(str(settings['test_cohort']))}.")
    return lines


def is_network(row: Row) -> bool:
    """Whether a model is a network; estimators have no precision, epochs or initialisation."""
    return row.arm.precision is not None


def scope(protocol: Protocol, size: int) -> str:
    """Return to what tests of a difference at a training size generalise."""
    rows = [row for row in protocol.rows if protocol.at(row, size).keys]
    if rows and all(protocol.one_fit(row, size) for row in rows):
        return (
            "new test subjects but not new training runs (every model is a single fit to all "
            "subjects)"
        )
    given = f", {CONDITIONAL}" if protocol.conditional(size) else ""
    return f"new training runs and new test subjects{given}"


def _claim(protocol: Protocol) -> str:
    size = protocol.primary_size
    several = any(
        len(protocol.at(row, size).keys) > 1 or protocol.one_fit(row, size) for row in protocol.rows
    )
    if not several:
        at = protocol.size_label(size)
        return (
            "Results do not generalise to new training runs, because no model has two runs at "
            f"n={at}"
        )
    return f"Tests generalise to {scope(protocol, size)}"


def validation_words(protocol: Protocol) -> str:
    """Return how many validation subjects were used in addition to the training size, if any."""
    counts = _validated(protocol)
    if not counts:
        return ""
    rows = _choosing(protocol)
    full = protocol.values["val_size"] == "full"
    total = int(protocol.dataset["n_validation"])
    if len(set(counts.values())) == 1:
        said = f"{counts[protocol.sizes[0]]} at every training size"
    else:
        said = ", ".join(f"{n} at n={protocol.size_label(size)}" for size, n in counts.items())
    rule = "val_size=full"
    if not full:
        rule = f"one third of the training size, at least {MIN_VALIDATION} and at most all {total}"
    words = (
        "Training sizes exclude the validation subjects used to select "
        f"{' and '.join(_chosen_by_validation(rows))}: {said} ({rule})"
    )
    if any(row.arm.tune == "shared" for row in rows):
        words += "; each tuning study samples its own training and validation subjects"
    return f"{words}."


def _choosing(protocol: Protocol) -> list[Row]:
    """Return the rows for which something was selected on validation subjects."""
    return [row for row in protocol.rows if is_network(row) or row.arm.trials]


def _validated(protocol: Protocol) -> dict[int, int]:
    """Return the number of validation subjects by training size; empty if none are used."""
    if not _choosing(protocol) or protocol.values["val_size"] is None:
        return {}
    full = protocol.values["val_size"] == "full"
    total = int(protocol.dataset["n_validation"])
    return {n: validation_size(n, total, protocol.n_classes, full=full) for n in protocol.sizes}


def _chosen_by_validation(rows: Sequence[Row]) -> list[str]:
    epochs = ["the best epoch of networks"] if any(map(is_network, rows)) else []
    return [*epochs, *(["tuned settings"] if any(row.arm.trials for row in rows) else [])]


def varied_by_seed(protocol: Protocol) -> list[str]:
    """Return what differs between runs with different seeds; empty if nothing does."""
    partial = [size for size in protocol.sizes if not protocol.is_all(size)]
    found = []
    if partial:
        words = "the training subset"
        if len(partial) < len(protocol.sizes):
            words += f" at n={', '.join(map(str, partial))}"
        about = ["nested across sizes"] if len(partial) > 1 else []
        about += ["the same for every model"] if len(protocol.rows) > 1 else []
        found.append(f"{words} ({' and '.join(about)})" if about else words)
    if any(n < int(protocol.dataset["n_validation"]) for n in _validated(protocol).values()):
        found.append("the validation subset")
    if any(map(is_network, protocol.rows)):
        found += ["the initialisation of networks", "the order of scans in training"]
    random = [r.label for r in protocol.rows if not is_network(r) and not r.deterministic]
    if random:
        found.append(f"the random state of {', '.join(random)}")
    return found


def same_seeds(protocol: Protocol) -> bool:
    """Whether all models have finished the same seeds at all training sizes."""
    found = {protocol.at(row, size).seeds for row in protocol.rows for size in protocol.sizes}
    return len(found) == 1


def section_notes(protocol: Protocol, evidence: Evidence) -> list[str]:
    """Return the notes of a section: cohort, settings, and what was excluded."""
    data, values = protocol.dataset, protocol.values
    lines = [
        f"Cohort {one_line(data['name'])}: {data['n_pool']} training, {data['n_validation']} "
        f"validation and {data['n_test']} test subjects; target "
        f"{one_line(data['target'])}{_classes(data['classes'])}."
    ]
    seeds = sorted({trial["seed"] for trial in protocol.trials})
    uneven = "" if same_seeds(protocol) else "; some models or training sizes lack some of them"
    lines.append(f"Seeds: {', '.join(map(str, seeds))}{uneven}.")
    encoders = chosen_encoders(row.arm for row in protocol.rows)
    if len(encoders) == 1:
        lines.append(f"Encoder: {one_line(encoders.pop())}.")
    if values["precision"] is not None:
        lines.append(f"Precision of networks: {values['precision']}.")
    if values["epochs"] is not None:
        rule = " at the largest training size and the same number of optimiser steps at every other"
        at_most = (
            "at most " if any(r.arm.params.get("early_stopping") for r in protocol.rows) else ""
        )
        lines.append(
            f"Networks were trained for {at_most}{counted(int(values['epochs']), 'epoch')}"
            f"{rule if values['length'] == 'steps' else ''}."
        )
        if values["epochs"] <= TOO_SHORT:
            lines.append(
                f"Training for {counted(int(values['epochs']), 'epoch')} is too short to rank "
                "models; it only shows that the software runs."
            )
    lines.append(tuning_words(protocol))
    lines += changed_words(protocol)
    lines += [
        f"{metric_of(name).label} is undefined for some runs: {why}."
        for name, why in sorted(evidence.reasons.items())
    ]
    lines += [
        f"Excluded from the latest command: {one_line(what)} ({one_line(why)})."
        for dataset, what, why in protocol.command["dropped"]
        if dataset == data["name"]
    ]
    return lines


def tuning_words(protocol: Protocol) -> str:
    """Return how the settings of models were found."""
    tuned = {row.arm.tune for row in protocol.rows if row.arm.trials}
    if not tuned:
        return "No hyperparameters were tuned."
    how = {
        "shared": "one study per model and training size, with seeds other than those reported",
        "per-seed": "one study per model, training size and seed",
    }
    budget = counted(int(protocol.values["trials"]), "Optuna trial")
    others = [row.label for row in protocol.rows if not row.arm.trials]
    rest = f"; not tuned: {', '.join(others)}" if others else ""
    return (
        f"Hyperparameters were tuned with {budget} per study "
        f"({how[protocol.values['tune']]}){rest}."
    )


def _classes(classes: Sequence[str]) -> str:
    names = [one_line(name) for name in classes]
    if len(names) == 2:
        return f", {names[1]} (positive class) vs. {names[0]}"
    return f", classes {', '.join(names)}" if names else ""
