"""Our own checklist for the claim that one architecture is better than another."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.checklists.facts import Item, ProtocolFacts
from bench.report.claims import (
    SEEN,
    TOO_SHORT,
    changed_settings,
    covered,
    scope,
    validation_words,
    varied_by_seed,
)
from bench.report.family import BASELINES
from bench.report.select import Protocol
from bench.report.tables.provenance import machine_of
from bench.report.words import capitalised, number, one_line
from bench.stats.metrics import metric_of
from registry.core import counted
from registry.encoders import ENCODERS

FEW = 30
"""The number of test subjects, or of the smaller class, below which a test is flagged."""
LISTED = 6
"""The number of cells that are listed; further ones are only counted."""


def comparison_items(facts: ProtocolFacts) -> list[Item]:
    """Return the items, answered as far as the database contains the answers.

    Parameters
    ----------
    facts : ProtocolFacts
        One protocol.
    """
    return [
        *_question(facts),
        *_data(facts),
        *_runs(facts),
        *_tests(facts),
        *_rest(facts),
    ]


def _question(facts: ProtocolFacts) -> list[Item]:
    test_plan, primary = facts.test_plan, facts.primary
    margin = test_plan.margin
    unit = f" {primary.unit}" if primary.unit else ""
    return [
        Item(
            "estimand",
            "Which quantity is estimated, and over what does it generalise?",
            f"Difference between two models in {primary.label} at n={facts.size}, over "
            f"{scope(facts.protocol, facts.protocol.primary_size)}; "
            f"{covered(facts.protocol.rows)}.",
        ),
        Item(
            "declared",
            "Were metric, size and family fixed before the runs?",
            f"{test_plan.description}: {test_plan.origin}.",
            ""
            if test_plan.confirmatory
            else "call all tests exploratory, or declare a family and rerun.",
        ),
        Item(
            "margin",
            "Which difference would be negligible?",
            "" if margin is None else f"{margin:g}{unit} in {primary.label}.",
            "no margin was declared (bench run --margin)." if margin is None else "",
        ),
    ]


def _data(facts: ProtocolFacts) -> list[Item]:
    settings = facts.settings
    least, of_what = _smallest_group(facts)
    elsewhere = settings.get("test_cohort") or settings.get("hold_out_site")
    return [
        Item(
            "test set shared",
            "Were all models tested on the same subjects?",
            *_shared(facts),
        ),
        Item(
            "test set size",
            "How many subjects are tested?",
            f"{facts.data['n_test']} test subjects{of_what}.",
            f"fewer than {FEW} (in a class); is that enough to support the claim?"
            if least < FEW
            else "",
        ),
        Item(
            "split by subject",
            "Are all scans of a subject in the same set?",
            f"{_sentence(settings.get('split', 'by subject'))} Split digest "
            f"{facts.data['split_digest'][:12]}.",
        ),
        Item(
            "leakage",
            "Could test subjects have been used in training?",
            "Every predicted subject belongs to the set for which it was predicted."
            if not facts.misplaced
            else f"{counted(facts.misplaced, 'subject')} predicted in a set to which they do not "
            "belong!",
            "could one person have two ids, or relatives be in different sets?",
        ),
        Item(
            "selection",
            "Were test labels used for anything but the final test?",
            "No: the training process does not receive test labels. "
            f"{validation_words(facts.protocol)}".strip(),
        ),
        Item(
            "test set reused",
            "Was this test set used before?",
            f"{counted(facts.commands, 'command')} ran these models; "
            f"{counted(facts.others, 'other protocol')} in this database.",
            "did earlier results on these subjects influence the models compared?",
        ),
        Item(
            "other data",
            "Do the results generalise beyond this cohort?",
            f"Tested on {one_line(str(elsewhere))}."
            if elsewhere
            else "One cohort, split into training, validation and test sets.",
            ""
            if elsewhere
            else "are the results similar in another cohort (bench run --test-data)?",
        ),
    ]


def _runs(facts: ProtocolFacts) -> list[Item]:
    protocol = facts.protocol
    labels = ", ".join(map(protocol.size_label, protocol.sizes))
    failed = [f"{f.row.label} n={f.size} seed {f.seed} ({f.state})" for f in facts.failures]
    missing = [
        f"{row.label} n={size}: {counted(len(runs.missing), 'seed')}"
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
            "How many training runs per model and training size?",
            f"{counts[0]} in each of {counted(len(protocol.runs), 'combination')}."
            if equal
            else f"Unequal: {counts[0]} to {counts[-1]}.",
            "a single run does not support a claim about an architecture." if counts[0] < 2 else "",
        ),
        Item(
            "what seeds vary",
            "Which sources of randomness differ between runs?",
            _seeds(protocol),
        ),
        Item(
            "training sizes",
            "At which training sizes were models compared?",
            f"{labels}, out of {facts.data['n_pool']}; primary {facts.size}.",
        ),
        Item(
            "validation",
            "How many labelled subjects were used besides the training set?",
            validation_words(protocol) or "None: nothing was selected by validation.",
        ),
        Item(
            "failures",
            "Which runs failed, and are they reported?",
            _listed(failed, "run") if failed else "None failed.",
            "why did they fail, and does excluding them favour a model?" if failed else "",
        ),
        Item(
            "missing cells",
            "Are all combinations of model, training size and seed complete?",
            _listed([*missing, *empty], "cell") if missing or empty else "Yes.",
            "why are they missing?" if missing or empty else "",
        ),
    ]


def _seeds(protocol: Protocol) -> str:
    drawn = varied_by_seed(protocol)
    if not drawn:
        return "None: every model is a single fit to all subjects."
    hardly = [n for n in protocol.sizes if protocol.conditional(n) and not protocol.is_all(n)]
    words = "; ".join(drawn)
    words = f"{capitalised(words)}."
    return (
        f"{words} At n={', '.join(map(str, hardly))} the training subset hardly varies."
        if hardly
        else words
    )


def _tests(facts: ProtocolFacts) -> list[Item]:
    protocol = facts.protocol
    changed = changed_settings(protocol.rows)
    tuned, ask = tuning(facts)
    return [
        Item("tuning", "Were all models tuned with the same budget?", tuned, ask),
        Item(
            "settings",
            "Which settings differ from the published ones?",
            f"{changed}." if changed else "None of the built-in models.",
            "do they favour a model?" if changed else "",
        ),
        Item(
            "training length",
            "Were networks trained long enough?",
            *_length(facts),
        ),
        Item(
            "test",
            "Which interval and test were used, and what do they cover?",
            "Obuchowski-Rockette test for seeds crossed with subjects with Hillis' degrees of "
            "freedom; t intervals across seeds for single models.",
        ),
        Item(
            "multiplicity",
            "How are multiple comparisons handled?",
            ("Holm in the primary family" if facts.test_plan.confirmatory else "No primary family")
            + "; all other tests are exploratory: adjusted by the method of Benjamini and "
            "Hochberg where a column says so (marks within a column by Holm's), otherwise "
            "not adjusted.",
        ),
        Item(
            "other metrics",
            "Are other metrics reported, not only the most favourable one?",
            f"{', '.join(metric_labels(facts))}." if metric_labels(facts) else "",
            "" if metric_labels(facts) else "no comparable scores are stored.",
        ),
    ]


def _rest(facts: ProtocolFacts) -> list[Item]:
    there = [name for name in BASELINES if any(r.arm.model.name == name for r in facts.rows)]
    lacking = [name for name in BASELINES if name not in there]
    do = "do" if len(lacking) > 1 else "does"
    return [
        Item(
            "baselines",
            "Are a linear and a constant baseline included?",
            f"{', '.join(there)}." if there else "",
            f"what {do} {' and '.join(lacking)} achieve on these data?" if lacking else "",
        ),
        Item(
            "models tried",
            "Are all models that were tried also reported?",
            f"{counted(len(facts.rows), 'model')} reported.",
            "which were tried elsewhere and omitted?",
        ),
        Item(
            "contamination",
            "Were test subjects used to pretrain the weights?",
            *_contamination(facts),
        ),
        Item("compute", "What was the computational cost?", _cost(facts)),
        Item("machines", "Which hardware and precision were used?", _machines(facts)),
        Item("versions", "Which software versions were used?", *versions(facts)),
        Item(
            "availability",
            "Where are code, specifications and predictions available?",
            "",
            "where are they published? (`bench export --shareable --repro` writes them.)",
        ),
    ]


def _shared(facts: ProtocolFacts) -> tuple[str, str]:
    n_runs = sum(len(runs.seeds) for runs in facts.protocol.runs.values())
    if not facts.test_sets:
        return "", "no run has finished."
    if facts.test_sets > 1:
        return f"No: {facts.test_sets} test sets.", "why do test subjects differ between runs?"
    return f"Yes, the same {facts.data['n_test']} in {counted(n_runs, 'run')}.", ""


def _smallest_group(facts: ProtocolFacts) -> tuple[int, str]:
    """Return the size of the smallest class of the test set, and a list of all classes."""
    n = int(facts.data["n_test"])
    test = [person["truth"] for person in facts.on("test")]
    if not facts.classes or not test:
        return n, ""
    counts = [test.count(float(i)) for i in range(len(facts.classes))]
    words = ", ".join(f"{n} {name}" for name, n in zip(facts.classes, counts, strict=True))
    return min(counts), f": {words}"


def _contamination(facts: ProtocolFacts) -> tuple[str, str]:
    used = [(row, row.arm.encoder) for row in facts.rows if row.arm.encoder is not None]
    seen = [row.label for row, encoder in used if encoder.overlap]
    if seen:
        return f"{', '.join(seen)}: {SEEN}.", "exclude these models from the test."
    pretrained = {encoder.name: encoder for _, encoder in used if encoder.weights}
    if not pretrained:
        return "No pretrained weights were used.", ""
    cards = {card.name: card.pretraining for card in ENCODERS}
    known_of = {name: "" if e.plugin else cards.get(name, "") for name, e in pretrained.items()}
    words = [f"{one_line(name)} ({what or 'not recorded'})" for name, what in known_of.items()]
    ask = (
        ""
        if all(known_of.values())
        else "on which data were they pretrained, and who was included?"
    )
    return f"Pretrained: {', '.join(words)}.", ask


def tuning(facts: ProtocolFacts) -> tuple[str, str]:
    """Return how models were tuned, and what remains to be answered."""
    tuned = [row for row in facts.protocol.rows if row.arm.trials]
    if not tuned:
        changed = changed_settings(facts.rows)
        words = "No hyperparameters were tuned; built-in models use their published settings"
        return f"{words}{f' except {changed}' if changed else ''}.", ""
    budget, mode = facts.protocol.values["trials"], facts.protocol.values["tune"]
    words = f"{budget} Optuna trials per study for each of {counted(len(tuned), 'model')}, {mode}."
    untuned = len(facts.protocol.rows) - len(tuned)
    if untuned:
        words += f" {untuned} has no search space."
    short = [n for n in facts.budgets if n != budget]
    if short:
        return (
            words,
            f"why do some studies ({len(short)}) have a number of trials other than {budget}?",
        )
    ask = "would another tuning run change the ranking?" if mode == "shared" else ""
    return words, ask


def _length(facts: ProtocolFacts) -> tuple[str, str]:
    epochs = facts.protocol.values["epochs"]
    if epochs is None:
        return "No network was trained.", ""
    words = f"{counted(int(epochs), 'epoch')}; the best epoch on the validation set is used."
    if epochs <= TOO_SHORT:
        return words, "this is too short to rank models."
    return words, "had the validation loss stopped falling?"


def metric_labels(facts: ProtocolFacts) -> list[str]:
    """Return the labels of the stored metrics."""
    return [metric_of(name).label for name in facts.evidence.metrics] if facts.evidence else []


def _cost(facts: ProtocolFacts) -> str:
    words = f"{number(facts.hours, 2)} hours of training"
    if facts.tuning_hours:
        words += f", {number(facts.tuning_hours, 2)} of tuning"
    return f"{words}, summed over concurrent runs."


def _machines(facts: ProtocolFacts) -> str:
    precision = facts.protocol.values["precision"]
    words = "; ".join(sorted({machine_of(each) for each in facts.environments})) or "not recorded"
    return f"{words}{f'; {precision}' if precision else ''}."


def versions(facts: ProtocolFacts) -> tuple[str, str]:
    """Return the software versions of the runs, and what remains to be answered."""
    named = ("slicebench", "python", "torch", "timm", "numpy")
    found = {name: facts.values(name) for name in named if facts.values(name)}
    if not found:
        return "", "no versions were recorded."
    mixed = [name for name, values in found.items() if len(values) > 1]
    words = ", ".join(f"{name} {' and '.join(values)}" for name, values in found.items())
    return f"{words}.", f"do results differ by {', '.join(mixed)}?" if mixed else ""


def _listed(things: Sequence[str], what: str) -> str:
    rest = f" and {len(things) - LISTED} more" if len(things) > LISTED else ""
    return f"{counted(len(things), what)}: {', '.join(things[:LISTED])}{rest}."


def _sentence(text: object) -> str:
    return f"{one_line(str(text)).rstrip('.')}."
