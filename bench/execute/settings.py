"""Settings of the execution of a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.store.database import Database
from registry.errors import UserError


@dataclass(frozen=True)
class ExecutionSettings:
    """How and where the units of a command run; not part of any key.

    Parameters
    ----------
    database : pathlib.Path or sqlalchemy.URL
        The database. By default, units work in a directory next to its file.
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
    max_failures : int, optional
        Number of failed trials after which no more units are started.
    workers : int, optional
        Number of units that run in parallel on this machine. The executor then only holds twice as
        many, because the descriptions of all units would fill the memory.
    memory : float, optional
        Memory in MB that all workers on this machine may use together.
    work_given : pathlib.Path, optional
        The working directory chosen by the user, which is required without a database file.
    """

    database: Database
    cache: Path
    command: int
    argv: Sequence[str]
    device: str
    threads: int
    threads_given: bool = False
    deterministic: bool = False
    keep: tuple[str, ...] = ()
    time_limit: float | None = None
    max_failures: int | None = None
    workers: int | None = None
    memory: float | None = None
    work_given: Path | None = None

    @property
    def work(self) -> Path:
        """The working directory of the units."""
        return work_folder(self.database, self.work_given)

    @property
    def weights(self) -> Path:
        """The directory of saved weights."""
        return weights_folder(self.database, self.work_given)


def work_folder(database: Database, given: Path | None = None) -> Path:
    """Return the working directory of units, by default ``<database>.work`` with links resolved.

    Raises
    ------
    UserError
        If none is given for a database of a server.
    """
    if given is not None:
        return given.absolute()
    if not isinstance(database, Path):
        raise UserError(
            f"The database {database} is on a server, so --work DIR is required: a directory for "
            "checkpoints, unfinished results and saved weights."
        )
    return Path(f"{database.resolve()}.work")


def weights_folder(database: Database, work: Path | None = None) -> Path:
    """Return the directory of saved weights, with a subdirectory per trial.

    It is ``<database>.weights``, or ``weights`` in the working directory of a server's database.
    """
    if isinstance(database, Path):
        return Path(f"{database.resolve()}.weights")
    return work_folder(database, work) / "weights"
