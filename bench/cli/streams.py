"""Standard streams that take whatever is printed, also where they are closed or lack characters."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata


def prepare() -> None:
    """Open the streams that are closed, and print what an encoding lacks as what comes closest."""
    closed = sys.stdout is None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open_nothing(number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    codecs.register_error("closest", _closest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="closest")
    if closed:
        print("Warning: standard output is closed; what is printed is lost.", file=sys.stderr)


def forget_output() -> None:
    """Drop what is still to be printed, and all that follows: nobody can take it."""
    _open_nothing(1)


def _open_nothing(number: int) -> None:
    """Let a descriptor lead nowhere; a closed one would be taken by the next file opened."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)


def _closest(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for characters that cannot be encoded: lines as hyphens, letters bare."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    name = unicodedata.name(character, "")
    if name.startswith("BOX DRAWINGS") or unicodedata.category(character) == "Pd":
        return "-"
    if name == "MULTIPLICATION SIGN":
        return "x"
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"
