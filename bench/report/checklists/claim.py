"""CLAIM 2024 (Tejani et al., Radiol Artif Intell 2024;6(4):e240300), its 44 items in our words."""

from __future__ import annotations

from bench.report.checklists.comparison import metric_labels, tuning, versions
from bench.report.checklists.known import Item, Known
from bench.report.checklists.tripod import (
    class_counts,
    flow_words,
    people_words,
    performance,
    prepared_words,
)
from bench.report.claims import chosen, is_network, validation_words, what_seeds_draw
from bench.report.words import count, one_line


def claim_items(known: Known) -> list[Item]:
    """Return the items with what the store knows.

    Parameters
    ----------
    known : Known
        One protocol.
    """
    return [
        *_introduction(known),
        *_data(known),
        *_reference_standard(known),
        *_partitions(known),
        *_model(known),
        *_training(known),
        *_evaluation(known),
        *_results(known),
        *_discussion(),
    ]


def _introduction(known: Known) -> list[Item]:
    networks = any(map(is_network, known.rows))
    return [
        Item(
            "1 title",
            "Does it say that AI is used, and of which kind?",
            "Deep learning, compared." if networks else "Machine learning, without networks.",
            "word the title.",
        ),
        Item(
            "2 abstract", "Does it sum up design, methods, results, conclusions?", "", "write it."
        ),
        Item(
            "3 background", "What is known, and what is the model's role in care?", "", "describe."
        ),
        Item("4 objectives", "Which aims and hypotheses?", "", "state them."),
        Item("5 design", "Prospective or retrospective?", "", "say which."),
        Item(
            "6 goal",
            "What is the study for?",
            f"Comparison of {count(len(known.rows), 'model')} by what they learn from a number of "
            "scans.",
            "is there a further goal?",
        ),
    ]


def _data(known: Known) -> list[Item]:
    data, settings = known.data, known.settings
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
            "Who was included, who excluded?",
            flow_words(left_out) if left_out else "No scan was left out here.",
            "the cohort's own criteria.",
        ),
        Item(
            "9 preprocessing",
            "What was done to the images?",
            " ".join([prepared_words(known), *chosen(settings)]),
            "what was done before (skull stripping, quality control)?",
        ),
        Item(
            "10 selection",
            "Which parts of the data were selected?",
            f"Training sizes of {_sizes(known)} subjects, drawn by seed where below all.",
            "was anything selected before?",
        ),
        Item("11 de-identification", "How were data de-identified?", "", "describe."),
        Item(
            "12 missing data",
            "How were missing data handled?",
            "Scans without image or label are left out; nothing was imputed.",
        ),
        Item("13 acquisition", "How were the images acquired?", "", "scanners and sequences."),
    ]


def _reference_standard(known: Known) -> list[Item]:
    classes = ", ".join(known.classes)
    return [
        Item(
            "14 definition",
            "What is the reference standard, and how was it obtained?",
            f"{one_line(known.data['target'])}{f': {classes}' if classes else ', in years'}.",
            "how was it established?",
        ),
        Item("15 rationale", "Why this one?", "", "say why."),
        Item("16 source", "Who annotated, with which qualification?", "", "describe."),
        Item("17 test annotation", "How was the test set annotated?", "", "describe."),
        Item(
            "18 variability", "How far did annotators agree, how was it settled?", "", "describe."
        ),
    ]


def _partitions(known: Known) -> list[Item]:
    split = one_line(str(known.settings.get("split", "Split by subject"))).rstrip(".")
    return [
        Item(
            "19 assignment",
            "How were data assigned to partitions?",
            f"{split}: {known.data['n_pool']} subjects to train on, {known.data['n_validation']} "
            f"validation, {known.data['n_test']} test. {validation_words(known.protocol)}".strip(),
        ),
        Item(
            "20 disjoint",
            "At which level are partitions disjoint?",
            "By subject over all visits."
            if not known.misplaced
            else f"{count(known.misplaced, 'subject')} predicted on a side they are not on!",
            "can one person have two ids?",
        ),
        Item(
            "21 sample size",
            "Which size was intended for the test, and why?",
            f"{known.data['n_test']} test subjects.",
            "was the number planned (bench power)?",
        ),
    ]


