"""How the units of a command run: one object from the command line to the description of a unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExecutionSettings:
    """How and where the units of a command run; none of it decides which numbers are wanted.

    Parameters
    ----------
    database : pathlib.Path
        The file of the database; units work and leave weights in folders beside it.
    cache : pathlib.Path
        A writable folder for measured layouts and features of frozen encoders.
    command : int
        The number of the command in the database.
    argv : sequence of str
        The command as it was given.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    threads : int
        Threads of a unit.
    threads_given : bool
        Whether the user asked for `threads`. Otherwise a model keeps those it began with on this
        machine: sums round differently with another number of them.
    deterministic : bool
        Whether a GPU must repeat its numbers to the last bit.
    keep : tuple of str
        Which weights of a trial are kept beside the database: ``best``, ``last``.
    time_limit : float, optional
        Seconds a unit may take before it ends, to go on another time.
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
        """The folder in which units work."""
        return work_folder(self.database)

    @property
    def weights(self) -> Path:
        """The folder in which kept weights are."""
        return weights_folder(self.database)


def work_folder(database: Path) -> Path:
    """Return where units work: ``<database file>.work``, by whichever link it is named."""
    return Path(f"{database.resolve()}.work")


def weights_folder(database: Path) -> Path:
    """Return where weights are kept: ``<database file>.weights``, a folder a trial."""
    return Path(f"{database.resolve()}.weights")
