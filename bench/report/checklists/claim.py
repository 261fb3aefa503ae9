"""CLAIM 2024 (Tejani et al., Radiol Artif Intell 2024;6(4):e240300), its 44 items paraphrased."""

from __future__ import annotations

from bench.report.checklists.comparison import metric_labels, tuning, versions
from bench.report.checklists.facts import Item, ProtocolFacts
from bench.report.checklists.tripod import (
    class_counts,
    flow_words,
    people_words,
    performance,
    prepared_words,
)
from bench.report.claims import chosen, is_network, validation_words, varied_by_seed
from bench.report.words import one_line
from registry.core import counted


def claim_items(facts: ProtocolFacts) -> list[Item]:
    """Return the items, answered as far as the database contains the answers.

    Parameters
    ----------
    facts : ProtocolFacts
        One protocol.
    """
    return [
        *_introduction(facts),
        *_data(facts),
        *_reference_standard(facts),
        *_partitions(facts),
        *_model(facts),
        *_training(facts),
        *_evaluation(facts),
        *_results(facts),
        *_discussion(),
    ]


def _introduction(facts: ProtocolFacts) -> list[Item]:
    networks = any(map(is_network, facts.rows))
    return [
        Item(
            "1 title",
            "Does the title say that AI is used, and of which kind?",
            "Comparison of deep learning models."
            if networks
            else "Machine learning without neural networks.",
            "write the title.",
        ),
        Item(
            "2 abstract",
            "Does the abstract summarise design, methods, results and conclusions?",
            "",
            "write it.",
        ),
        Item(
            "3 background", "What is known, and what is the model's clinical role?", "", "describe."
        ),
        Item("4 objectives", "Which aims and hypotheses?", "", "state them."),
        Item("5 design", "Prospective or retrospective?", "", "say which."),
        Item(
            "6 goal",
            "What is the study for?",
            f"Comparison of the accuracy of {counted(len(facts.rows), 'model')} for a given number "
            "of training scans.",
            "is there another goal?",
        ),
    ]


def _data(facts: ProtocolFacts) -> list[Item]:
    data, settings = facts.data, facts.settings
    adapter = one_line(str(settings.get("adapter", "")))
    left_out = [(what, n) for what, n in data["flow"] if str(what).startswith("left out: ")]
    return [
        Item(
            "7 sources",
            "Where do the data come from?",
            f"{one_line(data['name'])}{f', read as {adapter}' if adapter else ''}.",
            "link or cite it.",
        ),
        Item(
            "8 criteria",
            "What were the inclusion and exclusion criteria?",
            flow_words(left_out) if left_out else "No scan was excluded.",
            "state the cohort's own criteria.",
        ),
        Item(
            "9 preprocessing",
            "What was done to the images?",
            " ".join([prepared_words(facts), *chosen(settings)]),
            "what was done before (skull stripping, quality control)?",
        ),
        Item(
            "10 selection",
            "Which subsets of the data were selected?",
            f"Training sizes of {_sizes(facts)} subjects; subsets are sampled by seed.",
            "were the data selected beforehand?",
        ),
        Item("11 de-identification", "How were the data de-identified?", "", "describe."),
        Item(
            "12 missing data",
            "How were missing data handled?",
            "Scans without an image or label are excluded; nothing was imputed.",
        ),
        Item(
            "13 acquisition", "How were the images acquired?", "", "state scanners and sequences."
        ),
    ]


def _reference_standard(facts: ProtocolFacts) -> list[Item]:
    classes = ", ".join(facts.classes)
    return [
        Item(
            "14 definition",
            "What is the reference standard, and how was it obtained?",
            f"{one_line(facts.data['target'])}{f': {classes}' if classes else ', in years'}.",
            "how was it established?",
        ),
        Item("15 rationale", "Why this reference standard?", "", "say why."),
        Item(
            "16 source", "Who annotated the data, and with which qualifications?", "", "describe."
        ),
        Item("17 test annotation", "How was the test set annotated?", "", "describe."),
        Item(
            "18 variability",
            "How well did annotators agree, and how were disagreements resolved?",
            "",
            "describe.",
        ),
    ]


def _partitions(facts: ProtocolFacts) -> list[Item]:
    split = one_line(str(facts.settings.get("split", "Split by subject"))).rstrip(".")
    return [
        Item(
            "19 assignment",
            "How were the data assigned to partitions?",
            f"{split}: {facts.data['n_pool']} training, {facts.data['n_validation']} validation "
            f"and {facts.data['n_test']} test subjects. {validation_words(facts.protocol)}".strip(),
        ),
        Item(
            "20 disjoint",
            "At which level are the partitions disjoint?",
            "By subject, across all visits."
            if not facts.misplaced
            else f"{counted(facts.misplaced, 'subject')} predicted in a set to which they do not "
            "belong!",
            "could one person have two ids?",
        ),
        Item(
            "21 sample size",
            "Which test set size was intended, and why?",
            f"{facts.data['n_test']} test subjects.",
            "was the sample size planned (bench power)?",
        ),
    ]


