"""Format numbers and stored texts, the same in all formats of a report."""

from __future__ import annotations

import math

from bench.stats.metric import Metric

NOT_AVAILABLE = "n/a"


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, which names of users may have."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())


def capitalised(text: str) -> str:
    """Return a text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def digits_of(metric: Metric) -> int:
    """Return the number of decimals of a metric: two for years, three for metrics without unit."""
    return 2 if metric.unit else 3


def number(value: float, digits: int) -> str:
    """Return a number with this many decimals, ``n/a`` if it is undefined; never ``-0.00``."""
    if not math.isfinite(value):
        return NOT_AVAILABLE
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def interval(low: float, high: float, digits: int) -> str:
    """Return ``[low, high]``, or ``[n/a]`` if there is no interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"[{NOT_AVAILABLE}]"
    return f"[{number(low, digits)}, {number(high, digits)}]"


def p_value(p: float) -> str:
    """Return a p-value with three decimals; it is never printed as 0."""
    if not math.isfinite(p):
        return NOT_AVAILABLE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(n: int, singular: str, plural: str = "") -> str:
    """Return ``1 seed``, ``2 seeds``."""
    return f"{n} {singular if n == 1 else plural or singular + 's'}"
