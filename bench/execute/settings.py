"""Settings of the execution of a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExecutionSettings:
    """How and where the units of a command run; not part of any key.

    Parameters
    ----------
    database : pathlib.Path
        The database file; units work in a directory next to it.
    cache : pathlib.Path
        A writable directory for measured layouts and features of frozen encoders.
    command : int
        The id of the command in the database.
    argv : sequence of str
        The command and its arguments.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    threads : int
        Number of threads per unit.
    threads_given : bool
        Whether the user specified `threads`. Otherwise, an arm keeps the number of its stored
        trials on this machine, because another number would change the rounding of sums.
    deterministic : bool
        Whether results on a GPU must be bitwise reproducible.
    keep : tuple of str
        Which weights of a trial to save next to the database: ``best``, ``last``.
    time_limit : float, optional
        Seconds after which a unit is stopped, to be resumed later.
    """

    database: Path
    cache: Path
    command: int
    argv: Sequence[str]
    device: str
    threads: int
    threads_given: bool = False
    deterministic: bool = False
    keep: tuple[str, ...] = ()
    time_limit: float | None = None

    @property
    def work(self) -> Path:
        """The working directory of the units."""
        return work_folder(self.database)

    @property
    def weights(self) -> Path:
        """The directory of saved weights."""
        return weights_folder(self.database)


def work_folder(database: Path) -> Path:
    """Return the working directory of units, ``<database>.work``, with links resolved."""
    return Path(f"{database.resolve()}.work")


def weights_folder(database: Path) -> Path:
    """Return the directory of weights, ``<database>.weights``, with a subdirectory per trial."""
    return Path(f"{database.resolve()}.weights")