def _model(facts: ProtocolFacts) -> list[Item]:
    found, ask = versions(facts)
    models = ", ".join(row.label for row in facts.rows)
    encoders = [row.arm.encoder for row in facts.rows if row.arm.encoder is not None]
    weights = sorted({one_line(encoder.name) for encoder in encoders if encoder.weights})
    start = (
        f"From pretrained weights: {', '.join(weights)}; all other parameters" if weights else "All"
    )
    return [
        Item(
            "22 model",
            "What are the inputs, outputs and intermediate layers?",
            f"{models}; `bench show MODEL --all` lists all settings.",
            "describe or cite the architectures.",
        ),
        Item("23 software", "Which libraries and versions?", found, ask),
        Item(
            "24 initialisation",
            "How were parameters initialised?",
            f"{start} randomly, by seed."
            if any(map(is_network, facts.rows))
            else "Estimators have no initial parameters.",
        ),
    ]


def _training(facts: ProtocolFacts) -> list[Item]:
    words, ask = tuning(facts)
    drawn = ", ".join(varied_by_seed(facts.protocol))
    epochs = facts.protocol.values["epochs"]
    length = f"{counted(int(epochs), 'epoch')}. " if epochs is not None else ""
    best = ""
    if any(map(is_network, facts.rows)):
        best = "The best epoch of each run on validation subjects. "
    return [
        Item(
            "25 training",
            "How were the models trained?",
            f"{length}{words}{f' The seed determines {drawn}.' if drawn else ''}",
            ask,
        ),
        Item(
            "26 final model",
            "How was the final model chosen?",
            f"{best}All runs are reported; none is selected by its test score.",
        ),
        Item("27 ensembles", "Were models ensembled?", "No."),
    ]


def _evaluation(facts: ProtocolFacts) -> list[Item]:
    labels = ", ".join(metric_labels(facts))
    elsewhere = facts.settings.get("test_cohort") or facts.settings.get("hold_out_site")
    return [
        Item(
            "28 metrics",
            "Which performance metrics were used?",
            f"{f'{labels}; ' if labels else ''}primary {facts.primary.label}.",
        ),
        Item(
            "29 uncertainty",
            "Which measures of significance and uncertainty were used?",
            "Obuchowski-Rockette test with confidence intervals for seeds crossed with subjects; "
            "t intervals across seeds for single models.",
        ),
        Item(
            "30 robustness",
            "Was robustness or sensitivity analysed?",
            f"At {counted(len(facts.protocol.sizes), 'training size')}.",
            "were hyperparameters, scanners or artefacts varied?",
        ),
        Item(
            "31 explanations",
            "Which methods explain the predictions, and how were they tested?",
            "None.",
        ),
        Item(
            "32 internal data",
            "How was performance evaluated on data from the same source?",
            "On a held-out site."
            if facts.settings.get("hold_out_site")
            else "Not evaluated on the same source."
            if facts.settings.get("test_cohort")
            else f"On {facts.data['n_test']} subjects of the cohort that were never used for "
            "training.",
        ),
        Item(
            "33 external data",
            "Was performance tested on data from another source?",
            f"On {one_line(str(elsewhere))}." if elsewhere else "No.",
            "" if elsewhere else "why not (bench run --test-data)?",
        ),
        Item(
            "34 registration",
            "Is the study registered?",
            "",
            "give the number, or state that it is not registered.",
        ),
    ]


def _results(facts: ProtocolFacts) -> list[Item]:
    people = people_words(facts)
    return [
        Item(
            "35 flow",
            "How many subjects were included and excluded?",
            flow_words(facts.data["flow"]),
        ),
        Item(
            "36 characteristics",
            "What are the characteristics of each partition?",
            f"{'; '.join(people)}." if people else "",
            "add further characteristics.",
        ),
        Item(
            "37 performance",
            "What is the performance, with which uncertainty?",
            *performance(facts),
        ),
        Item(
            "38 diagnostic performance",
            "What is the diagnostic performance, with which precision?",
            f"{class_counts(facts)}."
            + (" Operating points: --format html." if len(facts.classes) == 2 else "")
            if facts.classes
            else "Not applicable (regression).",
        ),
        Item("39 failures", "Which cases were misclassified, and why?", "", "review them."),
    ]


def _discussion() -> list[Item]:
    return [
        Item("40 limits", "What are the limitations?", "", "discuss."),
        Item(
            "41 practice",
            "What are the implications for practice, including intended use and users?",
            "",
            "discuss.",
        ),
        Item(
            "42 protocol",
            "Where are the protocol and technical details?",
            "`bench export --repro` writes the specification and command of every run.",
            "where is it published?",
        ),
        Item("43 availability", "Where are software, models and data available?", "", "say where."),
        Item("44 funding", "Who funded the study, and with which role?", "", "name them."),
    ]


def _sizes(facts: ProtocolFacts) -> str:
    return ", ".join(map(facts.protocol.size_label, facts.protocol.sizes))
