"""Select the runs that can be compared in one table: arms grouped into protocols."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import combinations, takewhile
from shlex import quote
from typing import Any

from sqlalchemy import select

from bench.primary_analysis import DEFAULT_ANALYSIS, PrimaryAnalysis, analysis_from_plain
from bench.report.words import one_line
from bench.spec import Arm, arm_from_plain, canonical_json
from bench.stats.metrics import metrics_for, primary_metric
from bench.store import schema
from bench.store.store import DONE, FAILED, Store
from registry.core import did_you_mean
from registry.errors import UserError
from registry.models import MODELS


@dataclass(frozen=True)
class Row:
    """A row of a table: an arm with a label that is unique within its protocol."""

    key: str
    arm: Arm
    deterministic: bool
    label: str


@dataclass(frozen=True)
class Runs:
    """The runs of one row at one training size; `seeds` and `keys` are those of finished runs."""

    seeds: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    failed: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    """Seeds that were requested by a command but are not stored."""

    @property
    def asked(self) -> int:
        """The number of seeds that were requested or run."""
        return len(self.seeds) + len(self.failed) + len(self.missing)


@dataclass(frozen=True)
class Protocol:
    """Arms that can be compared, with their requested and stored runs."""

    values: Mapping[str, Any]
    """As `Arm.protocol`; None for entries that do not apply to any arm."""
    dataset: Mapping[str, Any]
    """The row of ``bench_datasets``."""
    rows: tuple[Row, ...]
    command: Mapping[str, Any]
    """The latest command that requested one of the arms."""
    trials: tuple[Mapping[str, Any], ...]
    """``key, arm, n_train, seed, state, error, finished`` of all stored runs of the arms."""
    asked: frozenset[tuple[str, int, int]]
    """(arm, n_train, seed) requested by any command."""
    since: datetime
    """When the primary analysis of `command` was declared; it has not been changed since."""

    @property
    def kind(self) -> str:
        """``regression`` or ``classification``."""
        return str(self.dataset["kind"])

    @property
    def task(self) -> str:
        """``regression``, ``binary`` or ``multiclass``, the tasks for which metrics are defined."""
        if self.kind == "regression":
            return self.kind
        return "binary" if self.n_classes == 2 else "multiclass"

    @property
    def n_classes(self) -> int:
        """The number of classes; 0 for regression."""
        return len(self.dataset["classes"])

    @property
    def name(self) -> str:
        """The names of the cohort and of the target."""
        return f"{one_line(self.dataset['name'])}, {one_line(self.dataset['target'])}"

    @cached_property
    def declared_sizes(self) -> tuple[int, ...]:
        """The training sizes of the latest command, ascending."""
        return tuple(sorted(self.command["sizes"].get(self.dataset["fingerprint"], ())))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """All training sizes that were run, or requested by the latest command, ascending."""
        return tuple(sorted({*(trial["n_train"] for trial in self.trials), *self.declared_sizes}))

    @cached_property
    def declared(self) -> PrimaryAnalysis:
        """The primary analysis that the latest command declared."""
        return analysis_from_plain(self.command["declared"])

    @cached_property
    def n_before(self) -> int:
        """The number of stored runs that had finished when it was declared."""
        return sum(trial["finished"] < self.since for trial in self.trials)

    @property
    def declared_in_time(self) -> bool:
        """Whether the family was fixed before the runs, by the default rule or by declaration."""
        return self.declared.family == DEFAULT_ANALYSIS or not self.n_before

    @property
    def primary_metric(self) -> str:
        """The declared primary metric or, if none was declared, that of the task."""
        declared = self.declared.metric
        if declared is not None and declared not in metrics_for(self.kind, self.n_classes):
            raise UserError(
                f"The primary metric {declared!r} of these runs is not a built-in metric; load the "
                "plugin that defines it with --plugins."
            )
        return declared or primary_metric(self.kind, self.n_classes)

    @cached_property
    def primary_size(self) -> int:
        """The declared primary training size.

        If none was declared, it is the largest requested size of at most half of the training
        pool or, if there is none, the largest size.
        """
        if self.declared.size is not None:
            size = self.declared.size
            return int(self.dataset["n_pool"]) if size == "all" else int(size)
        sizes = self.declared_sizes or self.sizes
        return max([size for size in sizes if not self.conditional(size)] or sizes)

    def conditional(self, size: int) -> bool:
        """Whether a size exceeds half of the training pool, so that seeds share most subjects."""
        return 2 * size > int(self.dataset["n_pool"])

    def size_label(self, size: int) -> str:
        """Return a training size as shown in a report, such as ``96 (all)``."""
        return f"{size} (all)" if self.is_all(size) else str(size)

    def is_all(self, size: int) -> bool:
        """Whether a training size is the whole training pool, so that there is no random subset."""
        return size >= int(self.dataset["n_pool"])

    def one_fit(self, row: Row, size: int) -> bool:
        """Whether all seeds of this cell are the same fit, because nothing is random."""
        return row.deterministic and self.is_all(size) and row.arm.tune != "per-seed"

    @cached_property
    def runs(self) -> dict[tuple[str, int], Runs]:
        """The runs by (arm, n_train); combinations that were not requested are absent."""
        found: dict[tuple[str, int], dict[int, tuple[str, str]]] = {}
        for trial in self.trials:
            cell = found.setdefault((trial["arm"], trial["n_train"]), {})
            cell[trial["seed"]] = (trial["state"], trial["key"])
        for arm, size, seed in self.asked:
            found.setdefault((arm, size), {}).setdefault(seed, ("missing", ""))
        return {cell: _runs(by_seed) for cell, by_seed in found.items()}

    def at(self, row: Row, size: int) -> Runs:
        """Return the runs of a row at a training size."""
        return self.runs.get((row.key, size), Runs())


@dataclass(frozen=True)
class Selection:
    """The protocols to show, and the options that select the others."""

    protocols: tuple[Protocol, ...]
    others: tuple[str, ...]


def select_protocols(store: Store, where: Mapping[str, str], *, planned: bool = False) -> Selection:
    """Select protocols with `where`, or those of the latest command with results.

    Parameters
    ----------
    store : Store
        Open for reading.
    where : mapping
        Keys of `Arm.protocol` or ``dataset`` to the requested value as text.
    planned : bool
        Whether to select all protocols, including those without finished runs.

    Raises
    ------
    UserError
        If nothing is stored, a key of `where` does not exist, or no protocol matches.
    """
    # A merged database may contain older commands with larger ids.
    made = schema.commands.c
    newest = select(schema.commands).order_by(made.created.desc(), made.id.desc())
    history = read_rows(store, newest)
    table = schema.trials.c
    trials = read_rows(
        store,
        select(
            table.key,
            table.arm,
            table.n_train,
            table.seed,
            table.state,
            table.error,
            table.finished,
        ).order_by(table.n_train, table.seed),
    )
    if not history:
        raise UserError(
            f"{store.database} does not contain any runs yet; start some with `bench run`."
        )
    if not trials and not planned:
        raise UserError(
            f"No run in {store.database} has finished yet; `bench status` shows the planned runs."
        )
    stored = {trial["arm"] for trial in trials}
    latest = history[0] if planned else _latest_with_results(history, stored)
    arms = _newest_first(store, history, stored | set(latest["arms"]), planned)
    datasets = {row["fingerprint"]: row for row in read_rows(store, select(schema.datasets))}
    groups = _groups(arms)
    chosen, rest = _choose(groups, datasets, where, set(latest["arms"]), everything=planned)
    by_key = {arm.key: arm for arm, _ in arms}
    asked = _asked(history, by_key)
    protocols = tuple(
        _protocol(
            group,
            datasets[group.values["fingerprint"]],
            label_rows(group.arms),
            history,
            trials,
            asked,
        )
        for group in chosen
    )
    return Selection(protocols, tuple(rest))


def read_rows(store: Store, query: Any) -> list[dict[str, Any]]:
    """Return the rows of a query as mappings."""
    with store.engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def label_rows(arms: Sequence[tuple[Arm, bool]]) -> tuple[Row, ...]:
    """Label arms by their model and by those fields only in which they differ.

    Parameters
    ----------
    arms : sequence of (Arm, bool)
        Arms, with whether their models are deterministic.
    """
    encoders = chosen_encoders(arm for arm, _ in arms)
    labels = []
    for arm, _ in arms:
        label = arm.model.name
        if arm.encoder is not None and arm.encoder.name in encoders and len(encoders) > 1:
            label += f" [{arm.encoder.name}]"
        peers = [_fields(peer) for peer, _ in arms if peer.model.name == arm.model.name]
        for name, value in _fields(arm).items():
            if any(peer.get(name) != value for peer in peers):
                label += f" {name}={value}"
        labels.append(one_line(label))
    return tuple(
        # Arms that do not differ in any field are distinguished by their keys.
        Row(arm.key, arm, fixed, f"{label} #{arm.key[:6]}" if labels.count(label) > 1 else label)
        for (arm, fixed), label in zip(arms, labels, strict=True)
    )


def chosen_encoders(arms: Iterable[Arm]) -> set[str]:
    """Return the encoders of arms whose models can be combined with any encoder."""
    fixed = {card.name for card in MODELS if card.encoder_fixed}
    return {
        arm.encoder.name
        for arm in arms
        if arm.encoder is not None and (arm.model.plugin or arm.model.name not in fixed)
    }


@dataclass(frozen=True)
class _Group:
    values: Mapping[str, Any]
    arms: tuple[tuple[Arm, bool], ...]
    home: frozenset[str]
    """Keys of the arms that are not in any newer group."""

    @cached_property
    def keys(self) -> frozenset[str]:
        """The keys of the arms."""
        return frozenset(arm.key for arm, _ in self.arms)


def _protocol(
    group: _Group,
    dataset: Mapping[str, Any],
    rows: tuple[Row, ...],
    history: Sequence[Mapping[str, Any]],
    trials: Iterable[Mapping[str, Any]],
    asked: Mapping[str, set[tuple[str, int, int]]],
) -> Protocol:
    commands = [command for command in history if group.keys & set(command["arms"])]
    latest = commands[0]
    # Commands are ordered from the newest; go back to the first with the same declaration.
    same = takewhile(lambda each: (each["declared"] or {}) == (latest["declared"] or {}), commands)
    return Protocol(
        values=group.values,
        dataset=dataset,
        rows=rows,
        command=latest,
        trials=tuple(trial for trial in trials if trial["arm"] in group.keys),
        asked=frozenset(cell for arm, _ in group.arms for cell in asked.get(arm.key, ())),
        since=list(same)[-1]["created"],
    )


def _runs(by_seed: Mapping[int, tuple[str, str]]) -> Runs:
    def seeds(wanted: str) -> tuple[int, ...]:
        return tuple(seed for seed in sorted(by_seed) if by_seed[seed][0] == wanted)

    done = seeds(DONE)
    return Runs(done, tuple(by_seed[seed][1] for seed in done), seeds(FAILED), seeds("missing"))


def _fields(arm: Arm) -> dict[str, str]:
    """Return the fields of an arm as text; tuned settings do not have a single value."""
    parts = {"": arm.model} if arm.encoder is None else {"": arm.model, "encoder-": arm.encoder}
    fields = {name: _word(value) for name, value in arm.params.items()}
    fields |= dict.fromkeys(arm.space, "tuned")
    for prefix, part in parts.items():
        fields |= {
            f"{prefix}version": str(part.version),
            f"{prefix}plugin": part.plugin[:6] or "none",
            f"{prefix}weights": part.weights[:6] or "none",
        }
    return fields


def _word(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _latest_with_results(history: Sequence[Mapping[str, Any]], stored: set[str]) -> Any:
    for command in history:
        if stored & set(command["arms"]):
            return command
    return history[0]


def _newest_first(
    store: Store, history: Sequence[Mapping[str, Any]], wanted: set[str], planned: bool
) -> list[tuple[Arm, bool]]:
    """Return the arms in the order of the latest command that requested each."""
    rows = {row["key"]: row for row in read_rows(store, select(schema.arms))}
    order = dict.fromkeys(key for command in history for key in command["arms"])
    order |= dict.fromkeys(rows)
    return [
        (arm_from_plain(rows[key]["spec"]), bool(rows[key]["deterministic"]))
        for key in order
        if planned or key in wanted
    ]


def _asked(
    history: Iterable[Mapping[str, Any]], arms: Mapping[str, Arm]
) -> dict[str, set[tuple[str, int, int]]]:
    cells: dict[str, set[tuple[str, int, int]]] = {}
    for command in history:
        for key in command["arms"]:
            if key in arms:
                sizes = command["sizes"].get(arms[key].fingerprint, ())
                cells.setdefault(key, set()).update(
                    (key, int(size), int(seed)) for size in sizes for seed in command["seeds"]
                )
    return cells


def _groups(arms: Sequence[tuple[Arm, bool]]) -> list[_Group]:
    """Group arms that can be compared in one table, newest first.

    None in a protocol matches any value. A group includes every arm that matches the values of
    the group so far, so that no two of its arms differ. An arm with None in its protocol may
    belong to several groups.
    """
    left = list(arms)
    groups: list[_Group] = []
    while left:
        values = left[0][0].protocol
        members = []
        for arm, fixed in [left[0], *arms]:
            if _fits(arm.protocol, values):
                values = values | {k: v for k, v in arm.protocol.items() if v is not None}
                members.append((arm.key, (arm, fixed)))
        inside = dict(members)
        # The arms keep the order of their commands, whichever began the group.
        ordered = tuple(pair for pair in arms if pair[0].key in inside)
        home = frozenset(arm.key for arm, _ in left if arm.key in inside)
        groups.append(_Group(values, ordered, home))
        left = [pair for pair in left if pair[0].key not in inside]
    return groups


def _fits(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(v is None or other[k] is None or v == other[k] for k, v in one.items())


def _choose(
    groups: Sequence[_Group],
    datasets: Mapping[str, Mapping[str, Any]],
    where: Mapping[str, str],
    latest: set[str],
    *,
    everything: bool,
) -> tuple[list[_Group], list[str]]:
    """Return the groups to show, and the options that select each of the others."""

    def words(values: Mapping[str, Any]) -> dict[str, str]:
        name = str(datasets[values["fingerprint"]]["name"])
        return {"dataset": name, **{key: _word(value) for key, value in values.items()}}

    known = list(words(groups[0].values))
    for key in where:
        if key not in known:
            raise UserError(
                f"--where {key}: there is no such key{did_you_mean(key, known)}; choose one of "
                f"{', '.join(known)}."
            )
    if where:
        arms = {arm.key: (arm, fixed) for group in groups for arm, fixed in group.arms}
        fitting = [
            pair
            for pair in arms.values()
            if all(
                words(pair[0].protocol)[key] == value
                or (key != "dataset" and pair[0].protocol[key] is None)
                for key, value in where.items()
            )
        ]
        chosen = [
            group
            for group in _groups(fitting)
            if all(words(group.values)[key] == value for key, value in where.items())
        ]
        if not chosen:
            asked = " ".join(f"--where {key}={value}" for key, value in where.items())
            has = "; ".join(
                f"{key}: {', '.join(sorted({words(group.values)[key] for group in groups}))}"
                for key in where
            )
            raise UserError(
                f"No results in this database match {asked}; available values are {has}."
            )
    elif everything:
        chosen = list(groups)
    else:
        chosen = [group for group in groups if group.home & latest]
    shown = {canonical_json(group.values) for group in chosen}
    rest = [group for group in groups if canonical_json(group.values) not in shown]
    everyone = [words(group.values) for group in groups]
    return chosen, [_selector(words(group.values), everyone) for group in rest]


def _selector(wanted: Mapping[str, str], everyone: Sequence[Mapping[str, str]]) -> str:
    """Return the smallest set of ``--where key=value`` that selects only this protocol."""
    others = [other for other in everyone if other != wanted]
    for size in range(1, len(wanted) + 1):
        for keys in combinations(wanted, size):
            if all(any(other[key] != wanted[key] for key in keys) for other in others):
                return " ".join(
                    f"--where {quote(f'{key}={one_line(wanted[key])}')}" for key in keys
                )
    raise ValueError("two protocols have the same values")
