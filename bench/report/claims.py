"""What a report says in words: what its claim covers, under which settings, on whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.report.evidence import Evidence
from bench.report.family import Design
from bench.report.select import Protocol, Row, chosen_encoders
from bench.report.words import count, one_line
from bench.stats.metrics import Metric
from bench.stats.metrics import metric as metric_of
from registry.models import MODELS, options_of

TOO_SHORT = 5
"""Epochs up to which networks cannot be ranked."""

COVERS = {
    None: "with the published settings",
    "shared": "with these tuned settings; the variance of tuning is not in the interval",
    "per-seed": "architecture, tuning included",
}
"""What the interval and the test cover, by how settings were found."""

SEEN = "its encoder was pretrained on the cohort that it is tested on"

CONDITIONAL = "conditional on this training set"

VERSIONS = {
    "slicebench": "slicebench",
    "python": "Python",
    "torch": "PyTorch",
    "timm": "timm",
    "optuna": "Optuna",
    "numpy": "NumPy",
}
"""Names in the record of a run's environment, and in a sentence."""


def covered(rows: Sequence[Row]) -> str:
    """Return what a comparison of these rows covers; rows of one protocol are tuned one way."""
    mode = next((row.arm.tune for row in rows if row.arm.tune is not None), None)
    changed = changed_settings(rows)
    return f"{COVERS[mode]} but for {changed}" if changed and mode is None else COVERS[mode]


def changed_settings(rows: Sequence[Row]) -> str:
    """Return the settings that differ from the published ones, of models whose card is built in."""
    cards = {(card.name, card.version): card for card in MODELS}
    found: dict[str, list[Row]] = {}
    options: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        model = row.arm.model
        card = None if model.plugin else cards.get((model.name, model.version))
        if card is None:
            continue
        options[row.key] = options_of(card)
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


def captions(protocol: Protocol, evidence: Evidence, metrics: Sequence[Metric]) -> list[str]:
    """Return the caption of a section."""
    directions = ", ".join(
        f"{metric.label}{f' in {metric.unit}' if metric.unit else ''} "
        f"({'higher' if metric.higher_is_better else 'lower'} is better)"
        for metric in metrics
    )
    n_test = evidence.n_subjects or int(protocol.dataset["n_test"])
    lines = [
        "Mean over seeds [95 % t interval over seeds, cut at the metric's bounds] on the same "
        f"{count(n_test, 'test subject')}; {directions}. Training sizes are counted in "
        "subjects; ^: the best of a column; ~: not separable from it at .05 (headline test against "
        "the best, Holm within the column); ?: not tested against it (one run, no variance).",
        f"The claim covers new training runs and new test subjects: {covered(protocol.rows)}.",
    ]
    if any(protocol.conditional(size) for size in protocol.sizes):
        lines.append(
            f"†: above half of the {protocol.dataset['n_pool']} subjects to train on, seeds draw "
            f"nearly the same training set: {CONDITIONAL}."
        )
    if protocol.values["val_size"] == "full":
        lines.append(
            f"Every training size has all {protocol.dataset['n_validation']} validation subjects "
            "(val_size=full): more labelled subjects were used than the size says."
        )
    seen = [row.label for row in protocol.rows if row.arm.encoder and row.arm.encoder.overlap]
    if seen:
        lines.append(f"Not to be trusted as a test, {SEEN}: {', '.join(seen)}.")
    return lines + chosen(dict(protocol.dataset["settings"]))


CHOSEN = {
    "space": {"native": "Scans were centred on the head, not registered (space=native)."},
    "register": {"affine": "Scans were registered to the MNI152 template by an affine transform."},
    "crop": {"brain": "Volumes were cut to the box of the brain (crop=brain)."},
    "image": {"T1_brain_to_MNI": "T1_brain_to_MNI is warped to MNI space non-linearly."},
    "visits": {
        "baseline": "Only the first visit of each subject was used.",
        "last": "Only the last visit of each subject was used.",
    },
    "labels": {
        "baseline": "Labels are those at the subject's baseline, not at the scan.",
        "group": "Labels are the research group of the subject, not the diagnosis at the scan.",
    },
}
"""What a caption says of options of the dataset that are not at their defaults."""


def chosen(settings: Mapping[str, Any]) -> list[str]:
    """Return what was chosen of a cohort's scans, in sentences."""
    lines = [words[settings[name]] for name, words in CHOSEN.items() if settings.get(name) in words]
    if settings.get("image"):
        lines.append(f"Image of a visit: {one_line(str(settings['image']))}.")
    if settings.get("classes"):
        lines.append(f"Classes were formed of diagnoses as {one_line(str(settings['classes']))}.")
    if {"sMCI", "pMCI"} & set(str(settings.get("classes", "")).replace("+", ",").split(",")):
        lines.append(f"MCI was told apart by a follow-up of {settings['horizon']:g} months.")
    if settings.get("within_days"):
        lines.append(
            f"A scan has the label of the nearest exam within {settings['within_days']:g} days."
        )
    if settings.get("hold_out_site"):
        lines.append(f"The test set is the site {one_line(str(settings['hold_out_site']))}.")
    if settings.get("test_cohort"):
        lines.append(f"The test set is the cohort {one_line(str(settings['test_cohort']))}.")
    return lines