def _model(known: Known) -> list[Item]:
    found, ask = versions(known)
    models = ", ".join(row.label for row in known.rows)
    encoders = [row.arm.encoder for row in known.rows if row.arm.encoder is not None]
    weights = sorted({one_line(encoder.name) for encoder in encoders if encoder.weights})
    start = f"From pretrained weights: {', '.join(weights)}; all else" if weights else "All"
    return [
        Item(
            "22 model",
            "What goes in, what comes out, what lies between?",
            f"{models}; every setting by `bench show MODEL`.",
            "describe or cite the architectures.",
        ),
        Item("23 software", "Which libraries and versions?", found, ask),
        Item(
            "24 initialisation",
            "How were parameters initialised?",
            f"{start} at random, by seed."
            if any(map(is_network, known.rows))
            else "Estimators have no initial parameters.",
        ),
    ]


def _training(known: Known) -> list[Item]:
    words, ask = tuning(known)
    drawn = ", ".join(what_seeds_draw(known.protocol))
    epochs = known.protocol.values["epochs"]
    length = f"{count(int(epochs), 'epoch')}. " if epochs is not None else ""
    best = ""
    if any(map(is_network, known.rows)):
        best = "Of each run the best epoch on validation subjects. "
    return [
        Item(
            "25 training",
            "How was training done?",
            f"{length}{words}{f' A seed draws {drawn}.' if drawn else ''}",
            ask,
        ),
        Item(
            "26 final model",
            "How was the final model chosen?",
            f"{best}Every run is reported; none is chosen by the test set.",
        ),
        Item("27 ensembles", "Were models combined?", "No."),
    ]


def _evaluation(known: Known) -> list[Item]:
    labels = ", ".join(metric_labels(known))
    elsewhere = known.settings.get("test_cohort") or known.settings.get("hold_out_site")
    return [
        Item(
            "28 metrics",
            "Which measures of performance?",
            f"{f'{labels}; ' if labels else ''}primary {known.primary.label}.",
        ),
        Item(
            "29 uncertainty",
            "Which measures of significance and uncertainty?",
            "Obuchowski-Rockette test over seeds crossed with subjects, with intervals; t "
            "intervals over seeds for one model.",
        ),
        Item(
            "30 robustness",
            "Was robustness or sensitivity analysed?",
            f"At {count(len(known.protocol.sizes), 'training size')}.",
            "were settings, scanners or artefacts varied?",
        ),
        Item("31 explanations", "Which methods explain predictions, tested how?", "None here."),
        Item(
            "32 internal data",
            "How was it evaluated on data of the same source?",
            "On a site held out."
            if known.settings.get("hold_out_site")
            else "Not on the same source."
            if known.settings.get("test_cohort")
            else f"On {known.data['n_test']} subjects of the cohort that no run was trained on.",
        ),
        Item(
            "33 external data",
            "Was it tested on data of another source?",
            f"On {one_line(str(elsewhere))}." if elsewhere else "No.",
            "" if elsewhere else "why not (bench run --test-data)?",
        ),
        Item("34 registration", "Is it a registered trial?", "", "number, or that it is none."),
    ]


def _results(known: Known) -> list[Item]:
    people = people_words(known)
    return [
        Item(
            "35 flow", "How many came in, how many were left out?", flow_words(known.data["flow"])
        ),
        Item(
            "36 characteristics",
            "Who is in each partition?",
            f"{'; '.join(people)}." if people else "",
            "further characteristics.",
        ),
        Item("37 performance", "How good, with which uncertainty?", *performance(known)),
        Item(
            "38 diagnostic performance",
            "Which diagnostic performance, how precise?",
            f"{class_counts(known)}."
            + (" Operating points: --format html." if len(known.classes) == 2 else "")
            if known.classes
            else "Not a question of classes.",
        ),
        Item("39 failures", "Which cases were classified wrongly, and why?", "", "look at them."),
    ]


def _discussion() -> list[Item]:
    return [
        Item("40 limits", "Which limits?", "", "discuss."),
        Item("41 practice", "What follows for practice, for whom is it meant?", "", "discuss."),
        Item(
            "42 protocol",
            "Where are the protocol and technical details?",
            "`bench export --repro` holds every spec and command.",
            "where is it published?",
        ),
        Item("43 availability", "Where are software, models and data?", "", "say where."),
        Item("44 funding", "Who paid, and with which role?", "", "name them."),
    ]


def _sizes(known: Known) -> str:
    return ", ".join(map(known.protocol.size_label, known.protocol.sizes))
