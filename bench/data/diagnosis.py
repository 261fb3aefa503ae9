"""Diagnoses: the cohorts' spellings, and the classes that a user forms of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from registry.errors import UserError

SPELLINGS: dict[str, tuple[str, ...]] = {
    "CN": ("cn", "nl", "nc", "hc", "control", "cognitively normal", "normal", "nondemented"),
    "SMC": ("smc", "sci", "scd"),
    "MCI": ("mci", "emci", "lmci", "smci", "pmci"),
    "AD": ("ad", "dementia", "demented", "dat", "alzheimer's", "alzheimer's disease"),
    "Converted": ("converted",),
}
"""What each diagnosis is called in tables, in lower case."""

FOLLOWED = ("sMCI", "pMCI")
"""Not a diagnosis at a visit: MCI that stays or becomes AD within a horizon."""

NO_CODE = ("", "-4", "-1")
"""Codes of tables for a diagnosis that is missing."""

_CHANGE = re.compile(r"^(?:stable|conversion|reversion)\s*:\s*", re.IGNORECASE)
_KNOWN = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}


def spelled(text: str) -> str | None:
    """Return the diagnosis that a table's word means, ``""`` for none, None for an unknown word.

    Of a change (``MCI to Dementia``, ``NL->MCI``) the last term counts.
    """
    last = text.replace("->", " to ").split(" to ")[-1].strip().lower()
    return _KNOWN.get(last) if last else ""


def normalise(texts: Iterable[str], where: str) -> list[str]:
    """Return the diagnosis that each word means.

    Raises
    ------
    UserError
        When a word is unknown; the sentence lists such words. None of them becomes a control.
    """
    words = list(texts)
    found = {word: spelled(word) for word in dict.fromkeys(words)}
    unknown = sorted(word for word, name in found.items() if name is None)
    if unknown:
        raise UserError(
            f"{where} has diagnoses that are not known: {', '.join(map(repr, unknown))}; known are "
            f"{', '.join(repr(s) for all_ in SPELLINGS.values() for s in all_)}, in any case: "
            "rewrite them in the table, or write n/a."
        )
    return [found[word] or "" for word in words]


def decode(texts: pd.Series, file: Path, codes: Mapping[str, str]) -> pd.Series:
    """Return the diagnoses that codes or words of an exam stand for, ``""`` where there is none.

    Parameters
    ----------
    texts : Series of str
        Codes (``3``, ``3.0``), words, or changes (``Conversion: NL to MCI``).
    file : Path
        Where they stand, for the error.
    codes : mapping
        What the codes mean.

    Raises
    ------
    UserError
        When a value is neither; the sentence lists such values.
    """
    meaning = {**dict.fromkeys(NO_CODE, ""), **codes}
    plain = texts.str.removesuffix(".0")
    for text in plain[~plain.isin(list(meaning))].unique():
        said = spelled(_CHANGE.sub("", text))
        if said is not None:
            meaning[text] = said
    unknown = plain[~plain.isin(list(meaning))].unique()
    if len(unknown):
        raise UserError(
            f"{file} has values in the column {texts.name!r} that are no diagnoses: "
            f"{', '.join(map(repr, sorted(unknown)))}; known are the codes {', '.join(codes)}, -4 "
            "for missing, and words such as CN, MCI and Dementia: rewrite them, or write n/a."
        )
    return plain.map(meaning)


def parse_classes(text: str) -> dict[str, str]:
    """Read ``CN+SMC,AD`` as the class of each diagnosis, in the order of the classes.

    Parameters
    ----------
    text : str
        Classes by comma, healthy first; diagnoses that form one class joined by ``+``. `FOLLOWED`
        are either both classes or neither occurs.

    Returns
    -------
    dict
        Class name by diagnosis; a class is named as it was written, in the standard spelling.

    Raises
    ------
    UserError
        When a diagnosis is unknown or stands in two classes, or there are fewer than two classes.
    """
    known = {name.lower(): name for name in (*SPELLINGS, *FOLLOWED)}
    classes: dict[str, str] = {}
    groups = [part.strip() for part in text.split(",") if part.strip()]
    for group in groups:
        names = []
        for word in group.split("+"):
            name = known.get(word.strip().lower()) or spelled(word.strip())
            if not name:
                raise UserError(
                    f"--classes {text}: {word.strip()!r} is not a diagnosis; write classes of "
                    f"{', '.join(known.values())}, such as CN,AD or CN,MCI,AD or CN+SMC,AD."
                )
            names.append(name)
        for name in names:
            if name in classes:
                raise UserError(f"--classes {text}: {name} stands in it twice.")
            classes[name] = "+".join(names)
    if len(groups) < 2:
        raise UserError(f"--classes {text}: give at least two classes, such as CN,AD.")
    if set(FOLLOWED) & set(classes) and "MCI" in classes:
        raise UserError(f"--classes {text}: MCI and {' or '.join(FOLLOWED)} exclude each other.")
    return classes
