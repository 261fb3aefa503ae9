"""The methods paragraph: what was compared and how, in sentences that can be used in a paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bench.report.claims import (
    covered,
    is_network,
    same_seeds,
    scope,
    tuning_words,
    validation_words,
    varied_by_seed,
)
from bench.report.family import TestPlan
from bench.report.pairs import Pair, n_tested
from bench.report.select import Protocol
from bench.report.words import one_line
from bench.stats.metrics import metric_of
from registry.core import counted

VERSIONS = {
    "slicebench": "slicebench",
    "python": "Python",
    "torch": "PyTorch",
    "timm": "timm",
    "optuna": "Optuna",
    "numpy": "NumPy",
}
"""Keys in the record of a run's environment, with the names used in the text."""


def methods(protocol: Protocol, test_plan: TestPlan, family: Sequence[Pair]) -> list[str]:
    """Return a paragraph on what was compared and how, which can be used in a paper.

    Parameters
    ----------
    protocol : Protocol
    test_plan : TestPlan
        How the pairs were chosen.
    family : sequence of Pair
        The pairs at the primary metric and training size.
    """
    if not family:
        return []
    metric = metric_of(protocol.primary_metric)
    size = protocol.primary_size
    aim = (
        "The estimand is the difference in expected "
        f"{metric.label}{f' ({metric.unit})' if metric.unit else ''} between two models, each "
        f"trained on {'all ' if protocol.is_all(size) else ''}{size} subjects of "
        f"{one_line(protocol.dataset['name'])}, over {scope(protocol, size)}; models are compared "
        f"{covered(protocol.rows)}."
    )
    sentences = [
        aim,
        *_runs(protocol),
        *_subjects(protocol),
        *_test(family),
        *_tests(test_plan, family),
    ]
    if test_plan.margin is not None:
        sentences.append(
            f"Models whose {metric.label} differs by less than {test_plan.margin:g} were "
            "considered equivalent (two one-sided tests at .05, not adjusted)."
        )
    return [" ".join(sentences)]


def software(environments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the software versions of the runs, in a sentence that can be used in a paper.

    Parameters
    ----------
    environments : iterable of mapping
        The environments recorded with the runs.
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


def _runs(protocol: Protocol) -> list[str]:
    """Return which models were trained how often, and what differs between runs of a model."""
    labels = [row.label for row in protocol.rows]
    sizes = ", ".join(map(protocol.size_label, protocol.sizes))
    models = f"{counted(len(labels), 'model')} ({', '.join(labels)}) were trained at " + (
        f"training sizes of {sizes} subjects"
        if len(protocol.sizes) > 1
        else f"a training size of {sizes} subjects"
    )
    if same_seeds(protocol):
        seeds = protocol.at(protocol.rows[0], protocol.sizes[0]).seeds
        runs = f" with {counted(len(seeds), 'seed')} each ({_listed(seeds)})"
        sentences = [f"{models}{runs if seeds else '; no run has finished'}."]
    else:
        sentences = [f"{models}; finished runs by seed: {_cells(protocol)}."]
    drawn = varied_by_seed(protocol)
    if drawn:
        sentences.append(f"The seed determines {_and(drawn)}.")
    whole = [size for size in protocol.sizes if protocol.is_all(size)]
    fits = [row.label for size in whole for row in protocol.rows if protocol.one_fit(row, size)]
    if fits:
        at = protocol.size_label(whole[0])
        sentences.append(
            f"At n={at} {_and(fits)} {'is' if len(fits) == 1 else 'are'} a single fit "
            f"{'' if len(fits) == 1 else 'each, '}independent of the seed."
        )
    return sentences


def _cells(protocol: Protocol) -> str:
    """Return the finished seeds with the models and sizes that have them."""
    found: dict[tuple[int, ...], dict[str, list[int]]] = {}
    for row in protocol.rows:
        for size in protocol.sizes:
            of_seeds = found.setdefault(protocol.at(row, size).seeds, {})
            of_seeds.setdefault(row.label, []).append(size)
    parts = []
    for seeds, cells in found.items():
        where = ", ".join(
            f"{label} at n={', '.join(map(protocol.size_label, sizes))}"
            for label, sizes in cells.items()
        )
        parts.append(f"{_listed(seeds) or 'none'} ({where})")
    return "; ".join(parts)


def _subjects(protocol: Protocol) -> list[str]:
    """Return how subjects were split, and what the validation subjects were used for."""
    data = protocol.dataset
    sentences = [
        f"Subjects were split once into {data['n_pool']} training, {data['n_validation']} "
        f"validation and {data['n_test']} test subjects, and all runs share the test set.",
        validation_words(protocol),
        tuning_words(protocol),
    ]
    if any(map(is_network, protocol.rows)):
        sentences.append("The best epoch of each network was selected on validation subjects only.")
    return [words for words in sentences if words]


def _test(family: Sequence[Pair]) -> list[str]:
    """Return how models were compared, with the exceptions in the primary family."""
    odd = [f"{pair.a.label} vs {pair.b.label}, {words}" for pair in family if (words := _odd(pair))]
    on = "on the same seeds and the same test subjects"
    if odd:
        on = (
            "on the same test subjects (runs paired by seed where both models share at least two "
            "seeds)"
        )
    return [
        f"Models were compared pairwise {on} with the Obuchowski-Rockette test for crossed random "
        "seeds and subjects, with Hillis' degrees of freedom.",
        *([f"Exceptions in the primary family: {'; '.join(odd)}."] if odd else []),
    ]


def _odd(pair: Pair) -> str:
    """Return how a pair was compared; empty if seed by seed over all runs of both models."""
    found = pair.found
    if found is None:
        return "not compared, because one of them has no finished run"
    if found.one_fit_a and found.one_fit_b:
        words = "a single fit each, tested over subjects alone"
    elif found.one_fit_a or found.one_fit_b:
        words = f"a single fit against {counted(found.n_seeds, 'run')}"
    elif not found.paired:
        words = f"unpaired, {counted(found.n_seeds_a, 'run')} against {found.n_seeds_b}"
    elif found.dropped:
        words = f"on {counted(found.n_seeds, 'shared seed')}, without seed {_listed(found.dropped)}"
    else:
        words = ""
    if np.isfinite(found.p):
        return words
    return f"{words}, no p-value" if words else "no p"


def _tests(test_plan: TestPlan, family: Sequence[Pair]) -> list[str]:
    """Return which p-values were adjusted, and how."""
    tested = n_tested(family)
    pairs = counted(len(family), "pair") + ("" if tested == len(family) else f", {tested} with a p")
    if test_plan.confirmatory:
        words = (
            f"The primary family of tests is {test_plan.description} ({pairs}; "
            f"{test_plan.origin}); its p-values are adjusted by Holm's method. All other tests "
            "are exploratory"
        )
    else:
        words = (
            f"No family of tests was fixed before the runs ({test_plan.origin}), so all tests are "
            "exploratory"
        )
    return [
        f"{words}: the column BH p holds p-values adjusted over the rows of its table by the "
        "method of Benjamini and Hochberg, the marks in a column are adjusted by Holm's method "
        "within that column, and other p-values are not adjusted.",
        "Differences are signed so that positive values favour the first model; intervals are 95 "
        "% confidence intervals.",
    ]


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


def _and(words: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
