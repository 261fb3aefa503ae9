"""Standard streams that accept all output, even if they are closed or their encoding is limited."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata


def prepare() -> None:
    """Open closed streams, and replace characters that an encoding lacks by similar ones."""
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
        print("Warning: standard output is closed; nothing can be printed to it.", file=sys.stderr)


def forget_output() -> None:
    """Discard buffered and all further output."""
    _open_nothing(1)


def _open_nothing(number: int) -> None:
    """Redirect a descriptor to the null device; a closed one would be reused by the next file."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)


def _closest(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for characters that cannot be encoded, such as letters without accents."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    name = unicodedata.name(character, "")
    if name.startswith("BOX DRAWINGS") or unicodedata.category(character) == "Pd":
        return "-"
    if name == "MULTIPLICATION SIGN":
        return "x"
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"
