"""Numbers and stored texts as a reader sees them, in every format the same."""

from __future__ import annotations

import math

from bench.stats.metric import Metric

NOT_AVAILABLE = "n/a"


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters; names come from outside."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())


def digits_of(metric: Metric) -> int:
    """Return the decimals of a metric: hundredths of a year, thousandths of what has no unit."""
    return 2 if metric.unit else 3


def number(value: float, digits: int) -> str:
    """Return a number with so many decimals, ``n/a`` when it is undefined, never ``-0.00``."""
    if not math.isfinite(value):
        return NOT_AVAILABLE
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def interval(low: float, high: float, digits: int) -> str:
    """Return ``[low, high]``, or ``[n/a]`` when there is no interval."""
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
