"""The start-up time of the command line, in addition to that of Python."""

import statistics
import subprocess
import sys
import time

LIMITS_MS = {("--help",): 150, ("list", "models"): 300}
"""Limits in milliseconds; importing pydantic takes half of the second one."""
RUNS = 10


def milliseconds(words: list[str]) -> float:
    """Return the median wall time of a command in milliseconds."""
    spent = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        spent.append(1000 * (time.perf_counter() - started))
    return statistics.median(spent)


if __name__ == "__main__":
    bare = milliseconds([sys.executable, "-c", "pass"])
    print(f"python -c pass: {bare:.0f} ms")
    for verb, limit in LIMITS_MS.items():
        over = milliseconds([sys.executable, "-m", "bench", *verb]) - bare
        verdict = "ok" if over <= limit else f"over the limit of {limit} ms"
        print(f"bench {' '.join(verb)}: {over:.0f} ms more, {verdict}")
