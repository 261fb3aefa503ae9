"""The command that reproduces a stored trial."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence

from bench.spec import Arm
from registry.models import MODELS, model_options

DATABASE = "reproduced.db"
"""The database of the repetition; trials that are already stored would not be run again."""

_REPLACED = ("--model", "--encoder", "--data", "--train-sizes", "--seeds", "--db")
_LEFT_OUT = ("--work", "--reuse", "--metric", "--primary-size", "--reference", "--margin")
"""Options that do not change any number, or do not apply to a single trial."""
_FLAGS_LEFT_OUT = ("--dry-run", "--new-split")
"""``--new-split`` would replace the split with which the trial was run."""
_CHANGED = ("--set", "--epochs", "--precision")
_READ = (*_REPLACED, *_LEFT_OUT, *_CHANGED)


def reproduce_command(
    argv: Sequence[str],
    arm: Arm,
    dataset: str,
    n_train: int,
    seed: int,
    threads: int | None = None,
) -> str:
    """Return the command that runs one trial of the grid that a command ran.

    Parameters
    ----------
    argv : sequence of str
        The command as stored: ``bench run`` and its options in any spelling.
    arm : Arm
        The trial's arm. Settings of other models are dropped, because they would be refused.
    dataset : str
        The cohort's name, used if the command names several.
    n_train, seed : int
        The trial's training size and seed.
    threads : int, optional
        The number of threads of the trial, on which rounding errors depend.

    Returns
    -------
    str
        One line for a shell; its results are stored in `DATABASE`.
    """
    given: dict[str, list[str]] = {}
    kept: list[str] = []
    settings = _settings(arm)
    for word, value in _options(argv):
        if value is None:
            kept += [] if word in _FLAGS_LEFT_OUT else [word]
            continue
        given.setdefault(word, []).append(value)
        # Settings of other models would be refused as unknown.
        if word == "--set" and value.partition("=")[0].strip() not in settings:
            continue
        if word == "--epochs" and "epochs" not in settings:
            continue
        if word == "--precision":
            # `auto` may select another precision on another machine.
            kept += [word, arm.precision or value]
        elif word in _CHANGED:
            kept += [word, value]
    cohorts = _names(given.get("--data", ()))
    cell = ["--model", arm.model.name, "--data", cohorts[0] if len(cohorts) == 1 else dataset]
    encoders = _names(given.get("--encoder", ()))
    if arm.encoder is not None and arm.encoder.name in encoders and not _has_its_own(arm):
        cell += ["--encoder", arm.encoder.name]
    # A number without a comma would be a number of seeds.
    cell += ["--train-sizes", str(n_train), "--seeds", f"{seed},"]
    if threads is not None and not any(word.partition("=")[0] == "--threads" for word in kept):
        kept += ["--threads", str(threads)]
    return shlex.join(["bench", "run", *cell, *kept, "--db", DATABASE])


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield (option, value) for the options that are read here, and (word, None) otherwise."""
    words = iter(argv[2:])
    for word in words:
        option, sign, value = word.partition("=")
        if option in _READ:
            yield option, value if sign else next(words, "")
        else:
            yield word, None


def _names(values: Sequence[str]) -> list[str]:
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def _settings(arm: Arm) -> Collection[str]:
    """Return the settings that the model of an arm accepts."""
    card = None if arm.model.plugin else _CARDS.get(arm.model.name)
    # Options that were added later are not among the stored params, so the card is used.
    return model_options(card) if card is not None else {*arm.params, *arm.space}


def _has_its_own(arm: Arm) -> bool:
    card = None if arm.model.plugin else _CARDS.get(arm.model.name)
    return card is not None and card.encoder_fixed


_CARDS = {card.name: card for card in MODELS}
