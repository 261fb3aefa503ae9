"""Our own checklist: what carries a claim that one architecture is better."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.checklists.known import Item, Known
from bench.report.claims import (
    SEEN,
    TOO_SHORT,
    changed_settings,
    covered,
    scope,
    validation_words,
    what_seeds_draw,
)
from bench.report.family import BASELINES
from bench.report.select import Protocol
from bench.report.tables.provenance import machine_of
from bench.report.words import count, number, one_line
from bench.stats.metrics import metric as metric_of
from registry.encoders import ENCODERS

FEW = 30
"""Test subjects, or subjects of the smaller class, below which a test is flagged."""
LISTED = 6
"""Cells that are named before the rest is only counted."""


def comparison_items(known: Known) -> list[Item]:
    """Return the items with what the store knows.

    Parameters
    ----------
    known : Known
        One protocol.
    """
    return [
        *_question(known),
        *_data(known),
        *_runs(known),
        *_tests(known),
        *_rest(known),
    ]


def _question(known: Known) -> list[Item]:
    design, primary = known.design, known.primary
    margin = design.margin
    unit = f" {primary.unit}" if primary.unit else ""
    return [
        Item(
            "estimand",
            "Which quantity is claimed, over what may vary?",
            f"Difference between two models in {primary.label} at n={known.size}, over "
            f"{scope(known.protocol, known.protocol.primary_size)}; "
            f"{covered(known.protocol.rows)}.",
        ),
        Item(
            "declared",
            "Were metric, size and family fixed before the runs?",
            f"{design.words}: {design.origin}.",
            "" if design.confirmatory else "call every test exploratory, or declare and run anew.",
        ),
        Item(
            "margin",
            "Which difference is too small to matter?",
            "" if margin is None else f"{margin:g}{unit} in {primary.label}.",
            "no margin was declared (bench run --margin)." if margin is None else "",
        ),
    ]


def _data(known: Known) -> list[Item]:
    settings = known.settings
    least, of_what = _smallest_group(known)
    elsewhere = settings.get("test_cohort") or settings.get("hold_out_site")
    return [
        Item(
            "test set shared",
            "Were all models tested on the same subjects?",
            *_shared(known),
        ),
        Item(
            "test set size",
            "How many subjects does the test rest on?",
            f"{known.data['n_test']} test subjects{of_what}.",
            f"fewer than {FEW} (in a class); is that enough for the claim?" if least < FEW else "",
        ),
        Item(
            "split by subject",
            "Are all scans of a subject on one side?",
            f"{_sentence(settings.get('split', 'by subject'))} Split digest "
            f"{known.data['split_digest'][:12]}.",
        ),
        Item(
            "leakage",
            "Can test subjects have been seen in training?",
            "Every predicted subject is on the side it was predicted for."
            if not known.misplaced
            else f"{count(known.misplaced, 'subject')} predicted on a side they are not on!",
            "can one person have two ids, or relatives be on two sides?",
        ),
        Item(
            "selection",
            "Did anything but the final test see test labels?",
            f"No: what trains is given no test labels. {validation_words(known.protocol)}".strip(),
        ),
        Item(
            "test set reused",
            "Was this test set looked at before?",
            f"{count(known.commands, 'command')} ran these arms; "
            f"{count(known.others, 'other protocol')} in this database.",
            "did earlier results on these subjects shape the models compared?",
        ),
        Item(
            "other data",
            "Does the claim reach beyond this cohort?",
            f"Tested on {one_line(str(elsewhere))}."
            if elsewhere
            else "One cohort, split into its sides.",
            "" if elsewhere else "does it hold in another cohort (bench run --test-data)?",
        ),
    ]


def _runs(known: Known) -> list[Item]:
    protocol = known.protocol
    labels = ", ".join(map(protocol.size_label, protocol.sizes))
    failed = [f"{f.row.label} n={f.size} seed {f.seed} ({f.state})" for f in known.failures]
    missing = [
        f"{row.label} n={size}: {count(len(runs.missing), 'seed')}"
        for row in protocol.rows
        for size in protocol.sizes
        if (runs := protocol.at(row, size)).missing
    ]
    empty = [
        f"{row.label} n={size}"
        for row in protocol.rows
        for size in protocol.sizes
        if not protocol.at(row, size).asked
    ]
    counts = sorted({len(runs.seeds) for runs in protocol.runs.values()})
    equal = len(counts) == 1
    return [
        Item(
            "seeds",
            "How many training runs a model and size?",
            f"{counts[0]} in each of {count(len(protocol.runs), 'cell')}."
            if equal
            else f"Unequal: {counts[0]} to {counts[-1]}.",
            "fewer than two runs say nothing of an architecture." if counts[0] < 2 else "",
        ),
        Item(
            "what seeds vary",
            "Which sources of chance differ between runs?",
            _seeds(protocol),
        ),
        Item(
            "training sizes",
            "At how many training subjects were models compared?",
            f"{labels}, of {known.data['n_pool']}; primary {known.size}.",
        ),
        Item(
            "validation",
            "How many labelled subjects beside the training set?",
            validation_words(protocol) or "None: nothing was chosen by validation.",
        ),
        Item(
            "failures",
            "Which runs failed, and are they shown?",
            _listed(failed, "run") if failed else "None failed.",
            "why did they fail, and does that speak for a model?" if failed else "",
        ),
        Item(
            "missing cells",
            "Is every cell of the grid there?",
            _listed([*missing, *empty], "cell") if missing or empty else "Yes.",
            "why are they missing?" if missing or empty else "",
        ),
    ]


def _seeds(protocol: Protocol) -> str:
    drawn = what_seeds_draw(protocol)
    if not drawn:
        return "None: every model is one fit to all subjects."
    hardly = [n for n in protocol.sizes if protocol.conditional(n) and not protocol.is_all(n)]
    words = "; ".join(drawn)
    words = f"{words[0].upper()}{words[1:]}."
    return (
        f"{words} At n={', '.join(map(str, hardly))} the subset hardly varies." if hardly else words
    )


def _tests(known: Known) -> list[Item]:
    protocol = known.protocol
    changed = changed_settings(protocol.rows)
    tuned, ask = tuning(known)
    return [
        Item("tuning", "Were all models tuned with one budget?", tuned, ask),
        Item(
            "settings",
            "Which settings differ from the published ones?",
            f"{changed}." if changed else "None of the built-in models.",
            "do they favour a model?" if changed else "",
        ),
        Item(
            "training length",
            "Were networks trained long enough?",
            *_length(known),
        ),
        Item(
            "test",
            "Which interval and test, and what do they cover?",
            "Obuchowski-Rockette over seeds crossed with subjects, Hillis' degrees of freedom; "
            "t intervals over seeds for one model.",
        ),
        Item(
            "multiplicity",
            "How are many comparisons handled?",
            ("Holm in the primary family" if known.design.confirmatory else "No primary family")
            + "; all else is exploratory, adjusted by Benjamini and Hochberg where a column says "
            "so (marks of a column by Holm), else not adjusted.",
        ),
        Item(
            "other metrics",
            "Are further metrics shown, not only the best one?",
            f"{', '.join(metric_labels(known))}." if metric_labels(known) else "",
            "" if metric_labels(known) else "no scores are stored that can be compared.",
        ),
    ]


def _rest(known: Known) -> list[Item]:
    there = [name for name in BASELINES if any(r.arm.model.name == name for r in known.rows)]
    lacking = [name for name in BASELINES if name not in there]
    do = "do" if len(lacking) > 1 else "does"
    return [
        Item(
            "baselines",
            "Do a linear and a constant model stand beside?",
            f"{', '.join(there)}." if there else "",
            f"what {do} {' and '.join(lacking)} reach here?" if lacking else "",
        ),
        Item(
            "models tried",
            "Are all models that were tried reported?",
            f"{count(len(known.rows), 'arm')} reported.",
            "which were tried elsewhere and left out?",
        ),
        Item(
            "contamination",
            "Have pretrained weights seen test subjects?",
            *_contamination(known),
        ),
        Item("compute", "What did it cost?", _cost(known)),
        Item("machines", "On what, in which precision?", _machines(known)),
        Item("versions", "Which versions computed it?", *versions(known)),
        Item(
            "availability",
            "Where are code, specs and predictions?",
            "",
            "where are they published? (bench export --shareable --repro makes them.)",
        ),
    ]


def _shared(known: Known) -> tuple[str, str]:
    n_runs = sum(len(runs.seeds) for runs in known.protocol.runs.values())
    if not known.test_sets:
        return "", "no run has finished."
    if known.test_sets > 1:
        return f"No: {known.test_sets} test sets.", "why do runs differ in their test subjects?"
    return f"Yes, the same {known.data['n_test']} in {count(n_runs, 'run')}.", ""


def _smallest_group(known: Known) -> tuple[int, str]:
    """Return the size of the smaller class of the test set, and the classes in words."""
    n = int(known.data["n_test"])
    test = [person["truth"] for person in known.on("test")]
    if not known.classes or not test:
        return n, ""
    counts = [test.count(float(i)) for i in range(len(known.classes))]
    words = ", ".join(f"{n} {name}" for name, n in zip(known.classes, counts, strict=True))
    return min(counts), f": {words}"


def _contamination(known: Known) -> tuple[str, str]:
    used = [(row, row.arm.encoder) for row in known.rows if row.arm.encoder is not None]
    seen = [row.label for row, encoder in used if encoder.overlap]
    if seen:
        return f"{', '.join(seen)}: {SEEN}.", "do not trust these rows."
    pretrained = {encoder.name: encoder for _, encoder in used if encoder.weights}
    if not pretrained:
        return "No pretrained weights.", ""
    cards = {card.name: card.pretraining for card in ENCODERS}
    known_of = {name: "" if e.plugin else cards.get(name, "") for name, e in pretrained.items()}
    words = [f"{one_line(name)} ({what or 'not recorded'})" for name, what in known_of.items()]
    ask = "" if all(known_of.values()) else "on what were they pretrained, and who was in it?"
    return f"Pretrained: {', '.join(words)}.", ask


def tuning(known: Known) -> tuple[str, str]:
    """Return how models were tuned, and what that leaves open."""
    tuned = [row for row in known.protocol.rows if row.arm.trials]
    if not tuned:
        changed = changed_settings(known.rows)
        words = "Nothing was tuned; of built-in models, the settings are the cards'"
        return f"{words}{f' but for {changed}' if changed else ''}.", ""
    budget, mode = known.protocol.values["trials"], known.protocol.values["tune"]
    words = f"{budget} Optuna trials a study for each of {count(len(tuned), 'model')}, {mode}."
    untuned = len(known.protocol.rows) - len(tuned)
    if untuned:
        words += f" {untuned} without a search space."
    short = [n for n in known.budgets if n != budget]
    if short:
        return (
            words,
            f"why are there studies ({len(short)}) with another number of trials than {budget}?",
        )
    ask = "would other tuned settings change the order?" if mode == "shared" else ""
    return words, ask


def _length(known: Known) -> tuple[str, str]:
    epochs = known.protocol.values["epochs"]
    if epochs is None:
        return "No network trained by epochs.", ""
    words = f"{count(int(epochs), 'epoch')}, of which the best by validation is kept."
    if epochs <= TOO_SHORT:
        return words, "this is too short to rank models."
    return words, "had the validation loss stopped falling?"


def metric_labels(known: Known) -> list[str]:
    """Return the metrics that are stored, as readers call them."""
    return [metric_of(name).label for name in known.evidence.metrics] if known.evidence else []


def _cost(known: Known) -> str:
    words = f"{number(known.hours, 2)} hours of training"
    if known.tuning_hours:
        words += f", {number(known.tuning_hours, 2)} of tuning"
    return f"{words}, runs side by side added up."


def _machines(known: Known) -> str:
    precision = known.protocol.values["precision"]
    words = "; ".join(sorted({machine_of(each) for each in known.environments})) or "not recorded"
    return f"{words}{f'; {precision}' if precision else ''}."


def versions(known: Known) -> tuple[str, str]:
    """Return the versions that computed the runs, and what they leave open."""
    named = ("slicebench", "python", "torch", "timm", "numpy")
    found = {name: known.values(name) for name in named if known.values(name)}
    if not found:
        return "", "no versions were recorded."
    mixed = [name for name, values in found.items() if len(values) > 1]
    words = ", ".join(f"{name} {' and '.join(values)}" for name, values in found.items())
    return f"{words}.", f"do results differ by {', '.join(mixed)}?" if mixed else ""


def _listed(things: Sequence[str], what: str) -> str:
    rest = f" and {len(things) - LISTED} more" if len(things) > LISTED else ""
    return f"{count(len(things), what)}: {', '.join(things[:LISTED])}{rest}."


def _sentence(text: object) -> str:
    return f"{one_line(str(text)).rstrip('.')}."
