"""How long the command line takes to start, over a Python that does nothing."""

import statistics
import subprocess
import sys
import time

LIMIT_MS = 200
RUNS = 10


def milliseconds(words: list[str]) -> float:
    """Return the median wall time of a command in ms; the runs alternate with nothing else."""
    spent = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        spent.append(1000 * (time.perf_counter() - started))
    return statistics.median(spent)


if __name__ == "__main__":
    bare = milliseconds([sys.executable, "-c", "pass"])
    print(f"python -c pass: {bare:.0f} ms")
    for verb in (["--help"], ["list", "models"]):
        over = milliseconds([sys.executable, "-m", "bench", *verb]) - bare
        verdict = "ok" if over <= LIMIT_MS else f"over the limit of {LIMIT_MS} ms"
        print(f"bench {' '.join(verb)}: {over:.0f} ms over it, {verdict}")