def facts(protocol: Protocol, evidence: Evidence) -> list[str]:
    """Return the notes of a section: cohort, settings, what was left out."""
    data, values = protocol.dataset, protocol.values
    lines = [
        f"Cohort {one_line(data['name'])}: {data['n_pool']} subjects to train on, "
        f"{data['n_validation']} validation, {data['n_test']} test; target "
        f"{one_line(data['target'])}{_classes(data['classes'])}."
    ]
    seeds = sorted({trial["seed"] for trial in protocol.trials})
    lines.append(f"Seeds: {', '.join(map(str, seeds))}.")
    encoders = chosen_encoders(row.arm for row in protocol.rows)
    if len(encoders) == 1:
        lines.append(f"Encoder: {one_line(encoders.pop())}.")
    if values["precision"] is not None:
        lines.append(f"Precision of networks: {values['precision']}.")
    if values["epochs"] is not None:
        rule = ", as many optimiser steps at every training size"
        lines.append(
            f"Networks trained for {count(int(values['epochs']), 'epoch')}"
            f"{rule if values['length'] == 'steps' else ''}."
        )
        if values["epochs"] <= TOO_SHORT:
            lines.append(
                f"{count(int(values['epochs']), 'epoch')}: too short to rank models; this shows "
                "that everything runs."
            )
    lines.append(_tuning(protocol))
    changed = changed_settings(protocol.rows)
    if changed:
        lines.append(f"Settings that are not the published ones: {changed}.")
    lines += [
        f"{metric_of(name).label} is undefined for some runs: {why}."
        for name, why in sorted(evidence.reasons.items())
    ]
    lines += [
        f"Dropped from the latest command: {one_line(what)}: {one_line(why)}."
        for dataset, what, why in protocol.command["dropped"]
        if dataset == data["name"]
    ]
    return lines


def methods(protocol: Protocol, design: Design, n_pairs: int) -> list[str]:
    """Return the paragraph on what was compared and how, as it may stand in a paper."""
    if not n_pairs:
        return []
    data = protocol.dataset
    metric = metric_of(protocol.primary_metric)
    seeds = sorted({trial["seed"] for trial in protocol.trials})
    sizes = ", ".join(protocol.size_label(size) for size in protocol.sizes)
    aim = (
        f"The estimand is the difference in expected {metric.label}"
        f"{f' ({metric.unit})' if metric.unit else ''} between two models, each trained on "
        f"{protocol.size_label(protocol.primary_size)} subjects of {one_line(data['name'])}, "
        f"over new training runs and new subjects: {covered(protocol.rows)}."
    )
    ran = (
        f"{count(len(protocol.rows), 'model')} ({', '.join(r.label for r in protocol.rows)}) were "
        f"trained at training sizes of {sizes} subjects with {count(len(seeds), 'seed')} each "
        f"({', '.join(map(str, seeds))}); a seed draws the training subset, which is nested across "
        "sizes and the same for every model, the initialisation and the order of scans. Subjects "
        f"were split once ({data['n_pool']} to train on, {data['n_validation']} for validation, "
        f"{data['n_test']} for the test), and all models, seeds and sizes share the test set. "
        f"{_tuning(protocol)} The best epoch was chosen on validation subjects only."
    )
    family = (
        f"The primary family is {design.words} ({count(n_pairs, 'pair')}; {design.origin}); its "
        "p-values are adjusted by Holm's method. Every other p-value is adjusted by Benjamini and "
        "Hochberg's method and is exploratory."
        if design.confirmatory
        else f"No family of tests was fixed before the runs ({design.origin}), so that every "
        "p-value, adjusted by Benjamini and Hochberg's method, is exploratory."
    )
    tests = (
        "Two models were compared on the same seeds and the same test subjects by the "
        "Obuchowski-Rockette test for seeds crossed with subjects, with Hillis' degrees of "
        f"freedom, in which both vary. {family} Differences are signed so that positive means that "
        "the first model is better; intervals are at 95 %."
    )
    if design.margin is not None:
        tests += (
            f" A difference of less than {design.margin:g} in {metric.label} was taken for none "
            "(two one-sided tests at .05)."
        )
    return [" ".join((aim, ran, tests))]


def software(environments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what computed the runs, in a sentence that may stand in a paper.

    Parameters
    ----------
    environments : iterable of mapping
        As recorded with the runs.
    """
    found: dict[str, set[str]] = {}
    for environment in environments:
        for name in VERSIONS:
            if environment.get(name):
                found.setdefault(name, set()).add(one_line(str(environment[name])))
    if not found:
        return []
    parts = [
        f"{VERSIONS[name]} {' and '.join(sorted(found[name]))}"
        for name in VERSIONS
        if name in found
    ]
    return [f"Software: {', '.join(parts)}."]


def _tuning(protocol: Protocol) -> str:
    tuned = {row.arm.tune for row in protocol.rows if row.arm.trials}
    if not tuned:
        return "Nothing was tuned."
    how = {
        "shared": "one study a model and training size, on seeds that are not reported",
        "per-seed": "one study a model, training size and seed",
    }
    budget = count(int(protocol.values["trials"]), "Optuna trial")
    return f"Tuned: {budget} a study, {how[protocol.values['tune']]}."


def _classes(classes: Sequence[str]) -> str:
    names = [one_line(name) for name in classes]
    if len(names) == 2:
        return f", {names[0]} against {names[1]} (positive)"
    return f", classes {', '.join(names)}" if names else ""
