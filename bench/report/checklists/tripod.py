"""TRIPOD+AI (Collins et al., BMJ 2024;385:e078378), its items paraphrased and shortened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.report.checklists.comparison import metric_labels, tuning, versions
from bench.report.checklists.facts import Item, ProtocolFacts
from bench.report.claims import chosen, is_network, validation_words
from bench.report.tables.leaderboard import score_cell
from bench.report.words import number, one_line
from registry.core import counted

SIDES = {"train": "training pool", "validation": "validation", "test": "test"}


def tripod_items(facts: ProtocolFacts) -> list[Item]:
    """Return the items, answered as far as the database contains the answers.

    Parameters
    ----------
    facts : ProtocolFacts
        One protocol.
    """
    return [
        *_introduction(facts),
        *_participants(facts),
        *_variables(facts),
        *_analysis(facts),
        *_openness(facts),
        *_results(facts),
        *_discussion(),
    ]


def _introduction(facts: ProtocolFacts) -> list[Item]:
    target = one_line(facts.data["target"])
    return [
        Item(
            "1 title",
            "Does the title say that a prediction model is developed or evaluated, in which "
            "population and for which outcome?",
            f"Predicted: {target}.",
            "write the title.",
        ),
        Item(
            "2 abstract",
            "Does the abstract follow the TRIPOD+AI list for abstracts?",
            "",
            "write it.",
        ),
        Item("3a context", "What are the clinical context and existing models?", "", "describe."),
        Item(
            "3b purpose",
            "For whom, by whom and where in the care pathway is the model used?",
            "",
            "describe.",
        ),
        Item(
            "3c inequalities",
            "Which health inequalities between groups are known?",
            "",
            "describe.",
        ),
        Item(
            "4 objectives",
            "Does the study develop a model, evaluate one, or both?",
            f"Development of {counted(len(facts.rows), 'model')} and their evaluation.",
        ),
    ]


def _participants(facts: ProtocolFacts) -> list[Item]:
    data, settings = facts.data, facts.settings
    adapter = one_line(str(settings.get("adapter", "")))
    left_out = [(what, n) for what, n in data["flow"] if str(what).startswith("left out: ")]
    sites = {person["site"] for person in facts.people if person["site"]}
    return [
        Item(
            "5a sources",
            "Where do the data come from, and which population do they represent?",
            f"{one_line(data['name'])}{f', read as {adapter}' if adapter else ''}.",
            "why was this source chosen, and which population does it represent?",
        ),
        Item("5b dates", "When were participants recruited and scanned?", "", "give the dates."),
        Item(
            "6a setting",
            "In which setting and at how many centres were the data collected?",
            f"{counted(len(sites), 'site')}." if sites else "",
            "describe the centres.",
        ),
        Item(
            "6b eligibility",
            "What were the eligibility criteria?",
            flow_words(left_out) if left_out else "No scan was excluded.",
            "state the cohort's own criteria.",
        ),
        Item(
            "6c treatment",
            "Which treatments were received, and how were they handled?",
            "",
            "describe.",
        ),
        Item(
            "7 preparation",
            "How were the data preprocessed, and was this the same for all groups?",
            " ".join([prepared_words(facts), *chosen(settings)]),
            "what was done before (skull stripping, quality control)?",
        ),
    ]


_PREPARED = ("grid", "space", "register", "crop", "zscore")


def _variables(facts: ProtocolFacts) -> list[Item]:
    classes = facts.classes
    outcome = f"{one_line(facts.data['target'])}"
    outcome += f": {', '.join(classes)}." if classes else ", in years."
    total = sum(int(facts.data[f"n_{side}"]) for side in ("pool", "validation", "test"))
    flow = [(what, n) for what, n in facts.data["flow"] if str(what).startswith("left out: ")]
    return [
        Item(
            "8a outcome",
            "What is the outcome, and when was it assessed?",
            outcome,
            "how was it established?",
        ),
        Item(
            "8b assessors",
            "Who assessed the outcome, if it is subjective?",
            "",
            "state their qualifications, if applicable.",
        ),
        Item(
            "8c blinding",
            "Was the outcome assessed blind to the scan?",
            "",
            "state it, or say why not.",
        ),
        Item(
            "9a predictors", "How were predictors selected?", "The scan only; no other variables."
        ),
        Item(
            "9b definition",
            "How and when was each predictor measured?",
            "Voxel intensities of the preprocessed scan.",
            "state modality, scanners and sequences.",
        ),
        Item(
            "9c their assessors",
            "Who assessed predictors, if subjective?",
            "Not applicable: voxel intensities only.",
        ),
        Item(
            "10 sample size",
            "How was the sample size determined?",
            f"{total} subjects: {facts.data['n_pool']} training, {facts.data['n_validation']} "
            f"validation and {facts.data['n_test']} test subjects.",
            "was the sample size planned (bench power)?",
        ),
        Item(
            "11 missing data",
            "How were missing data handled?",
            "Scans without an image or label are excluded and counted; nothing was imputed. "
            f"{flow_words(flow)}"
            if flow
            else "Scans without an image or label are excluded; there were none.",
        ),
    ]


def _analysis(facts: ProtocolFacts) -> list[Item]:
    protocol, settings = facts.protocol, facts.settings
    words, ask = tuning(facts)
    models = ", ".join(row.label for row in facts.rows)
    networks = any(map(is_network, facts.rows))
    select = protocol.values["select"]
    by = "accuracy" if select == "accuracy" else "MAE" if not facts.classes else "log loss"
    weights = {
        str(row.arm.params["class_weights"])
        for row in facts.rows
        if "class_weights" in row.arm.params
    }
    test = settings.get("test_cohort") or settings.get("hold_out_site")
    return [
        Item(
            "12a use of data",
            "Which data were used for development and for evaluation?",
            f"{one_line(str(settings.get('split', 'Split by subject'))).rstrip('.')}; "
            f"training sizes {', '.join(map(protocol.size_label, protocol.sizes))}. "
            f"{validation_words(protocol)}".strip(),
        ),
        Item(
            "12b predictors",
            "How were predictors handled?",
            f"Voxel intensities standardised ({settings['zscore']})."
            if settings.get("zscore")
            else "",
            "" if settings.get("zscore") else "how were voxel intensities scaled?",
        ),
        Item(
            "12c building",
            "Which type of model, why, and how was it built, tuned and validated?",
            f"{models}. {words}{f' Best epoch selected by validation {by}.' if networks else ''}",
            f"why these models? {ask}".strip(),
        ),
        Item("12d clusters", "How were differences between centres handled?", "", "describe."),
        Item(
            "12e measures",
            "Which performance metrics were used?",
            f"{', '.join(metric_labels(facts))}; primary {facts.primary.label}."
            if metric_labels(facts)
            else f"Primary {facts.primary.label}.",
            "is there a measure of clinical utility (net benefit)?" if facts.classes else "",
        ),
        Item("12f updating", "Was the model updated after evaluation?", "No."),
        Item(
            "12g predictions",
            "How are predictions computed?",
            "By each trained model from one preprocessed volume (slice models use the slices "
            "selected by their settings); `bench predict` applies models to new scans.",
        ),
        Item(
            "13 imbalance",
            "How was class imbalance handled?",
            f"{class_counts(facts)}. Class weights: {' and '.join(sorted(weights)) or 'none'}."
            if facts.classes
            else "Not applicable (regression).",
        ),
        Item(
            "14 fairness",
            "What was done to address fairness between groups?",
            "",
            "compare sexes, sites and age bands.",
        ),
        Item(
            "15 output",
            "What is the output of the models?",
            f"Probabilities of {', '.join(facts.classes)}; the predicted class is the most "
            "probable one."
            if len(facts.classes) > 2
            else f"The probability of {facts.classes[1]}; positive from 0.5."
            if facts.classes
            else f"{one_line(facts.data['target'])} in years.",
        ),
        Item(
            "16 differences",
            "How do training and evaluation data differ?",
            f"Tested on {one_line(str(test))}." if test else "Random split of one cohort.",
            "in setting, criteria or outcome?" if test else "",
        ),
        Item("17 ethics", "Which ethical approval and consent were obtained?", "", "name them."),
    ]


def _openness(facts: ProtocolFacts) -> list[Item]:
    found, ask = versions(facts)
    return [
        Item("18a funding", "Who funded the study?", "", "name them."),
        Item("18b interests", "What are the conflicts of interest?", "", "declare them."),
        Item(
            "18c protocol",
            "Where is the study's protocol?",
            f"Primary family of tests: {facts.test_plan.origin}.",
            "is there a written one?",
        ),
        Item(
            "18d registration",
            "Was it registered?",
            "",
            "give the number, or state that it was not.",
        ),
        Item("18e data", "Are the data available?", "", "say how."),
        Item(
            "18f code",
            "Is the code available?",
            found,
            f"where are code and `bench export --repro`? {ask}".strip(),
        ),
        Item(
            "19 public",
            "Were patients or the public involved?",
            "",
            "say how, or that they were not.",
        ),
    ]


def _results(facts: ProtocolFacts) -> list[Item]:
    people = people_words(facts)
    return [
        Item(
            "20a flow",
            "How many participants were included and excluded?",
            flow_words(facts.data["flow"]),
        ),
        Item(
            "20b people",
            "What are the characteristics of the participants?",
            f"{'; '.join(people)}." if people else "",
            "add further characteristics, treatment and follow-up.",
        ),
        Item(
            "20c comparison",
            "How do the distributions in the evaluation and development data compare?",
            "See 20b; `bench data check` tests the balance of the three sets.",
        ),
        Item(
            "21 numbers",
            "How many people and events in each analysis?",
            f"{class_counts(facts)}." if facts.classes else f"{facts.data['n_test']} tested.",
        ),
        Item(
            "22 full model",
            "Is everything available that is needed to predict for a new person?",
            "`bench export --repro` writes all settings.",
            "where are the weights (--keep-weights best)?",
        ),
        Item(
            "23a performance",
            "What is the performance, with confidence intervals, overall and in subgroups?",
            *performance(facts),
        ),
        Item("23b clusters", "How heterogeneous is performance across centres?", "", "describe."),
        Item("24 updating", "What were the results of model updating?", "Nothing was updated."),
    ]


def _discussion() -> list[Item]:
    return [
        Item("25 meaning", "How are the results interpreted, including fairness?", "", "discuss."),
        Item("26 limits", "What are the limitations and biases?", "", "discuss."),
        Item("27a poor input", "How should poor or missing scans be handled?", "", "describe."),
        Item("27b users", "What interaction and expertise is required of users?", "", "describe."),
        Item(
            "27c next", "What are the next steps for research and generalisability?", "", "discuss."
        ),
    ]


def prepared_words(facts: ProtocolFacts) -> str:
    """Return the shape of the volumes and how they were prepared."""
    shape = " x ".join(map(str, facts.data["shape"]))
    prepared = [f"{key} {facts.settings[key]}" for key in _PREPARED if facts.settings.get(key)]
    return f"Volumes of {shape} voxels; {', '.join(prepared)}."


def people_words(facts: ProtocolFacts) -> list[str]:
    """Return number, age and sex of the subjects of each set."""
    return [_people(name, facts.on(side)) for side, name in SIDES.items() if facts.on(side)]


def flow_words(steps: Sequence[Sequence[Any]]) -> str:
    """Return how many scans were found, excluded and used."""
    return f"{'; '.join(f'{one_line(str(what))}: {n}' for what, n in steps)}."


def class_counts(facts: ProtocolFacts) -> str:
    """Return the number of subjects of each class in each set."""
    parts = []
    for side, name in SIDES.items():
        truth = [person["truth"] for person in facts.on(side)]
        if truth:
            counts = [f"{truth.count(float(i))} {c}" for i, c in enumerate(facts.classes)]
            parts.append(f"{name} {', '.join(counts)}")
    return "; ".join(parts) or "Class counts are not stored"


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


def performance(facts: ProtocolFacts) -> tuple[str, str]:
    """Return the primary metric of every model at the primary size, and what remains open."""
    groups = "subgroups by sex, site and age."
    if facts.evidence is None:
        return "", f"the runs are not comparable; {groups}"
    size = facts.protocol.primary_size
    scores = [
        f"{row.label} {score_cell(facts.protocol, facts.evidence, row, size, facts.primary).text}"
        for row in facts.rows
    ]
    return f"{facts.primary.label} at n={facts.size}: {'; '.join(scores)}.", groups
