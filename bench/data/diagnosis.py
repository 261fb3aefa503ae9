"""Diagnoses: their spellings in tables, and the classes that a user forms from them."""

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
"""Spellings of each diagnosis in tables, in lower case."""

FOLLOWED = ("sMCI", "pMCI")
"""Classes of MCI that depend on later visits: stable, or progressing to AD within a horizon."""

NO_CODE = ("", "-4", "-1")
"""Codes for a missing diagnosis."""

_CHANGE = re.compile(r"^(?:stable|conversion|reversion)\s*:\s*", re.IGNORECASE)
_KNOWN = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}


def spelled(text: str) -> str | None:
    """Return the diagnosis that a spelling means, ``""`` if it is empty, None if it is unknown.

    If it describes a change (``MCI to Dementia``, ``NL->MCI``), the last term is used.
    """
    last = text.replace("->", " to ").split(" to ")[-1].strip().lower()
    return _KNOWN.get(last) if last else ""


def normalise(texts: Iterable[str], where: str) -> list[str]:
    """Return the diagnosis that each spelling means.

    Raises
    ------
    UserError
        If a spelling is unknown. The message lists them; they are never treated as controls.
    """
    words = list(texts)
    found = {word: spelled(word) for word in dict.fromkeys(words)}
    unknown = sorted(word for word, name in found.items() if name is None)
    if unknown:
        raise UserError(
            f"{where} has unknown diagnoses: {', '.join(map(repr, unknown))}; replace them in the "
            "table by one of "
            f"{', '.join(repr(s) for all_ in SPELLINGS.values() for s in all_)} (upper or lower "
            "case), or by n/a."
        )
    return [found[word] or "" for word in words]


def decode(texts: pd.Series, file: Path, codes: Mapping[str, str]) -> pd.Series:
    """Return the diagnoses that the codes or words of exams mean, ``""`` if there is none.

    Parameters
    ----------
    texts : Series of str
        Codes (``3``, ``3.0``), words, or changes (``Conversion: NL to MCI``).
    file : Path
        The table that contains them, for the error message.
    codes : mapping
        Diagnosis by code.

    Raises
    ------
    UserError
        If a value is neither a code nor a known word; the message lists such values.
    """
    meaning = {**dict.fromkeys(NO_CODE, ""), **codes}
    plain = texts.str.removesuffix(".0")
    for text in plain[~plain.isin(list(meaning))].unique():
        diagnosis = spelled(_CHANGE.sub("", text))
        if diagnosis is not None:
            meaning[text] = diagnosis
    unknown = plain[~plain.isin(list(meaning))].unique()
    if len(unknown):
        raise UserError(
            f"{file} has unknown diagnoses in the column {texts.name!r}: "
            f"{', '.join(map(repr, sorted(unknown)))}; replace them by the codes "
            f"{', '.join(codes)} (-4 for missing), by words such as CN, MCI and Dementia, or by "
            "n/a."
        )
    return plain.map(meaning)


def parse_classes(text: str) -> dict[str, str]:
    """Parse classes such as ``CN+SMC,AD`` into the class of each diagnosis.

    Parameters
    ----------
    text : str
        Classes separated by commas, from healthy to ill; diagnoses that form one class are joined
        by ``+``.

    Returns
    -------
    dict
        Class name by diagnosis, in the order of the classes. Names use the standard spelling.

    Raises
    ------
    UserError
        If a diagnosis is unknown or occurs twice, if MCI is combined with `FOLLOWED`, or if there
        are fewer than two classes.
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
                    f"--classes {text}: {word.strip()!r} is not a known diagnosis; use "
                    f"{', '.join(known.values())}, for example CN,AD or CN,MCI,AD or CN+SMC,AD."
                )
            names.append(name)
        for name in names:
            if name in classes:
                raise UserError(f"--classes {text}: {name} occurs twice; name it only once.")
            classes[name] = "+".join(names)
    if len(groups) < 2:
        raise UserError(f"--classes {text}: name at least two classes, for example CN,AD.")
    if set(FOLLOWED) & set(classes) and "MCI" in classes:
        raise UserError(
            f"--classes {text}: MCI cannot be combined with {' or '.join(FOLLOWED)}, which are "
            "parts of it; use either MCI or its parts."
        )
    return classes
