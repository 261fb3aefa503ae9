"""TRIPOD+AI (Collins et al., BMJ 2024;385:e078378), item by item in our own short words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.report.checklists.comparison import metric_labels, tuning, versions
from bench.report.checklists.known import Item, Known
from bench.report.claims import chosen, is_network, validation_words
from bench.report.tables.leaderboard import score_cell
from bench.report.words import count, number, one_line

SIDES = {"train": "training pool", "validation": "validation", "test": "test"}


def tripod_items(known: Known) -> list[Item]:
    """Return the items with what the store knows.

    Parameters
    ----------
    known : Known
        One protocol.
    """
    return [
        *_introduction(known),
        *_participants(known),
        *_variables(known),
        *_analysis(known),
        *_openness(known),
        *_results(known),
        *_discussion(),
    ]


def _introduction(known: Known) -> list[Item]:
    target = one_line(known.data["target"])
    return [
        Item(
            "1 title",
            "Does it say that a prediction model is made or tested, for whom and what?",
            f"Predicted: {target}.",
            "word the title.",
        ),
        Item(
            "2 abstract", "Is it structured as the statement's list for abstracts?", "", "write it."
        ),
        Item("3a context", "Which clinical question, which earlier models?", "", "describe."),
        Item("3b purpose", "For whom, used by whom, where in care?", "", "describe."),
        Item(
            "3c inequalities", "Which known differences between groups of people?", "", "describe."
        ),
        Item(
            "4 objectives",
            "Development, evaluation or both?",
            f"Development of {count(len(known.rows), 'model')} and their evaluation.",
        ),
    ]


def _participants(known: Known) -> list[Item]:
    data, settings = known.data, known.settings
    adapter = one_line(str(settings.get("adapter", "")))
    left_out = [(what, n) for what, n in data["flow"] if str(what).startswith("left out: ")]
    sites = {person["site"] for person in known.people if person["site"]}
    return [
        Item(
            "5a sources",
            "Where do the data come from, and whom do they represent?",
            f"{one_line(data['name'])}{f', read as {adapter}' if adapter else ''}.",
            "why this source, and for whom is it representative?",
        ),
        Item("5b dates", "When were people included and scanned?", "", "give the dates."),
        Item(
            "6a setting",
            "Which kind of care, how many centres?",
            f"{count(len(sites), 'site')}." if sites else "",
            "describe the centres.",
        ),
        Item(
            "6b eligibility",
            "Who could take part?",
            flow_words(left_out) if left_out else "No scan was left out here.",
            "the cohort's own criteria.",
        ),
        Item("6c treatment", "Which treatments, and were they accounted for?", "", "describe."),
        Item(
            "7 preparation",
            "How were data prepared, and equally for all groups?",
            " ".join([prepared_words(known), *chosen(settings)]),
            "what was done before (skull stripping, quality control)?",
        ),
    ]


_PREPARED = ("grid", "space", "register", "crop", "zscore")


def _variables(known: Known) -> list[Item]:
    classes = known.classes
    outcome = f"{one_line(known.data['target'])}"
    outcome += f": {', '.join(classes)}." if classes else ", in years."
    total = sum(int(known.data[f"n_{side}"]) for side in ("pool", "validation", "test"))
    flow = [(what, n) for what, n in known.data["flow"] if str(what).startswith("left out: ")]
    return [
        Item("8a outcome", "What is predicted, and when?", outcome, "how was it established?"),
        Item(
            "8b assessors", "Who judged a subjective outcome?", "", "their training, if it applies."
        ),
        Item("8c blinding", "Was it judged without knowing the scan?", "", "say so, or why not."),
        Item("9a predictors", "How were predictors chosen?", "The scan alone; no other variable."),
        Item(
            "9b definition",
            "How and when was each predictor measured?",
            "Voxels of the prepared scan.",
            "modality, scanners and sequences.",
        ),
        Item("9c their assessors", "Who judged subjective predictors?", "Nobody: voxels only."),
        Item(
            "10 sample size",
            "How many, and why that many?",
            f"{total} subjects: {known.data['n_pool']} to train on, {known.data['n_validation']} "
            f"validation, {known.data['n_test']} test.",
            "was the number planned (bench power)?",
        ),
        Item(
            "11 missing data",
            "What was done about missing values?",
            "Scans without image or label are left out and counted; none imputed. "
            f"{flow_words(flow)}"
            if flow
            else "Scans without image or label are left out; here none was.",
        ),
    ]


def _analysis(known: Known) -> list[Item]:
    protocol, settings = known.protocol, known.settings
    words, ask = tuning(known)
    models = ", ".join(row.label for row in known.rows)
    networks = any(map(is_network, known.rows))
    select = protocol.values["select"]
    by = "accuracy" if select == "accuracy" else "MAE" if not known.classes else "log loss"
    weights = {
        str(row.arm.params["class_weights"])
        for row in known.rows
        if "class_weights" in row.arm.params
    }
    test = settings.get("test_cohort") or settings.get("hold_out_site")
    return [
        Item(
            "12a use of data",
            "Which data develop, which evaluate?",
            f"{one_line(str(settings.get('split', 'Split by subject'))).rstrip('.')}; "
            f"training sizes {', '.join(map(protocol.size_label, protocol.sizes))}. "
            f"{validation_words(protocol)}".strip(),
        ),
        Item(
            "12b predictors",
            "How were predictors handled?",
            f"Voxels standardised: {settings['zscore']}." if settings.get("zscore") else "",
            "" if settings.get("zscore") else "how were voxels scaled?",
        ),
        Item(
            "12c building",
            "Type of model, why, how built, tuned and validated?",
            f"{models}. {words}{f' Best epoch by validation {by}.' if networks else ''}",
            f"why these models? {ask}".strip(),
        ),
        Item("12d clusters", "How were differences between centres handled?", "", "describe."),
        Item(
            "12e measures",
            "Which measures of performance?",
            f"{', '.join(metric_labels(known))}; primary {known.primary.label}."
            if metric_labels(known)
            else f"Primary {known.primary.label}.",
            "is there a measure of clinical use (net benefit)?" if known.classes else "",
        ),
        Item("12f updating", "Was a model updated after evaluation?", "No."),
        Item(
            "12g predictions",
            "How are predictions computed?",
            "By each trained model from one prepared volume, of which models of slices see those "
            "that their settings choose; bench predict does so for new scans.",
        ),
        Item(
            "13 imbalance",
            "Were rare classes treated specially?",
            f"{class_counts(known)}. Class weights: {' and '.join(sorted(weights)) or 'none'}."
            if known.classes
            else "Not a question of classes.",
        ),
        Item(
            "14 fairness",
            "What was done so that groups are served alike?",
            "",
            "compare sexes, sites and age bands.",
        ),
        Item(
            "15 output",
            "What does a model put out?",
            f"Probabilities of {', '.join(known.classes)}; classes by the larger."
            if len(known.classes) > 2
            else f"The probability of {known.classes[1]}, positive from 0.5."
            if known.classes
            else f"{one_line(known.data['target'])} in years.",
        ),
        Item(
            "16 differences",
            "How do training and test data differ?",
            f"Tested on {one_line(str(test))}." if test else "Sides of one cohort, by chance.",
            "in setting, criteria or outcome?" if test else "",
        ),
        Item("17 ethics", "Which approval and consent?", "", "name them."),
    ]


def _openness(known: Known) -> list[Item]:
    found, ask = versions(known)
    return [
        Item("18a funding", "Who paid?", "", "name them."),
        Item("18b interests", "Which conflicts of interest?", "", "declare them."),
        Item(
            "18c protocol",
            "Where is the study's protocol?",
            f"Primary family of tests: {known.design.origin}.",
            "is there a written one?",
        ),
        Item("18d registration", "Was it registered?", "", "number, or say that it was not."),
        Item("18e data", "Can others have the data?", "", "say how."),
        Item(
            "18f code",
            "Can others have the code?",
            found,
            f"where are code and `bench export --repro`? {ask}".strip(),
        ),
        Item("19 public", "Were patients or the public involved?", "", "say how, or that not."),
    ]


def _results(known: Known) -> list[Item]:
    people = people_words(known)
    return [
        Item("20a flow", "Who came in, who was left out?", flow_words(known.data["flow"])),
        Item(
            "20b people",
            "Who are they?",
            f"{'; '.join(people)}." if people else "",
            "further characteristics, treatment and follow-up.",
        ),
        Item(
            "20c comparison",
            "How do those tested compare with those trained on?",
            "See 20b; bench data check tests the balance of the sides.",
        ),
        Item(
            "21 numbers",
            "How many people and events in each analysis?",
            f"{class_counts(known)}." if known.classes else f"{known.data['n_test']} tested.",
        ),
        Item(
            "22 full model",
            "Is everything there to predict for a new person?",
            "Every setting is in `bench export --repro`.",
            "where are the weights (--keep-weights best)?",
        ),
        Item(
            "23a performance",
            "How good is it, with intervals, and in groups?",
            *performance(known),
        ),
        Item("23b clusters", "How does performance differ between centres?", "", "describe."),
        Item("24 updating", "What did an update change?", "Nothing was updated."),
    ]


def _discussion() -> list[Item]:
    return [
        Item("25 meaning", "What do the results mean, also for fairness?", "", "discuss."),
        Item("26 limits", "Which limits, which biases?", "", "discuss."),
        Item("27a poor input", "What if a scan is poor or missing?", "", "describe."),
        Item("27b users", "What must its users do and know?", "", "describe."),
        Item("27c next", "What comes next, where else may it hold?", "", "discuss."),
    ]


def prepared_words(known: Known) -> str:
    """Return the shape of volumes and how they were made."""
    shape = " x ".join(map(str, known.data["shape"]))
    prepared = [f"{key} {known.settings[key]}" for key in _PREPARED if known.settings.get(key)]
    return f"Volumes of {shape} voxels; {', '.join(prepared)}."


def people_words(known: Known) -> list[str]:
    """Return number, age and sex of the subjects of every side."""
    return [_people(name, known.on(side)) for side, name in SIDES.items() if known.on(side)]


def flow_words(steps: Sequence[Sequence[Any]]) -> str:
    """Return how many scans were found, left out and used."""
    return f"{'; '.join(f'{one_line(str(what))}: {n}' for what, n in steps)}."


def class_counts(known: Known) -> str:
    """Return how many subjects of each class are on every side."""
    parts = []
    for side, name in SIDES.items():
        truth = [person["truth"] for person in known.on(side)]
        if truth:
            counts = [f"{truth.count(float(i))} {c}" for i, c in enumerate(known.classes)]
            parts.append(f"{name} {', '.join(counts)}")
    return "; ".join(parts) or "Counts are not stored"


def _people(name: str, people: Sequence[Mapping[str, Any]]) -> str:
    ages = [person["age"] for person in people if person["age"] is not None]
    words = f"{name} {len(people)}"
    if len(ages) > 1:
        words += (
            f", age {number(float(np.mean(ages)), 1)} (sd {number(float(np.std(ages, ddof=1)), 1)})"
        )
    sexes = [person["sex"] for person in people if person["sex"]]
    counts = [f"{sexes.count(sex)} {one_line(sex)}" for sex in sorted(set(sexes))]
    return ", ".join([words, *counts])


def performance(known: Known) -> tuple[str, str]:
    """Return the primary metric of every model at the primary size, and what it leaves open."""
    groups = "subgroups by sex, site and age."
    if known.evidence is None:
        return "", f"the runs cannot be compared; {groups}"
    size = known.protocol.primary_size
    scores = [
        f"{row.label} {score_cell(known.protocol, known.evidence, row, size, known.primary).text}"
        for row in known.rows
    ]
    return f"{known.primary.label} at n={known.size}: {'; '.join(scores)}.", groups
